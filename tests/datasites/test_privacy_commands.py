"""`sitegate privacy`: what a person sees of the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import factories
from datasites.cli import app
from datasites.new_site import example_config, make_site
from datasites.records import ChargeRow, Records
from policies.privacy.accounting import epsilon
from policies.privacy.mechanisms import Mechanism, Spent

NOISE = {"mode": "update_noise", "maximum_epsilon": 8.0, "delta": 1e-5}
ONE = Mechanism(noise_multiplier=4.0)


def make(folder: Path, privacy: dict[str, Any], charges: list[tuple[int, str]]) -> str:
    """A site that was never started, with charges of (request, dataset)."""
    policy = folder / "policy.yaml"
    document = factories.policy(privacy=privacy).model_dump(mode="json")
    policy.write_text(yaml.safe_dump(document))
    site = make_site(
        folder / "site", example_config("st-marys"), policy, "o@x.example", "O", "a long password"
    )
    records = Records(site.database_url)
    with records.write() as session:
        session.add_all(
            ChargeRow(
                run=f"R-{request}/{number}/1", request=request, dataset=dataset,
                mechanism=ONE.model_dump_json(), charged_at=f"2026-03-0{number + 1}T08:00:00.0Z",
            )
            for number, (request, dataset) in enumerate(charges)
        )  # fmt: skip
    records.close()
    return str(folder / "site")


def typed(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["privacy", *arguments])
    return result.exit_code, result.output


def test_what_was_spent_is_shown_by_dataset_and_by_request(tmp_path: Path) -> None:
    site = make(tmp_path, NOISE, [(1, "chest-xray"), (1, "chest-xray"), (2, "chest-xray")])
    code, told = typed("show", "--site", site)
    three = epsilon(Spent({ONE: 3}), 1e-5)
    assert code == 0
    assert "Epsilon at most 8 with delta 1e-05 per patient" in " ".join(told.split())
    assert f"{three:.3g}" in told
    assert f"{8 - three:.3g}" in told
    code, told = typed("show", "--site", site, "--json")
    (dataset,) = json.loads(told)["datasets"]
    assert dataset["spent"] == pytest.approx(three)
    assert dataset["spent_ever"]["pld"] < dataset["spent_ever"]["rdp"]
    assert [(r["request"], r["runs"]) for r in dataset["requests"]] == [(1, 2), (2, 1)]


def test_no_protection_is_said_in_so_many_words(tmp_path: Path) -> None:
    code, told = typed("show", "--site", make(tmp_path, {"mode": "none"}, []))
    assert code == 0
    assert "No differential privacy: updates leave as they were computed." in told
    assert "no account" in told


@pytest.mark.parametrize("charges", [[], [(1, "chest-xray"), (2, "chest-xray")]])
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_spending_is_drawn(tmp_path: Path, charges: list[tuple[int, str]], kind: str) -> None:
    file = tmp_path / f"spent.{kind}"
    assert typed("show", "--site", make(tmp_path, NOISE, charges), "--plot", str(file))[0] == 0
    if kind == "png":
        with Image.open(file) as picture:
            assert picture.size == (1050, 510)
    else:
        assert "<svg" in file.read_text()


def test_a_file_that_is_no_picture_is_refused_in_a_sentence(tmp_path: Path) -> None:
    code, told = typed("show", "--site", make(tmp_path, NOISE, []), "--plot", "spent.txt")
    assert code == 2
    assert "give a .png, .svg or .pdf file" in told


def test_a_ledger_that_agrees_with_the_log_holds(tmp_path: Path) -> None:
    code, told = typed("verify", "--site", make(tmp_path, NOISE, [(1, "chest-xray")]))
    assert code == 0
    assert "R-1/0/1: charged, and not started as far as the log tells" in told
    assert "The ledger holds." in told
