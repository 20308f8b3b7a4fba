"""What a notebook shows of sites, datasets and studies, at a real site."""

from __future__ import annotations

from pathlib import Path

import factories
from datasites.trial import free_port
from hospitals import Hospital


def test_sites_are_green_while_they_answer_and_red_with_the_reason_when_not(
    hospital: Hospital,
) -> None:
    sites = hospital.connect()
    assert "● answers" in sites._repr_html_()
    site = sites["st-marys"]
    site.url = f"https://127.0.0.1:{free_port()}"
    assert f"st-marys at {site.url} does not answer" in sites.problems()["st-marys"]
    page = sites._repr_html_()
    assert "✕ cannot be used now" in page
    assert "does not answer" in page


def test_a_dataset_shows_its_card(hospital: Hospital) -> None:
    page = hospital.connect()["st-marys"].dataset("chest-xray")._repr_html_()
    assert "8 x 8 pixels, uint8" in page
    assert hospital.version[:12] in page
    assert ">60<" in page  # normal images to train on


def test_a_study_says_who_is_waited_for_and_is_taken_up_from_its_file(
    hospital: Hospital, tmp_path: Path
) -> None:
    sites = hospital.connect()
    study = hospital.submit(sites, factories.DOUBLE_JOB, approve=False)
    assert "waiting less than a minute at St Mary&#x27;s" in study._repr_html_()
    hospital.decide(study, "approve", "read it")
    again = hospital.connect().saved_study(study.save(tmp_path / "study.json"))
    page = again._repr_html_()
    assert "● approved" in page
    assert "read it" in page
    assert again.wanted == study.wanted
    assert hospital.run(again).examples == 120
    assert "1 of 10" in again._repr_html_()
