"""Whether the cage that runs are to be in has been proved, as the policy wants it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from policies.document import Policy
from policies.findings import Finding, refuse


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of trying a cage.

    Attributes:
        at: When, with time zone.
        passed: Whether all that must fail did.
        bubblewrap_sha256: Digest of the program that built the walls; empty for none.
    """

    at: dt.datetime
    passed: bool
    bubblewrap_sha256: str


def check_proof(
    last: Proof | None, bubblewrap_sha256: str, policy: Policy, now: dt.datetime
) -> list[Finding]:
    """Why nothing may run on the strength of the last proof; empty when all is well.

    A proof that lies in the future says that a clock was changed, and counts for nothing.
    """
    days = policy.sandbox.proof_days
    if days == 0:
        return []
    if last is None:
        seen = "the cage was not proved at this site yet"
    elif not last.passed:
        seen = f"the cage did not hold when it was tried on {last.at:%Y-%m-%d}"
    elif last.bubblewrap_sha256 != bubblewrap_sha256:
        seen = f"another bubblewrap builds the cage than the one proved on {last.at:%Y-%m-%d}"
    elif not dt.timedelta(0) <= now - last.at <= dt.timedelta(days=days):
        seen = f"the cage was last proved on {last.at:%Y-%m-%d}"
    else:
        return []
    return [
        refuse(
            "sandbox.proof",
            seen,
            f"a proof of at most {days} days" if days > 1 else "a proof of at most 1 day",
            "ask the hospital to run `sitegate doctor`",
        )
    ]
