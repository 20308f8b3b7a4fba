"""Rules on the text of a job, one file each; `policies.job_rules` lists them.

All of it reads syntax trees. The text is never run here.
"""
