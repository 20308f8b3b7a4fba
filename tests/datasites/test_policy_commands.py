"""`sitegate policy`: what people read, what machines read, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

import factories
from datasites.audit_log import read_events
from datasites.cli import app
from datasites.config import Site
from datasites.new_site import example_config, make_site
from datasites.records import PolicyRow, Records

POLICIES = Path(__file__).parents[2] / "policies"
UNIVERSITY = str(POLICIES / "university-hospital.yaml")
COMMUNITY = str(POLICIES / "community-hospital.yaml")


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables and lines are not wrapped."""
    monkeypatch.setattr("datasites.command_line.out._width", 300)
    monkeypatch.setattr("datasites.command_line.err._width", 300)


def policy(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["policy", *arguments])


def write(path: Path, **changes: Any) -> str:
    plain = factories.policy().model_dump(mode="json", exclude_none=True)
    path.write_text(yaml.safe_dump({**plain, **changes}))
    return str(path)


def case_file(folder: Path, *cases: dict[str, Any], **policy_changes: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    write(folder.parent / "policy.yaml", **policy_changes)
    plain = {
        "policy": "../policy.yaml",
        "request": {
            "text": factories.DOUBLE_JOB,
            "terms": factories.terms().model_dump(mode="json", exclude_none=True),
            "dataset": {"examples": 120, "classes": [60, 60], "largest_share": 0.02},
            "requester": {"account": "rita@uni.example"},
        },
        "cases": list(cases),
    }
    (folder / "cases.yaml").write_text(yaml.safe_dump(plain))
    return str(folder)


# ------------------------------------------------------------------------------------- check


def test_valid_policy_is_named_with_its_digest(tmp_path: Path) -> None:
    done = policy("check", write(tmp_path / "p.yaml"))
    assert done.exit_code == 0
    assert done.stdout == f"test v1 is valid · sha256 {factories.policy().sha256}\n"
    plain = json.loads(policy("check", str(tmp_path / "p.yaml"), "--json").stdout)
    digest = factories.policy().sha256
    assert plain == {"valid": True, "name": "test", "version": 1, "sha256": digest}


def test_every_wrong_field_has_its_line_and_the_exit_code_is_2(tmp_path: Path, wide: None) -> None:
    file = write(tmp_path / "p.yaml", runs={"maximun": 0}, version=0)
    done = policy("check", file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"{file} is not valid:",
        "  `version`: Input should be greater than or equal to 1 (seen: 0)",
        "  `runs.maximun` is not a field; did you mean `maximum`?",
    ]
    plain = json.loads(policy("check", file, "--json").stdout)
    assert plain["valid"] is False
    assert len(plain["problems"]) == 2


@pytest.mark.parametrize("command", ["check", "explain"])
def test_missing_file_is_wrong_usage(command: str, tmp_path: Path, wide: None) -> None:
    done = policy(command, str(tmp_path / "none.yaml"))
    assert done.exit_code == 2
    assert "cannot be read; nothing runs without one" in done.stderr


# ----------------------------------------------------------------------------------- explain


def test_policy_is_explained_under_headings(wide: None) -> None:
    done = policy("explain", COMMUNITY)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert "Who decides" in lines
    assert "  One approval pays for at most 12 runs, and for at most 12 within 24 hours; " in (
        "\n".join(lines)
    )
    plain = json.loads(policy("explain", COMMUNITY, "--json").stdout)
    assert [section["heading"] for section in plain][:2] == [
        "What this policy is", "Who may ask, and for what",
    ]  # fmt: skip


# -------------------------------------------------------------------------------------- diff


def test_difference_is_told_by_what_it_does(wide: None, tmp_path: Path) -> None:
    old = write(tmp_path / "old.yaml")
    new = write(
        tmp_path / "new.yaml", version=2, runs={"maximum": 12}, datasets=["chest-xray", "skin"]
    )
    done = policy("diff", old, new)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "From test v1 to test v2:",
        "",
        "Becomes allowed",
        "  datasets that may be asked for: now also skin  (datasets)",
        "",
        "Becomes refused",
        "  runs of one approval: 12 instead of 100  (runs.maximum)",
        "",
        "Changes otherwise",
        "  the policy's version: 2 instead of 1  (version)",
    ]
    plain = json.loads(policy("diff", old, new, "--json").stdout)
    assert plain[1] == {
        "field": "runs.maximum",
        "effect": "becomes refused",
        "words": "runs of one approval: 12 instead of 100",
    }


def test_equal_policies_say_so() -> None:
    done = policy("diff", UNIVERSITY, UNIVERSITY)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == "Both say the same."
    assert json.loads(policy("diff", UNIVERSITY, UNIVERSITY, "--json").stdout) == []


# -------------------------------------------------------------------------------------- test

KEPT = {"name": "a hundred runs", "terms": {"runs": 100}, "rule": "runs.maximum"}
WRONG = {"name": "one run more", "terms": {"runs": 101}, "rule": "runs.maximum"}


