"""A person's decision as a signed document: who, in which role, said what about exactly what."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import Field
from sqlalchemy import select

from datasites.keys import SiteKey, is_signed
from datasites.open_site import OpenSite
from datasites.records import DecisionRow
from datasites.request_states import Verb
from policies.contract import Digest
from policies.strict import Strict, canonical_json

PURPOSE = "decision"
MAXIMUM_COMMENTS = 50


class LineComment(Strict):
    """A remark on one line of a job's text, which the researcher reads."""

    line: int = Field(ge=1, le=100_000)
    """Number of the line, from 1."""
    text: str = Field(min_length=1, max_length=500)
    """What to change, or why."""


class SignedDecision(Strict):
    """What one person decided."""

    type: Literal["sitegate decision"] = "sitegate decision"
    """What this document is."""
    site: str
    """Name of the site."""
    request: int
    """Number of the request at this site."""
    verb: Verb
    """What was decided."""
    person: str
    """Who decided."""
    role: str
    """As what."""
    reason: str
    """Why, in their words."""
    comments: tuple[LineComment, ...] = ()
    """Remarks on lines of the text."""
    text_sha256: Digest
    """The text that was shown."""
    terms_sha256: Digest
    """The terms that were shown."""
    policy_sha256: Digest
    """The policy that was in force."""
    policy_adoption: int
    """Which adoption of a policy at this site had put it in force."""
    rehearsal_sha256: Digest | None = None
    """The rehearsal that was shown, if there was one."""
    at: dt.datetime
    """When, UTC."""


def sign_decision(decision: SignedDecision, key: SiteKey) -> tuple[str, str]:
    """The document as canonical JSON, and the site's signature over it."""
    document = canonical_json(decision.model_dump(mode="json"))
    return document.decode(), key.sign(PURPOSE, document)


def read_decisions(site: OpenSite, request: int) -> list[tuple[SignedDecision, str]]:
    """Every decision about a request with its signature, oldest first.

    What this site's key did not sign is none: the database is not trusted to say who decided.
    """
    query = select(DecisionRow).where(DecisionRow.request == request).order_by(DecisionRow.id)
    with site.records.read() as session:
        rows = session.scalars(query).all()
    return [
        (SignedDecision.model_validate_json(row.document), row.signature)
        for row in rows
        if is_signed(site.key.public_hex, PURPOSE, row.document.encode(), row.signature)
    ]
