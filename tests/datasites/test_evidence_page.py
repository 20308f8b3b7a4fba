"""Page, crate and trust matrix say what the record says, and claim only what is shown."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datasites.audit_log import Event
from datasites.evidence.documents import documents_sha256, read_documents, sha256
from datasites.evidence.export import export_evidence
from datasites.evidence.runs import RunEnd, RunRecord
from datasites.evidence.trust import Column, Party, trust_matrix
from evidence_sites import CARLA, OLIVIA, RITA, EvidenceSite

ROOT = Path(__file__).resolve().parents[2]
Files = dict[str, str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    """R-1 was approved; twelve updates left, one was refused, one run failed."""
    site = EvidenceSite(tmp_path_factory.mktemp("site"), runs={"maximum": 100})
    number = site.submit(runs=20)
    site.noise(4)
    site.rehearse(number)
    site.approve(number)
    for round_number in range(12):
        site.release(number, round_number)
    site.append(Event.UPDATE_REFUSED, site.start(number, 12), rules=["examples.minimum"])
    site.append(Event.RUN_FAILED, site.start(number, 13), kind="TimeLimit")
    yield export_evidence(site.open, number, CARLA)
    site.close()


@pytest.fixture(scope="module")
def denied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    """A request that nobody decided about, and nothing ran."""
    site = EvidenceSite(tmp_path_factory.mktemp("site"))
    yield export_evidence(site.open, site.submit(), CARLA)
    site.close()


class Read(html.parser.HTMLParser):
    """Tags, attributes and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(" ".join(data.split()))

    @property
    def ids(self) -> list[str]:
        return [str(attrs["id"]) for _, attrs in self.tags if "id" in attrs]


def test_the_page_says_every_statement_of_the_record(files: Files) -> None:
    words = " ".join(Read(files["evidence.html"]).words)
    record = json.loads(files["evidence.json"])
    said = [s["text"] for section in record["sections"] for s in section["statements"]]
    assert len(said) > 25
    assert [text for text in said if " ".join(text.split()) not in words] == []