def test_cases_as_expected_end_with_0(tmp_path: Path, wide: None) -> None:
    done = policy("test", case_file(tmp_path / "cases", KEPT))
    assert done.exit_code == 0
    assert "1 of 1 case as expected" in done.stdout
    assert "No case is about requester.account, purpose.allowed, dataset.allowed" in done.stdout


def test_case_that_differs_is_shown_and_ends_with_1(tmp_path: Path, wide: None) -> None:
    done = policy("test", case_file(tmp_path / "cases", KEPT, WRONG))
    assert done.exit_code == 1
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "ok a hundred runs approvable: runs.maximum as expected" in rows
    assert "DIFFERS one run more approvable: runs.maximum refused: runs.maximum" in rows
    assert "1 of 2 cases as expected" in rows


def test_cases_are_run_for_machines_too(tmp_path: Path) -> None:
    done = policy("test", case_file(tmp_path / "cases", KEPT, WRONG), "--json")
    assert done.exit_code == 1
    (plain,) = json.loads(done.stdout)
    assert plain["policy"] == "test v1"
    assert [outcome["as_expected"] for outcome in plain["outcomes"]] == [True, False]
    assert "expiry.maximum" in plain["untested"]


def test_cases_can_be_run_for_another_policy(tmp_path: Path) -> None:
    folder = case_file(tmp_path / "cases", KEPT)
    new = write(tmp_path / "new.yaml", runs={"maximum": 99})
    assert policy("test", folder, "--policy", new).exit_code == 1
    assert policy("test", f"{folder}/cases.yaml").exit_code == 0


def test_without_a_directory_the_cases_of_the_examples_are_run() -> None:
    done = policy("test", "--json")
    assert done.exit_code == 0
    assert [report["policy"] for report in json.loads(done.stdout)] == [
        "childrens-hospital v1", "community-hospital v1", "university-hospital v1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cases", "sentence"),
    [
        ([{"name": "x", "terms": {"rnus": 1}}],
            "case `x`: terms: `rnus` is not a field; did you mean `runs`?"),
        ([{"name": "x", "expect": "refused"}], "needs the `rule` that decides"),
    ],
)  # fmt: skip
def test_cases_that_do_not_fit_are_wrong_usage(
    tmp_path: Path, wide: None, cases: list[dict[str, Any]], sentence: str
) -> None:
    done = policy("test", case_file(tmp_path / "cases", *cases))
    assert done.exit_code == 2
    assert sentence in done.stderr


def test_directory_without_cases_is_wrong_usage(tmp_path: Path, wide: None) -> None:
    done = policy("test", str(tmp_path))
    assert done.exit_code == 2
    assert done.stderr == f"{tmp_path} has no case files; they end in .yaml\n"


# ------------------------------------------------------------------------------------- adopt

OWNER = "olivia@st-marys.example"


@pytest.fixture
def stopped(tmp_path: Path) -> Site:
    """A site that does not run, under the policy `test v1`."""
    first = Path(write(tmp_path / "first.yaml"))
    config = example_config("st-marys")
    return make_site(tmp_path / "site", config, first, OWNER, OWNER, factories.PASSWORD)


def adopt(site: Site, file: str, password: str = factories.PASSWORD) -> Result:
    arguments = ["policy", "adopt", file, "--site", str(site.path), "--as", OWNER, "--yes"]
    environment = {"SITEGATE_PASSWORD": password}
    return CliRunner(env=environment).invoke(app, [*arguments, "--reason", "fewer"])


def test_a_stopped_site_shows_what_changes_before_it_adopts(
    tmp_path: Path, stopped: Site, wide: None
) -> None:
    runs = {"maximum": 1, "per_day": 1}
    done = adopt(stopped, write(tmp_path / "new.yaml", version=2, runs=runs))
    assert done.exit_code == 0, done.output
    first, *changes, adopted, _ = done.stdout.splitlines()
    assert first == f"In force: test v1 (sha256 {factories.policy().sha256[:12]}…)"
    assert any("runs" in change for change in changes), changes
    assert adopted.startswith("test v2 is in force.")


def test_a_policy_of_old_that_cannot_be_read_can_be_replaced(
    tmp_path: Path, stopped: Site, wide: None
) -> None:
    records = Records(stopped.database_url)
    with records.write() as session:
        session.get_one(PolicyRow, 1).text = "runs: as many as they like"
    records.close()
    done = adopt(stopped, write(tmp_path / "new.yaml", version=2))
    assert done.stdout.splitlines()[0] == (
        "What is in force cannot be read any more, so what changes cannot be shown."
    )
    assert done.exit_code == 0


def test_a_wrong_password_is_logged_with_the_role_of_the_person(
    tmp_path: Path, stopped: Site
) -> None:
    done = adopt(stopped, write(tmp_path / "new.yaml", version=2), "wrong")
    assert done.exit_code == 1
    *_, event = read_events(stopped.audit)
    assert (event["event"], event["actor"], event["role"]) == ("login refused", OWNER, "owner")
