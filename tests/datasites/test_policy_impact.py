"""What a new policy would do to a site's approvals, requests and dataset versions."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sqlalchemy import delete
from typer.testing import CliRunner

import factories
from datasites.approvals import Approval
from datasites.catalogue import write_version
from datasites.cli import app
from datasites.lineage import retire
from datasites.open_site import OpenSite
from datasites.policy_impact import Impact, policy_impact
from datasites.records import ApprovalRow, RequestRow, utc_now
from datasites.requests import request_terms
from open_sites import RITA, RecordedSyft, open_site, submit
from policies.document import Policy

_seeds = itertools.count(1)
NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSite]:
    made = open_site(tmp_path_factory.mktemp("opened"), publishing={"text_search": "off"})
    yield made
    made.close()


@pytest.fixture
def site(opened: OpenSite) -> Iterator[OpenSite]:
    """A site that nobody asked for anything yet."""
    yield opened
    with opened.records.write() as session:
        for table in (RequestRow, ApprovalRow):
            session.execute(delete(table))


@pytest.fixture(scope="module")
def with_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSite]:
    """A site that publishes files too, whose patients it knows."""
    made = open_site(tmp_path_factory.mktemp("files"), publishing={"text_search": "off"})
    yield made
    made.close()


def new_policy(**changes: Any) -> Policy:
    return factories.policy(**{"version": 2, "publishing": {"text_search": "off"}, **changes})


def impact(site: OpenSite, now: dt.datetime = NOW, **changes: Any) -> Impact:
    return policy_impact(site.site, new_policy(**changes), now)


def asked(site: OpenSite, **terms: Any) -> RequestRow:
    return submit(site, RecordedSyft(), account=RITA, **terms)


def approved(site: OpenSite, *, days: int = 30, revoked: str = "", **terms: Any) -> int:
    """A request with an approval that ends so many days after NOW."""
    row = asked(site, **terms)
    document = Approval(
        site="st-marys", request=row.id, researcher=RITA,
        text_sha256=row.text_sha256, terms=request_terms(row), policy_sha256=site.policy.sha256,
        policy_adoption=site.adoption, consents=(), approved_at=NOW,
        expires_at=NOW + dt.timedelta(days=days),
    ).model_dump_json()  # fmt: skip
    with site.records.write() as session:
        session.add(ApprovalRow(request=row.id, document=document, signature="", revoked=revoked))
        session.get_one(RequestRow, row.id).state = "approved"
    return row.id


def test_approvals_and_requests_are_looked_at_under_the_new_policy(site: OpenSite) -> None:
    kept, lost = approved(site, runs=12), approved(site, runs=13)
    waiting = asked(site, runs=50).id
    found = impact(site, runs={"maximum": 12})
    assert not found.same
    assert [(r.request, r.state, [f.rule for f in r.refused]) for r in found.requests] == [
        (kept, "approved", []),
        (lost, "approved", ["runs.maximum"]),
        (waiting, "pending", ["runs.maximum"]),
    ]
    (finding,) = found.requests[1].refused
    assert (finding.seen, finding.allowed) == ("13 runs asked for", "at most 12")


def test_only_what_stands_or_waits_is_looked_at(site: OpenSite) -> None:
    standing = approved(site, days=1)
    approved(site, days=0)  # ends now
    approved(site, revoked=utc_now())
    for state in ("denied", "revoked", "withdrawn", "expired"):
        row = asked(site)
        with site.records.write() as session:
            session.get_one(RequestRow, row.id).state = state
    commented = asked(site)
    with site.records.write() as session:
        session.get_one(RequestRow, commented.id).state = "changes requested"
    assert [row.request for row in impact(site).requests] == [standing, commented.id]


def test_what_the_policy_in_force_refuses_too_is_marked(site: OpenSite) -> None:
    asked(site, runs=101)
    asked(site, runs=100)
    found = impact(site, runs={"maximum": 12})
    assert [row.refused_already for row in found.requests] == [True, False]


def test_who_would_have_to_agree_is_told(site: OpenSite) -> None:
    approved(site)
    asked(site, runs=21)
    tiers = [{"name": "large", "when": {"runs_above": 20}, "approvers": 2}]
    found = impact(site, review={"tiers": tiers})
    assert [row.needs for row in found.requests] == [
        "1 person (owner)", "2 people (owner); because of: large",
    ]  # fmt: skip


def test_institution_on_record_counts(site: OpenSite) -> None:
    asked(site)
    for name, refused in (("Example University", []), ("Other", ["requester.institution"])):
        (row,) = impact(site, requesters={"institutions": [name]}).requests
        assert [finding.rule for finding in row.refused] == refused


def test_same_policy_lets_approvals_go_on(site: OpenSite) -> None:
    approved(site)
    assert impact(site, version=1).same


def test_dataset_that_fits_has_no_problem(site: OpenSite) -> None:
    (found,) = impact(site, examples={"minimum": 120, "minimum_per_class": 60}).datasets
    assert (found.name, found.problems) == ("chest-xray", ())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"examples": {"minimum": 121}},
            "examples.minimum: 120 training images; allowed: at least 121"),
        ({"examples": {"minimum": 10, "minimum_per_class": 61}},
            "examples.per_class: 2 of 2 classes with fewer training images; allowed: at least 61 "
            "training images of each class"),
        ({"examples": {"minimum": 10, "minimum_classes": 3}},
            "examples.classes: 2 classes; allowed: at least 3"),
        ({"datasets": ["head-mr"]}, "dataset.allowed: dataset `chest-xray`; allowed: head-mr"),
        ({"dominance": {"unknown_patients": "refuse"}},
            "dominance.share: nobody knows which image is whose; allowed: at most 10% from one "
            "patient"),
        ({"publishing": {"text_search": "off", "options": ["113100"]}},
            "publishing.options: certificate lists no method; allowed: 113100"),
        ({"publishing": {"text_search": "off", "minimum_per_class": 91}},
            "could not be published again: class `normal` has 90 images; policy test v2 wants at "
            "least 91 of each (publishing.minimum_per_class)"),
    ],
)  # fmt: skip
def test_dataset_that_would_not_fit_is_told_why(
    site: OpenSite, changes: dict[str, Any], problem: str
) -> None:
    (found,) = impact(site, **changes).datasets
    assert problem in found.problems


def version_with_patients(site: OpenSite, **about: Any) -> str:
    splits = factories.splits(seed=next(_seeds))
    patients = {name: np.arange(len(y), dtype=np.int32) // 2 for name, (_, y) in splits.items()}
    version, _ = write_version(
        site.site.datasets, splits, name="chest-xray", classes=("normal", "pneumonia"),
        source="trial", licence="none", description="", minimum_count=5, patients=patients,
        **about,
    )  # fmt: skip
    return version


@pytest.mark.parametrize(
    ("about", "publishing", "problem"),
    [
        ({}, {"minimum_patients": 61}, "could not be published again: the dataset has 60 patients; "
            "policy test v2 wants at least 61 (publishing.minimum_patients)"),
        ({"recognisable": True}, {},
            "publishing.recognisable_heads: may show faces; allowed: no such images"),
        ({}, {"text_search": "required"},
            "publishing.text_search: pixels were not searched for text; allowed: searched ones"),
    ],
)  # fmt: skip
def test_version_made_of_files_is_held_to_what_publishing_needs(
    with_files: OpenSite, about: dict[str, Any], publishing: dict[str, Any], problem: str
) -> None:
    version = version_with_patients(with_files, **about)
    found = impact(with_files, publishing={"text_search": "off", **publishing})
    assert next(d.problems for d in found.datasets if d.version == version) == (problem,)


def test_patient_with_too_large_a_share_is_told(with_files: OpenSite) -> None:
    version = version_with_patients(with_files)
    found = impact(with_files, dominance={"maximum_share": 0.016, "unknown_patients": "read"})
    assert next(d.problems for d in found.datasets if d.version == version) == (
        "dominance.share: 1.666667% of the training images come from one patient; "
        "allowed: at most 1.6% from one patient",
    )


def test_retired_versions_are_not_looked_at(with_files: OpenSite) -> None:
    version = version_with_patients(with_files)
    retire(with_files.site.lineages, version, "a test")
    assert version not in {row.version for row in impact(with_files).datasets}


def command(site: OpenSite, tmp_path: Path, *options: str, **changes: Any) -> str:
    file = tmp_path / "new.yaml"
    plain = new_policy(**changes).model_dump(mode="json", exclude_none=True)
    file.write_text(yaml.safe_dump(plain))
    done = CliRunner().invoke(
        app, ["policy", "impact", str(file), "--site", str(site.site.path), *options]
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def test_impact_is_shown_while_the_site_runs(
    site: OpenSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasites.command_line.out._width", 300)
    kept = approved(site, days=9999, runs=12)
    lost = approved(site, days=9999, runs=13)
    asked(site, runs=50)
    told = command(site, tmp_path, runs={"maximum": 12})
    rows = [" ".join(line.split()) for line in told.splitlines()]
    assert rows[0].startswith("From test v1 (sha256 ")
    assert (
        f"R-{kept} approved rita@uni.example Double the weights to be confirmed by 1 person (owner)"
    ) in rows
    assert (
        f"R-{lost} approved rita@uni.example Double the weights refused: runs.maximum: 13 runs "
        "asked for, allowed: at most 12"
    ) in rows
    assert rows[-1] == (
        "The new policy stops 2 standing approvals; 1 would be refused, and the others run again "
        "when they are confirmed under it. Of 1 undecided request, 1 would be refused that could "
        "be approved now. Of 1 dataset version, 0 would not fit."
    )


def test_impact_of_no_change_says_that_approvals_go_on(site: OpenSite, tmp_path: Path) -> None:
    approved(site, days=9999)
    told = " ".join(command(site, tmp_path, version=1).split())
    assert "Both policies say the same, so that 1 standing approval would go on." in told


def test_impact_is_json_for_machines(site: OpenSite, tmp_path: Path) -> None:
    number = approved(site, days=9999, runs=13)
    plain = json.loads(command(site, tmp_path, "--json", runs={"maximum": 12}))
    assert plain["approvals_stop_until_confirmed"] is True
    assert plain["old"]["title"] == "test v1"
    (row,) = plain["requests"]
    assert (row["request"], row["refused"][0]["rule"]) == (number, "runs.maximum")
    assert plain["datasets"][0]["problems"] == []