def test_every_line_that_the_page_names_is_in_its_table(files: Files) -> None:
    page = Read(files["evidence.html"])
    targets = [str(a["href"])[1:] for tag, a in page.tags if tag == "a"]
    assert len(targets) > 40
    assert [target for target in targets if target not in page.ids] == []
    assert len(set(page.ids)) == len(page.ids)


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(files: Files) -> None:
    page = Read(files["evidence.html"])
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "form", "object", "embed", "base"}
    assert not re.search(r"url\(|@import|javascript:|src=", files["evidence.html"])
    policy = next(a for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_page_can_be_read_aloud(files: Files) -> None:
    page = Read(files["evidence.html"])
    assert ("html", {"lang": "en"}) in page.tags
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    assert all(a.get("scope") in ("col", "row") for tag, a in page.tags if tag == "th")


def test_a_statement_with_many_lines_folds_them(files: Files) -> None:
    assert "<summary>12 lines</summary>" in files["evidence.html"]


def test_hidden_lines_are_said_to_be_hidden(files: Files) -> None:
    assert re.search(r"Lines \d+ to \d+ are hidden\.", files["evidence.html"])


def graph(files: Files) -> dict[str, Any]:
    plain = json.loads(files["ro-crate-metadata.json"])
    return {entity["@id"]: entity for entity in plain["@graph"]}


def references(value: Any) -> Iterator[str]:
    """Every `{"@id": …}` inside of a value."""
    if isinstance(value, dict):
        if set(value) == {"@id"}:
            yield value["@id"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_crate_is_an_ro_crate(files: Files) -> None:
    plain = json.loads(files["ro-crate-metadata.json"])
    entities = graph(files)
    assert plain["@context"] == "https://w3id.org/ro/crate/1.2/context"
    descriptor, root = entities["ro-crate-metadata.json"], entities["./"]
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.2"}
    assert descriptor["about"] == {"@id": "./"}
    assert root["@type"] == "Dataset"
    assert all(root[name] for name in ("name", "description", "datePublished", "license"))
    assert len(plain["@graph"]) == len(entities)


def test_the_crate_does_not_claim_a_profile_that_was_not_checked(files: Files) -> None:
    assert "conformsTo" not in graph(files)["./"]


def test_everything_that_the_crate_refers_to_is_in_it(files: Files) -> None:
    entities = graph(files)
    outside = {
        target
        for entity in entities.values()
        for value in entity.values()
        for target in references(value)
        if target not in entities
    }
    assert outside == {
        "https://w3id.org/ro/crate/1.2",
        "https://w3id.org/shp#SignOff",
        "https://w3id.org/shp#DisclosureCheck",
    }


def test_the_crate_names_every_file_with_its_hash(files: Files) -> None:
    described = {i: e for i, e in graph(files).items() if e["@type"] == "File"}
    assert set(described) == set(files) - {"manifest.json", "ro-crate-metadata.json"}
    assert all(e["sha256"] == sha256(files[name]) for name, e in described.items())
    assert {part["@id"] for part in graph(files)["./"]["hasPart"]} == set(described)


def test_the_five_safes_are_the_spine_of_the_crate(files: Files) -> None:
    entities = graph(files)
    mentioned = [m["@id"] for m in entities["./"]["mentions"]]
    assert mentioned[:6] == [
        "#safe-people", "#safe-projects", "#safe-data", "#safe-settings", "#safe-outputs",
        "#this-record",
    ]  # fmt: skip
    record = json.loads(files["evidence.json"])
    for section in record["sections"]:
        told = entities[f"#{section['name'].lower().replace(' ', '-')}"]["text"]
        told = [told] if isinstance(told, str) else told
        for statement, text in zip(section["statements"], told, strict=True):
            assert text.startswith(statement["text"])


def test_runs_decisions_and_checks_are_actions_with_their_outcome(files: Files) -> None:
    entities = graph(files)

    def status(entity: str) -> str:
        return str(entities[entity]["actionStatus"]).removeprefix("http://schema.org/")

    assert status("#request") == "ActiveActionStatus"
    assert status("#run-R-1-0-1") == status("#disclosure-R-1-0-1") == "CompletedActionStatus"
    assert status("#run-R-1-12-1") == status("#disclosure-R-1-12-1") == "FailedActionStatus"
    assert status("#run-R-1-13-1") == "FailedActionStatus"
    assert "#disclosure-R-1-13-1" not in entities
    (signoff,) = (e for i, e in entities.items() if i.startswith("#signoff"))
    assert signoff["@type"] == "AssessAction"
    assert entities[signoff["agent"]["@id"]]["name"] == OLIVIA.email
    assert entities[entities["#request"]["agent"]["@id"]]["name"] == RITA
    assert len(entities["#request"]["result"]) == 12


def test_a_request_that_waits_is_a_potential_action(denied: Files) -> None:
    assert graph(denied)["#request"]["actionStatus"] == "http://schema.org/PotentialActionStatus"


def test_the_documents_digest_leaves_out_what_is_derived(files: Files) -> None:
    changed = {**files, "evidence.html": "", "evidence.json": "", "manifest.json": ""}
    assert documents_sha256(changed) == documents_sha256(files)
    assert documents_sha256({**files, "job.py": ""}) != documents_sha256(files)


def runs(*ends: RunEnd, sandbox: str = "bubblewrap") -> list[RunRecord]:
    return [RunRecord(f"R-1/{k}/1", end, sandbox=sandbox) for k, end in enumerate(ends)]


def sights(matrix: list[Party], name: str) -> dict[str, str]:
    (party,) = (p for p in matrix if p.name.startswith(name))
    columns = [column.value for column in Column]
    return dict(zip(columns, [cell.sight.value for cell in party.cells], strict=True))


@pytest.mark.parametrize(
    ("came", "party", "expected"),
    # images, labels, patient identifiers, job text, updates, metrics and counts, audit log
    [
        # nothing ran
        ([], "Researcher", "no partly no yes no no no"),
        (runs(RunEnd.NOT_STARTED), "Researcher", "no partly no yes no no no"),
        # code ran in the sandbox, nothing left
        (runs(RunEnd.FAILED, RunEnd.REFUSED), "Researcher", "no partly no yes no no no"),
        # updates left
        (runs(RunEnd.RELEASED), "Researcher", "partly partly no yes yes yes no"),
        (runs(RunEnd.RELEASED), "Coordinator", "partly partly no yes yes yes no"),
        (runs(RunEnd.RELEASED), "Other hospitals", "partly partly no partly partly partly partly"),
        ([], "Other hospitals", "no no no partly no no partly"),
        # without a sandbox, approved code could do everything
        (
            runs(RunEnd.FAILED, sandbox="process"),
            "Researcher",
            "yes yes yes yes no no no",
        ),
        # the hospital's own people, and those who have the machine or the wire
        (runs(RunEnd.RELEASED), "This hospital's", "no partly no yes no partly yes"),
        (runs(RunEnd.RELEASED), "Compliance", "no partly no yes no partly yes"),
        (runs(RunEnd.RELEASED), "Host administrator", "yes yes partly yes yes yes yes"),
        (runs(RunEnd.RELEASED), "Network observer", "no no no no partly no no"),
        ([], "Network observer", "no no no no no no no"),
    ],
)
def test_who_could_see_what(files: Files, came: list[RunRecord], party: str, expected: str) -> None:
    matrix = trust_matrix(read_documents(files), came)
    assert " ".join(sights(matrix, party).values()) == expected


@pytest.mark.parametrize("came", [[], runs(RunEnd.RELEASED), runs(RunEnd.FAILED)])
def test_tests_that_the_matrix_cites_are_there(files: Files, came: list[RunRecord]) -> None:
    for party in trust_matrix(read_documents(files), came):
        assert len(party.cells) == len(Column)
        for cell in party.cells:
            assert cell.reason
            assert all((ROOT / test).is_file() for test in cell.shown_by)


def test_a_dataset_whose_headers_nobody_de_identified_is_not_called_safe(files: Files) -> None:
    without = {k: v for k, v in files.items() if k != "deidentification.json"}
    matrix = trust_matrix(read_documents(without), [])
    assert sights(matrix, "Researcher")["patient identifiers"] == "partly"
