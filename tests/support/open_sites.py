"""A site opened in this process, without syft: for the rules and records of the hospital side."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import yaml

import factories
from datasites.catalogue import write_version
from datasites.errors import AccountError
from datasites.new_site import example_config, make_site
from datasites.open_site import OpenSite
from datasites.people import Acting, Role, add_person
from datasites.records import PublishedDataset, RequestRow, Researcher, utc_now
from datasites.requests import submit_request
from policies.contract import Terms
from policies.strict import canonical_json

OWNER = Acting("olivia@st-marys.example", Role.OWNER)
SECOND = Acting("sam@st-marys.example", Role.SECOND)
THIRD = Acting("oscar@st-marys.example", Role.OWNER)
COMPLIANCE = Acting("carla@st-marys.example", Role.COMPLIANCE)
RITA = "rita@uni.example"

_numbers = itertools.count(1)


class RecordedSyft:
    """Stands where syft does, and remembers what it was told."""

    def __init__(self) -> None:
        self.decisions: list[tuple[str, bool]] = []
        self.accounts: set[str] = set()

    def submit_code(self, account: str, text: str, terms: Terms, number: int) -> tuple[str, str]:
        """Ids of a request and of a code."""
        return f"{number:032x}", f"{next(_numbers) + 1000:032x}"

    def mirror_decision(self, syft_request: str, approved: bool, reason: str) -> None:
        """Remember it."""
        self.decisions.append((syft_request, approved))

    def publish(self, name: str, version: str) -> str:
        """Id of a handle."""
        return "0" * 32

    def free_address(self, email: str) -> str:
        """The domain in lower case, as syft has it."""
        name, _, domain = email.partition("@")
        if not domain:
            raise AccountError(f"`{email}` is not an e-mail address")
        kept = f"{name}@{domain.lower()}"
        if kept in self.accounts:
            raise AccountError(f"{kept} has an account here already")
        return kept

    def add_researcher(self, email: str, name: str, password: str) -> None:
        """Remember it."""
        self.accounts.add(email)


def open_site(folder: Path, **policy_changes: Any) -> OpenSite:
    """A site with one dataset version and four people, opened."""
    policy = folder / "policy.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    made = factories.policy(**policy_changes).model_dump(mode="json", exclude_none=True)
    policy.write_text(yaml.safe_dump(made))
    config = example_config("st-marys")
    site = make_site(
        folder / "site", config, policy, OWNER.email, "Olivia Owner", factories.PASSWORD
    )
    version, card = write_version(
        site.datasets,
        factories.splits(),
        name="chest-xray",
        classes=("normal", "pneumonia"),
        source="trial",
        licence="none",
        description="",
        minimum_count=5,
    )
    opened = OpenSite(site)
    for acting in (SECOND, THIRD, COMPLIANCE):
        name = acting.email.split("@")[0].title()
        add_person(opened.records, acting.email, name, factories.PASSWORD, 12, acting.role)
    with opened.records.write() as session:
        session.add(
            PublishedDataset(
                version=version, name=card.name, published_at=utc_now(), syft_asset="0" * 32
            )
        )
        session.add(
            Researcher(
                email=RITA, name="Rita", institution="Example University", created_at=utc_now()
            )
        )
    return opened


def submit(
    site: OpenSite,
    syft: RecordedSyft,
    text: str = factories.DOUBLE_JOB,
    *,
    account: str | None = None,
    follows: int = 0,
    ago: dt.timedelta = dt.timedelta(),
    unique: bool = True,
    **changes: Any,
) -> RequestRow:
    """Submit a job; `ago` puts the submission into the past, each text is made unique.

    Each request without an `account` is one of an account of its own: undecided ones are limited.
    """
    account = account or f"rita-{next(_numbers)}@uni.example"
    (version,) = (p.name for p in site.site.datasets.iterdir())
    terms = factories.terms(version=version, **changes)
    if unique:
        text = f"{text.rstrip()}\n# test {next(_numbers)}\n"
    document = canonical_json(terms.model_dump(mode="json")).decode()
    row = submit_request(site, syft, account, text, document, follows)
    if ago:
        with site.records.write() as session:
            fresh = session.get_one(RequestRow, row.id)
            at = dt.datetime.now(dt.UTC) - ago
            fresh.submitted_at = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
            row = fresh
    return row
