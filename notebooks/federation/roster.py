"""The roster: which sites there are, where they answer, and whose certificates they show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from federation.errors import FederationError
from policies.strict import Strict, some, validation_sentences

FORM = "it is a YAML file with `sites:`, a list of `name`, `url` and `authority`"


class SiteAddress(Strict):
    """One line of the roster."""

    name: str = Field(min_length=1, max_length=40)
    """The site's short name."""
    url: str = Field(pattern=r"^https://[^/\s]+$")
    """Address, such as `https://127.0.0.1:8443`."""
    authority: Path
    """PEM file of the certificate authority that signed the site's certificate."""


def read_roster(roster: str | Path | Mapping[str, Any]) -> list[SiteAddress]:
    """The sites of a roster; paths of authorities are relative to its file.

    Raises:
        FederationError: It cannot be read, or an entry is not valid.
    """
    folder = Path()
    if not isinstance(roster, Mapping):
        file, folder = Path(roster), Path(roster).parent
        try:
            roster = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise FederationError(
                f"the roster {file} cannot be read ({error.strerror}); {FORM}"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise FederationError(f"the roster {file} is not YAML; {FORM}") from error
    entries = roster.get("sites") if isinstance(roster, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise FederationError(f"the roster names no site; {FORM}")
    addresses = [_read_address(number, entry) for number, entry in enumerate(entries, 1)]
    names = [a.name for a in addresses]
    if twice := {name for name in names if names.count(name) > 1}:
        raise FederationError(f"the roster has {some(twice)} twice; give each site its own name")
    return [a.model_copy(update={"authority": folder / a.authority}) for a in addresses]


def _read_address(number: int, entry: object) -> SiteAddress:
    try:
        return SiteAddress.model_validate(entry)
    except ValidationError as error:
        sentences = "; ".join(validation_sentences(error, SiteAddress))
        raise FederationError(f"site {number} of the roster: {sentences}; {FORM}") from error
