"""What hospitals and researchers must agree on: policies, contracts and the rules that check them.

Both sides import this package, so that a researcher sees the findings that a hospital will see.
Every rule is a pure function of plain values. Nothing here imports syft, torch, `datasites` or
`federation`.
"""
