"""An approval: a signed document that binds one text to one dataset version and a budget of runs.

It is written once, when a person approves, and verified again at every run: the site's database is
not trusted to say what was approved, the signature is.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import ValidationError

from datasites.keys import SiteKey, is_signed
from policies.contract import Digest, Terms
from policies.document import Policy
from policies.findings import Finding, refuse
from policies.job_rules import job_sha256
from policies.strict import Strict, canonical_json

PURPOSE = "approval"


class Consent(Strict):
    """One person's yes, as it stands in an approval."""

    person: str
    """Who."""
    role: str
    """As what."""
    reason: str
    """Why, in their words."""
    at: dt.datetime
    """When, UTC."""
    signature: str
    """The site's signature over this person's decision."""


class Approval(Strict):
    """Everything that a person at the hospital said yes to."""

    type: Literal["sitegate approval"] = "sitegate approval"
    """What this document is."""
    site: str
    """Name of the site."""
    request: int
    """Number of the request at this site."""
    researcher: str
    """Account that may run the job."""
    text_sha256: Digest
    """The job's text, byte for byte."""
    terms: Terms
    """Dataset version, argument ranges, runs, contract, as asked for."""
    policy_sha256: Digest
    """The policy under which it was approved."""
    policy_adoption: int
    """Which adoption of a policy at this site that was; the same policy may be adopted again."""
    consents: tuple[Consent, ...]
    """Everyone who had to agree, in the order in which they did."""
    approved_at: dt.datetime
    """When the last of them did, UTC."""
    expires_at: dt.datetime
    """From when on nothing runs any more, UTC."""


def sign_approval(approval: Approval, key: SiteKey) -> tuple[str, str]:
    """The document as canonical JSON, and the site's signature over it."""
    document = canonical_json(approval.model_dump(mode="json"))
    return document.decode(), key.sign(PURPOSE, document)


def check_approval(
    document: str,
    signature: str,
    *,
    public_hex: str,
    request: int,
    researcher: str,
    text: str,
    policy: Policy,
    adoption: int,
    now: dt.datetime,
) -> tuple[Approval | None, list[Finding]]:
    """The approval, if the document allows this researcher to run this text now, and why not.

    Args:
        document: The document as stored.
        signature: The site's signature as stored.
        public_hex: The site's public key.
        request: The request that is being run.
        researcher: The account that calls.
        text: The text about to run.
        policy: The policy in force.
        adoption: Which adoption of a policy at this site put it in force.
        now: The time, UTC.
    """
    if not is_signed(public_hex, PURPOSE, document.encode(), signature):
        return None, [
            refuse(
                "approval.signature",
                "the stored approval is not as it was signed",
                "an approval signed by this site",
                "the hospital has to look into it and approve again",
            )
        ]
    try:
        approval = Approval.model_validate_json(document)
    except ValidationError:
        return None, [
            refuse(
                "approval.signature",
                "an approval of another version of this product",
                "this version",
                "ask for a new approval",
            )
        ]
    findings = []
    if approval.request != request or approval.researcher != researcher:
        findings.append(
            refuse(
                "approval.account",
                "an approval for another request or account",
                "the approved account",
                "submit a request of your own",
            )
        )
    if approval.text_sha256 != job_sha256(text):
        findings.append(
            refuse(
                "approval.text",
                "a text that differs from the approved one",
                f"the text sha256 {approval.text_sha256[:12]}…",
                "submit the new text as a new request",
            )
        )
    if (approval.policy_sha256, approval.policy_adoption) != (policy.sha256, adoption):
        findings.append(
            refuse(
                "approval.policy",
                "the hospital's policy has changed since",
                f"the policy sha256 {approval.policy_sha256[:12]}…",
                "ask the hospital to confirm the approval, or submit again",
            )
        )
    if now >= approval.expires_at:
        findings.append(
            refuse(
                "approval.expired",
                f"the approval expired on {approval.expires_at:%Y-%m-%d %H:%M} UTC",
                "runs before that",
                "submit again",
            )
        )
    return approval, findings
