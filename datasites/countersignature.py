"""One site signs how far another site's audit log goes.

Who holds a site's key can write a whole new log and sign it. A countersignature is out of their
reach: another site's signature, with its own key, under the first site's checkpoint. A log that was
replaced afterwards no longer agrees with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from datasites.audit_checkpoint import Checkpoint
from datasites.audit_events import Event
from datasites.audit_segments import read_events
from datasites.errors import DecisionError, RecordError
from datasites.keys import SiteKey, is_signed
from datasites.open_site import OpenSite
from datasites.records import utc_now
from policies.contract import Digest
from policies.strict import Strict, canonical_json, validation_sentences

PURPOSE = "audit countersignature"


class Countersignature(Strict):
    """The signed statement of one site that it saw the checkpoint of another."""

    type: Literal["sitegate countersignature"] = "sitegate countersignature"
    """What this document is."""
    site: str = Field(max_length=200)
    """Name of the site that countersigned."""
    checkpoint: Checkpoint
    """The other site's checkpoint, as it was shown."""
    at: str = Field(max_length=40)
    """When it was countersigned, UTC."""
    public_key: Digest
    """Public key of the site that countersigned."""
    signature: str = Field(default="", max_length=200)
    """Ed25519 over the canonical JSON of the other fields."""

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is made over."""
        return canonical_json(self.model_dump(mode="json", exclude={"signature"}))


def countersign(
    site: OpenSite,
    checkpoint: Mapping[str, Any],
    public_key: str,
    person: str = "site",
    role: str | None = None,
) -> dict[str, Any]:
    """Countersign another site's checkpoint; this site's own log says so first.

    Args:
        site: The site that countersigns.
        checkpoint: The other site's checkpoint document.
        public_key: The other site's public key, hex, as it was handed over.
        person: Who asked for it.
        role: In which role.

    Raises:
        DecisionError: It is not a checkpoint by that key, or contradicts an earlier one of it.
        RecordError: The log cannot be written.
    """
    seen = _checked(checkpoint, public_key)
    if seen.public_key == site.key.public_hex:
        raise DecisionError("a site does not countersign its own log; ask another site to")
    with site.deciding:
        _check_goes_on(seen, read_events(site.site.audit))
        site.audit.append(
            Event.LOG_COUNTERSIGNED,
            person,
            seen.site,
            role=role,
            objects={"head": seen.head},
            lines=seen.lines,
            of_key=seen.public_key,
        )
    return sign_countersignature(site.key, site.config.name, seen, utc_now()).model_dump(
        mode="json"
    )


def sign_countersignature(
    key: SiteKey, site: str, checkpoint: Checkpoint, at: str
) -> Countersignature:
    """The countersignature of a checkpoint."""
    plain = Countersignature(site=site, checkpoint=checkpoint, at=at, public_key=key.public_hex)
    return plain.model_copy(update={"signature": key.sign(PURPOSE, plain.signed_bytes)})


def read_countersignature(path: Path, countersigner: str) -> Checkpoint:
    """The checkpoint that a file proves, for `verify_log`.

    Args:
        path: The file.
        countersigner: Public key of the site that countersigned, hex.

    Raises:
        RecordError: The file is missing, or holds no countersignature by that key.
    """
    try:
        found = Countersignature.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path} is missing or is not a countersignature") from error
    if found.public_key != countersigner or not is_signed(
        countersigner, PURPOSE, found.signed_bytes, found.signature
    ):
        raise RecordError(
            f"the countersignature {path} was not signed by the key given: it names site "
            f"{found.site!r} and key {found.public_key[:12]}…, the key given is "
            f"{countersigner[:12]}…. Ask the site that countersigned for its key"
        )
    return found.checkpoint


def _checked(plain: Mapping[str, Any], public_key: str) -> Checkpoint:
    try:
        seen = Checkpoint.model_validate(plain)
    except ValidationError as error:
        sentences = "; ".join(validation_sentences(error, Checkpoint))
        raise DecisionError(f"this is not a checkpoint: {sentences}") from error
    if seen.public_key != public_key or not seen.is_signed:
        raise DecisionError(
            f"the checkpoint names site {seen.site!r} and is not signed by the key given "
            f"({public_key[:12]}…); nothing was countersigned. Ask that site for its key"
        )
    return seen


def _check_goes_on(seen: Checkpoint, events: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a log that has become shorter, or another, since it was countersigned last."""
    for line in events:
        if line["event"] != Event.LOG_COUNTERSIGNED or line["detail"]["of_key"] != seen.public_key:
            continue
        lines, head = line["detail"]["lines"], line["objects"]["head"]
        if lines > seen.lines or (lines == seen.lines and head != seen.head):
            raise DecisionError(
                f"the log of {seen.site!r} had {lines} lines when it was countersigned on "
                f"{line['time'][:10]}; this checkpoint has {seen.lines} lines and does not go on "
                "from there. The log was cut or replaced; look into it with that site"
            )
