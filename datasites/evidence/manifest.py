"""The manifest of an evidence folder: the digest of every file, signed by the site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from datasites.evidence.documents import MANIFEST, json_file, sha256
from datasites.keys import SiteKey, is_signed
from policies.contract import Digest
from policies.strict import Strict, canonical_json

PURPOSE = "evidence manifest"


class Manifest(Strict):
    """What lies in the folder."""

    type: Literal["sitegate evidence manifest"] = "sitegate evidence manifest"
    """What this document is."""
    site: str = Field(max_length=200)
    """Name of the site."""
    request: int = Field(ge=1)
    """Number of the request."""
    at: str = Field(max_length=40)
    """When the evidence was exported, UTC."""
    files: dict[str, Digest]
    """File -> SHA-256, of every file but this one."""
    public_key: Digest
    """The site's public key."""
    signature: str = Field(default="", pattern="^[0-9a-f]*$", max_length=128)
    """Ed25519 over the canonical JSON of the other fields."""

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is made over."""
        return canonical_json(self.model_dump(mode="json", exclude={"signature"}))

    @property
    def is_signed(self) -> bool:
        """Whether the holder of the key that it names signed it."""
        return is_signed(self.public_key, PURPOSE, self.signed_bytes, self.signature)


def sign_manifest(
    key: SiteKey, site: str, request: int, at: str, files: Mapping[str, str]
) -> Manifest:
    """The manifest of these files: name -> text."""
    digests = {name: sha256(text) for name, text in sorted(files.items()) if name != MANIFEST}
    plain = Manifest(site=site, request=request, at=at, files=digests, public_key=key.public_hex)
    return plain.model_copy(update={"signature": key.sign(PURPOSE, plain.signed_bytes)})


def manifest_file(manifest: Manifest) -> str:
    """The manifest as its file."""
    return json_file(manifest.model_dump(mode="json"))
