"""A checkpoint: the site's signature under its audit log as far as it goes.

The same document stands in a checkpoint line of the log, about the lines before it, and in
`audit.checkpoint.json` beside the log, about all lines with the checkpoint line. A copy of it that
is kept elsewhere shows later whether the log was cut or rewritten.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from datasites.errors import RecordError
from datasites.keys import SiteKey, is_signed
from policies.contract import Digest
from policies.strict import Strict, canonical_json

PURPOSE = "audit checkpoint"


class Checkpoint(Strict):
    """The signed statement that a site's log had so many lines, and what the last one was."""

    type: Literal["sitegate checkpoint"] = "sitegate checkpoint"
    """What this document is."""
    site: str = Field(max_length=200)
    """Name of the site."""
    lines: int = Field(ge=0)
    """Lines of the log that it covers."""
    head: Digest
    """Hash of the last of them."""
    at: str = Field(max_length=40)
    """When it was signed, UTC."""
    public_key: Digest
    """The site's public key."""
    signature: str = Field(default="", max_length=200)
    """Ed25519 over the canonical JSON of the other fields."""

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is made over."""
        return canonical_json(self.model_dump(mode="json", exclude={"signature"}))

    @property
    def is_signed(self) -> bool:
        """Whether the holder of the key that it names signed it."""
        return is_signed(self.public_key, PURPOSE, self.signed_bytes, self.signature)


def sign_checkpoint(key: SiteKey, site: str, lines: int, head: str, at: str) -> Checkpoint:
    """The checkpoint of a log with so many lines and this last hash."""
    plain = Checkpoint(site=site, lines=lines, head=head, at=at, public_key=key.public_hex)
    return plain.model_copy(update={"signature": key.sign(PURPOSE, plain.signed_bytes)})


def is_checkpoint_of(plain: Any, public_hex: str, lines: int, head: str) -> bool:
    """Whether a JSON value is a checkpoint by this key of exactly this state of a log."""
    try:
        found = Checkpoint.model_validate(plain)
    except ValidationError:
        return False
    said = (found.public_key, found.lines, found.head)
    return said == (public_hex, lines, head) and found.is_signed


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file; whether it is signed is for the caller to ask.

    Raises:
        RecordError: The file is missing or holds no checkpoint.
    """
    try:
        return Checkpoint.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(
            f"{path} is missing or is not a checkpoint; take it from a backup, or ask the site "
            "for a new one: sitegate audit checkpoint"
        ) from error
