"""Every change of a folder is found and named, whether somebody else made it or the site itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasites.audit_log import Event
from datasites.errors import ConfigurationError
from datasites.evidence.documents import MANIFEST, read_documents
from datasites.evidence.export import export_evidence
from datasites.evidence.manifest import manifest_file, sign_manifest
from datasites.evidence.verification import verify_evidence
from datasites.keys import SiteKey
from evidence_sites import CARLA, OLIVIA, SAM, EvidenceSite, write_folder
from policies.strict import canonical_json

OTHER = SiteKey(b"o" * 32)
TWO = {"approvers": 2, "four_eyes": True, "rehearsal": {"images": 2, "time_s": 3}}
Files = dict[str, str]


class Exported:
    """One exported folder, and the site that made it."""

    def __init__(self, site: EvidenceSite, files: Files) -> None:
        self.key, self.files = site.open.key, files

    def problems(self, folder: Path, **changes: str | None) -> dict[str, tuple[str, ...]]:
        """What is found in a folder with some files changed, added or (None) taken out."""
        files = {k: v for k, v in {**self.files, **changes}.items() if v is not None}
        return problems(write_folder(folder, files), self.key.public_hex)

    def resigned(self, folder: Path, key: SiteKey, **changes: str | None) -> Any:
        """The same, with a new manifest that a key signed."""
        files = {k: v for k, v in {**self.files, **changes}.items() if v is not None}
        manifest = sign_manifest(key, "st-marys", 1, "2026-11-25T00:00:00Z", files)
        files[MANIFEST] = manifest_file(manifest)
        return problems(write_folder(folder, files), self.key.public_hex)


def problems(folder: Path, public_hex: str) -> dict[str, tuple[str, ...]]:
    return {c.name: c.problems for c in verify_evidence(folder, public_hex) if c.problems}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """Two people agreed, the policy changed and was confirmed; updates left and were refused."""
    site = EvidenceSite(tmp_path_factory.mktemp("site"), review=TWO)
    number = site.submit()
    site.noise(5)
    site.rehearse(number)
    site.approve(number, OLIVIA)
    site.approve(number, SAM)
    site.release(number, 0)
    site.adopt(counts={"minimum": 6}, review=TWO)
    site.approve(number, OLIVIA)
    site.approve(number, SAM)
    site.release(number, 1)
    site.append(Event.UPDATE_REFUSED, site.start(number, 2), rules=["examples.minimum"])
    yield Exported(site, export_evidence(site.open, number, CARLA))
    site.close()


def test_a_folder_that_was_not_touched_holds(exported: Exported, tmp_path: Path) -> None:
    assert exported.problems(tmp_path / "ev") == {}


FILES = (
    "approval.json", "card.json", "checkpoint.json", "decisions.json", "deidentification.json",
    "evidence.html", "evidence.json", "job.py", "log-excerpt.jsonl", "policy.json", "policy.yaml",
    "rehearsal.json", "ro-crate-metadata.json", "settings.json", "site_key.pub", "terms.json",
)  # fmt: skip


def test_these_are_the_files_of_a_folder(exported: Exported) -> None:
    others = {name for name in exported.files if name not in FILES}
    assert {name[:7] for name in others} == {"policy-", "manifes"}
    assert len(others) == 3


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_a_file_is_found_and_the_file_named(
    exported: Exported, tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    raw = bytearray(exported.files[name].encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[place]))
    folder = write_folder(tmp_path_factory.mktemp("changed") / "ev", exported.files)
    (folder / name).write_bytes(raw)
    assert any(f"'{name}'" in text for text in problems(folder, exported.key.public_hex)["files"])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_the_manifest_is_found(
    exported: Exported, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = exported.files[MANIFEST]
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(max_codepoint=126).filter(lambda c: c != text[place]))
    changed = text[:place] + other + text[place + 1 :]
    found = exported.problems(tmp_path_factory.mktemp("manifest") / "ev", **{MANIFEST: changed})
    assert "manifest" in found


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(exported: Exported, tmp_path: Path, name: str) -> None:
    found = exported.problems(tmp_path / "ev", **{name: None})
    assert any(name in text for texts in found.values() for text in texts)


@pytest.mark.parametrize("name", ["more.txt", "policy-extra.yaml", ".hidden"])
def test_a_file_more_is_named(exported: Exported, tmp_path: Path, name: str) -> None:
    found = exported.problems(tmp_path / "ev", **{name: "x"})
    assert found == {"files": (f"'{name}' does not belong to the evidence",)}


def test_links_and_directories_are_named(exported: Exported, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "ev", exported.files)
    (folder / "deep").mkdir()
    (folder / "job.py").unlink()
    (folder / "job.py").symlink_to("/etc/hostname")
    found = problems(folder, exported.key.public_hex)
    assert found["files"] == (
        "'deep' is not a plain file", "'job.py' is not a plain file", "'job.py' is missing",
    )  # fmt: skip


def test_a_document_that_was_replaced_is_found_though_the_manifest_was_made_again(
    exported: Exported, tmp_path: Path
) -> None:
    job = exported.files["job.py"].replace("* 2", "* 3")
    found = exported.resigned(tmp_path / "ev", OTHER, **{"job.py": job})
    assert "was not signed by the key given" in found["manifest"][0]
    assert "job.py is not the text of line" in found["documents"][0]


def test_a_manifest_with_new_hashes_and_the_old_signature_is_found(
    exported: Exported, tmp_path: Path
) -> None:
    job = exported.files["job.py"].replace("* 2", "* 3")
    manifest = json.loads(exported.files[MANIFEST])
    signed = sign_manifest(OTHER, "st-marys", 1, "", {"job.py": job})
    manifest["files"]["job.py"] = signed.files["job.py"]
    found = exported.problems(tmp_path / "ev", **{"job.py": job, MANIFEST: json.dumps(manifest)})
    assert "manifest" in found
    assert "files" not in found


def test_another_sites_key_does_not_verify_the_folder(exported: Exported, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "ev", exported.files)
    found = problems(folder, OTHER.public_hex)
    assert set(found) == {"manifest", "log", "documents", "statements"}


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Files], Files]:
    """A file whose JSON value is changed."""

    def edit(files: Files) -> Files:
        value = json.loads(files[name])
        changed = change(value)
        return {name: json.dumps(value if changed is None else changed)}

    return edit


def put(value: Any, *path: Any) -> Callable[[Any], None]:
    """Set one place of a JSON value."""

    def change(document: Any) -> None:
        for part in path[:-1]:
            document = document[part]
        document[path[-1]] = value

    return change


SITE_LIES = [
    # name, edit of a file by the site itself, the check that finds it, what it says
    ("text", lambda f: {"job.py": f["job.py"] + "#"}, "documents", "job.py is not the text of"),
    ("terms", edited("terms.json", put(99, "runs")), "documents", "terms.json is not what line"),
    ("researcher", edited("settings.json", put("eve@uni.example", "researcher")), "documents",
     "names another researcher"),
    ("key in settings", edited("settings.json", put("0" * 64, "public_key")), "documents",
     "settings.json names another key"),
    ("key file", lambda f: {"site_key.pub": "0" * 64}, "documents", "site_key.pub is not the key"),
    ("policy", lambda f: {"policy.yaml": f["policy.yaml"].replace("minimum: 6", "minimum: 5")},
     "documents", "policy.json does not say what policy.yaml says"),
    ("decider", edited("decisions.json", put("eve@x.example", 0, "document", "person")),
     "documents", "is not signed by the site"),
    ("decision dropped", edited("decisions.json", lambda v: v[1:]), "documents",
     "is missing in decisions.json"),
    ("decision twice", edited("decisions.json", lambda v: [*v, v[0]]), "documents",
     "stands in no line"),
    ("signatures swapped",
     edited("decisions.json", lambda v: [
         {**v[0], "signature": v[1]["signature"]}, {**v[1], "signature": v[0]["signature"]}, *v[2:]
     ]), "documents", "says another person than line"),
    ("approval", edited("approval.json", put(99, 0, "document", "terms", "runs")), "documents",
     "approval 1 in approval.json is not signed"),
    ("approval dropped", edited("approval.json", lambda v: v[:1]), "documents",
     "is missing in approval.json"),
    ("approval file dropped", lambda f: {"approval.json": None}, "documents",
     "is missing in approval.json"),
    ("rehearsal", edited("rehearsal.json", put("another", 0, "influence")), "documents",
     "was made on a rehearsal that is not in the folder"),
    ("card", edited("card.json", put("elsewhere", "source")), "documents",
     "card and certificate are not those of the dataset version"),
    ("certificate", edited("deidentification.json", put(1, "certificate", "images")), "documents",
     "deidentification.json is not signed by the site"),
    ("export", edited("settings.json", put("2020-01-01T00:00:00Z", "at")), "documents",
     "no line says that exactly these documents were exported"),
    ("no JSON", lambda f: {"terms.json": "{"}, "documents", "terms.json is not JSON"),
    ("deep JSON", lambda f: {"terms.json": "[" * 100_000}, "documents", "terms.json is not JSON"),
    ("no number", lambda f: {"decisions.json": '[{"document": NaN, "signature": ""}]'}, "documents",
     "decisions.json is not JSON"),
    ("no character", lambda f: {"decisions.json": '["\\ud800"]'}, "documents",
     "decisions.json is not JSON"),
    ("no terms", lambda f: {"terms.json": "[]"}, "documents", "terms.json is not a document"),
    ("no list", lambda f: {"decisions.json": "{}"}, "documents", "decisions.json is not a list"),
    ("no signature", lambda f: {"decisions.json": "[{}]"}, "documents", "has no signature"),
    ("checkpoint", edited("checkpoint.json", put(7, "lines")), "log", "does not vouch for"),
    ("no checkpoint", lambda f: {"checkpoint.json": "{}"}, "log", "is not a checkpoint"),
    ("excerpt cut", lambda f: {"log-excerpt.jsonl": f["log-excerpt.jsonl"].rsplit("\n", 2)[0]},
     "log", "is not finished"),
    ("record", edited("evidence.json", put(1000, "totals", "updates_released")), "statements",
     "totals.updates_released says 1000; it follows: 2"),
    ("sentence",
     edited("evidence.json", put("Eve approved.", "sections", 1, "statements", 0, "text")),
     "statements", 'sections[1].statements[0].text says "Eve approved."; it follows: "On '),
    ("line number",
     edited("evidence.json", put([999], "sections", 0, "statements", 0, "lines")),
     "statements", "sections[0].statements[0].lines[0] says 999"),
    ("statement dropped",
     edited("evidence.json", lambda v: v["sections"][4]["statements"].pop() and None),
     "statements", "sections[4].statements says"),
    ("matrix", edited("evidence.json", put("no", "trust_matrix", "rows", 0, "cells", 3, "sight")),
     "statements", 'cells[3].sight says "no"; it follows: "yes"'),
    ("another version", edited("evidence.json", put("sitegate 9", "made_with")), "statements",
     "was made with 'sitegate 9' and this is sitegate"),
    ("record in another form", lambda f: {"evidence.json": f["evidence.json"] + "\n"},
     "statements", "it is written in another form"),
    ("no record", lambda f: {"evidence.json": "x"}, "statements", "is not JSON"),
    ("page", lambda f: {"evidence.html": f["evidence.html"].replace("Rita", "Eve") + " "},
     "statements", "evidence.html does not state the same"),
    ("crate", edited("ro-crate-metadata.json", put("x", "@graph", 0, "name")), "statements",
     "ro-crate-metadata.json does not state the same"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "check", "sentence"),
    [pytest.param(*row[1:], id=row[0]) for row in SITE_LIES],
)
def test_what_the_site_itself_signs_is_held_against_its_log(
    exported: Exported, tmp_path: Path, edit, check: str, sentence: str
) -> None:
    found = exported.resigned(tmp_path / "ev", exported.key, **edit(exported.files))
    assert "manifest" not in found
    assert "files" not in found
    assert any(sentence in text for text in found[check]), found


@pytest.mark.parametrize("mode", ["drop", "swap", "edit"])
def test_log_lines_cannot_be_changed_even_by_a_new_manifest(
    exported: Exported, tmp_path: Path, mode: str
) -> None:
    records = exported.files["log-excerpt.jsonl"].splitlines(keepends=True)
    place = next(k for k, r in enumerate(records) if "update released" in r)
    changed = {
        "drop": [*records[:place], *records[place + 1 :]],
        "swap": [*records[: place - 1], records[place], records[place - 1], *records[place + 1 :]],
        "edit": [*records[:place], records[place].replace(":16,", ":17,"), *records[place + 1 :]],
    }[mode]
    assert changed != records
    found = exported.resigned(
        tmp_path / "ev", exported.key, **{"log-excerpt.jsonl": "".join(changed)}
    )
    assert "log" in found
    assert "statements" in found


def test_a_folder_of_one_request_does_not_pass_for_another(
    exported: Exported, tmp_path: Path
) -> None:
    settings_ = edited("settings.json", put(2, "request"))(exported.files)
    found = exported.resigned(tmp_path / "ev", exported.key, **settings_)
    assert "does not show one line that says that R-2 was submitted" in found["documents"][0]


def test_there_has_to_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no evidence at"):
        verify_evidence(tmp_path / "nothing", OTHER.public_hex)


def test_an_empty_folder_does_not_hold(tmp_path: Path) -> None:
    found = problems(tmp_path, OTHER.public_hex)
    assert set(found) == {"manifest", "log", "documents", "statements"}


def test_texts_that_are_no_utf_8_and_files_without_end_are_named(
    exported: Exported, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "ev", exported.files)
    (folder / "job.py").write_bytes(b"\xff")
    with (folder / "card.json").open("r+b") as file:
        file.truncate(10**9)
    found = problems(folder, exported.key.public_hex)["files"]
    assert "'job.py' is not text in UTF-8" in found
    assert "'card.json' has more than 200 MB" in found


def test_signed_documents_are_read_as_they_were_signed(exported: Exported) -> None:
    documents = read_documents(exported.files)
    stored = [canonical_json(d["document"]) for d in json.loads(exported.files["decisions.json"])]
    assert [signed.signed_bytes for signed in documents.decisions] == stored
    assert len(documents.policies) == 2
