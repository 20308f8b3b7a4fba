"""A new site is closed to everybody else, and comes without a password that anyone knows."""

from __future__ import annotations

import inspect
import json
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import factories
from datasites.audit_log import read_events, verify_log
from datasites.config import Site, SiteConfig, load_site
from datasites.errors import AccountError, ConfigurationError
from datasites.keys import load_site_key
from datasites.new_site import example_config, example_policy, make_site
from datasites.people import check_person
from datasites.records import Records

OWNER = "owner@st-marys.example"


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Start from the usual umask, and undo what making a site changes."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def make(path: Path, config: SiteConfig | None = None, **changes: Any) -> Site:
    plain: dict[str, Any] = {
        "policy": example_policy(),
        "owner_email": OWNER,
        "owner_name": "Olga Owner",
        "owner_password": factories.PASSWORD,
        **changes,
    }
    return make_site(path, config or example_config("st-marys"), **plain)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    before = os.umask(0o022)
    try:
        return make(tmp_path_factory.mktemp("new") / "st-marys")
    finally:
        os.umask(before)


def test_site_loads_as_it_was_configured(site: Site) -> None:
    again = load_site(site.path)
    assert again.config == example_config("st-marys")
    assert again.policy().name == "university-hospital"
    assert (site.path / "policy.yaml").read_bytes() == example_policy().read_bytes()


def test_everything_is_for_the_site_only(site: Site) -> None:
    modes = {
        str(path.relative_to(site.path)): (path.is_dir(), stat.S_IMODE(path.stat().st_mode))
        for path in [site.path, *site.path.rglob("*")]
    }
    assert {"state", "state/keys", "state/datasets", "state/keys/site_key"} <= set(modes)
    assert {mode for is_folder, mode in modes.values() if is_folder} == {0o700}
    assert {mode for is_folder, mode in modes.values() if not is_folder} == {0o600}


def test_state_is_closed_also_in_a_directory_that_was_there_before(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    made = make(tmp_path)
    assert stat.S_IMODE(made.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(made.keys.stat().st_mode) == 0o700


def test_identity_is_a_uuid4(site: Site) -> None:
    identity = json.loads((site.state / "identity.json").read_text())
    assert uuid.UUID(identity["uid"]).version == 4


def test_owner_is_known_by_the_password_that_was_given(site: Site) -> None:
    records = Records(site.database_url)
    try:
        check_person(records, OWNER, factories.PASSWORD)
        with pytest.raises(AccountError):
            check_person(records, OWNER, "changethis")
    finally:
        records.close()


def test_no_password_has_a_default() -> None:
    for name, parameter in inspect.signature(make_site).parameters.items():
        assert parameter.default is inspect.Parameter.empty, name
    texts = [
        name
        for name, field in SiteConfig.model_fields.items()
        if "password" in name and isinstance(field.default, str)
    ]
    assert texts == []


def test_no_file_holds_a_password_that_anyone_knows(site: Site) -> None:
    known = [factories.PASSWORD, "changethis", "info@openmined.org"]  # the last two are syft's
    found = [
        (path.name, word)
        for path in site.path.rglob("*")
        if path.is_file()
        for word in known
        if word.encode() in path.read_bytes()
    ]
    assert found == []


def test_root_password_of_each_site_is_its_own(site: Site, tmp_path: Path) -> None:
    other = make(tmp_path / "other", example_config("seaside"))
    passwords = [
        json.loads((made.state / "identity.json").read_text())["root_password"]
        for made in (site, other)
    ]
    assert len(set(passwords)) == 2
    assert min(map(len, passwords)) >= 40


def test_birth_of_a_site_is_in_its_log(site: Site) -> None:
    key = load_site_key(site.keys)
    assert verify_log(site.audit, key.public_hex).intact
    events = [(e["event"], e["subject"], e["detail"]) for e in read_events(site.audit)][:3]
    assert events == [
        ("site created", "st-marys", {"public_key": key.public_hex}),
        ("account created", OWNER, {"account_role": "owner"}),
        ("policy changed", "university-hospital v1", {}),
    ]


def test_own_paths_are_made(tmp_path: Path) -> None:
    config = example_config("st-marys").model_copy(
        update={"state": Path("var/state"), "policy": Path("etc/policy.yaml")}
    )
    made = make(tmp_path / "site", config)
    assert made.state == tmp_path / "site/var/state"
    assert made.policy().name == "university-hospital"


def refused(path: Path, kind: type[Exception], **changes: Any) -> str:
    """The refusal, which leaves nothing behind."""
    before = sorted(path.iterdir()) if path.is_dir() else None
    with pytest.raises(kind) as caught:
        make(path, **changes)
    assert (sorted(path.iterdir()) if path.is_dir() else None) == before
    return str(caught.value)


def test_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert refused(tmp_path, ConfigurationError) == (
        f"{tmp_path} is not empty; a site needs a directory of its own"
    )


def test_file_in_the_place_of_the_site_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "site"
    path.write_text("precious")
    assert str(path) in refused(path, ConfigurationError)
    assert path.read_text() == "precious"


def test_site_is_not_made_over_another(site: Site) -> None:
    before = (site.state / "identity.json").read_bytes()
    assert "is not empty" in refused(site.path, ConfigurationError)
    assert (site.state / "identity.json").read_bytes() == before


@pytest.mark.parametrize(
    ("policy", "words"),
    [(None, "cannot be read; nothing runs without one"), ({"name": "x"}, "is missing")],
)
def test_site_without_a_valid_policy_is_not_made(
    tmp_path: Path, policy: dict[str, Any] | None, words: str
) -> None:
    path = tmp_path / "policy.yaml"
    if policy is not None:
        path.write_text(yaml.safe_dump(policy))
    assert words in refused(tmp_path / "site", ConfigurationError, policy=path)


@pytest.mark.parametrize("length", [0, 11])
def test_site_with_a_short_password_is_not_made(tmp_path: Path, length: int) -> None:
    assert refused(tmp_path / "site", AccountError, owner_password="x" * length) == (
        f"the password has {length} characters; at least 12 are needed"
    )


def test_site_with_a_password_of_the_minimum_is_made(tmp_path: Path) -> None:
    make(tmp_path / "site", owner_password="x" * 12)
