"""What the notebooks need to know of running sites: addresses, passwords, desks, as files."""

from __future__ import annotations

from pathlib import Path

import yaml

from datasites.files import write_private
from datasites.people import generate_password
from datasites.trial import TrialSite, roster


def write_for_notebooks(folder: Path, sites: list[TrialSite], password: str) -> None:
    """Write what the notebooks read by their parameters; only this user can read the files.

    `roster.yaml` and `researcher.password` are for the researcher; `owners.yaml` and
    `compliance.yaml` say where each hospital's people sit, and with which passwords. Each hospital
    gets a person for compliance.

    Args:
        folder: Where.
        sites: The running sites.
        password: The researcher's, the same at every site.
    """
    owners, reviewers = {}, {}
    for site in sites:
        owners[site.name] = _desk(site, site.owner, site.owner_password)
        email, new_password = f"compliance@{site.name}.example", generate_password()
        site.control.add_person(
            email, "Compliance", "compliance", new_password, site.owner, site.owner_password
        )
        reviewers[site.name] = _desk(site, email, new_password)
    for name, content in (
        ("roster.yaml", yaml.safe_dump(roster(sites), sort_keys=False)),
        ("researcher.password", password + "\n"),
        ("owners.yaml", yaml.safe_dump(owners, sort_keys=False)),
        ("compliance.yaml", yaml.safe_dump(reviewers, sort_keys=False)),
    ):
        write_private(folder / name, content.encode())


def _desk(site: TrialSite, person: str, password: str) -> dict[str, str]:
    return {"site": str(site.site.path), "person": person, "password": password}
