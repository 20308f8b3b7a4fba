"""The hospital side: a PySyft datasite behind a gate, its records, its sandbox and its tools.

Everything here runs inside the hospital. It may import `policies`, never `federation`.
"""
