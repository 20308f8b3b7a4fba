"""Differential privacy: what mechanisms cost, what of it a policy allows, and the noise itself.

`mechanisms` names what is done to data before it leaves, `accounting` what that costs together,
`rule` is the section of a policy, `noise` draws, `update_noise` protects the update of any code.
"""
