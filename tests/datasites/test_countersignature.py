"""A log that another site countersigned cannot be replaced, not even with the site's own key."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import factories
from audit_logs import KEY, OTHER, checkpoint, contents, rechained, write
from datasites.audit_checkpoint import Checkpoint, read_checkpoint
from datasites.audit_log import read_events, verify_log
from datasites.audit_segments import checkpoint_path
from datasites.config import load_site
from datasites.countersignature import (
    Countersignature,
    countersign,
    read_countersignature,
    sign_countersignature,
)
from datasites.errors import DecisionError, RecordError
from datasites.new_site import example_config, example_policy, make_site
from datasites.open_site import OpenSite
from policies.strict import canonical_json

OWNER = "owner@seaside.example"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "seaside"
    config = example_config("seaside").model_copy(update={"sandbox": "process"})
    make_site(path, config, example_policy(), OWNER, OWNER, factories.PASSWORD)
    return path


@pytest.fixture
def seaside(made: Path, tmp_path: Path) -> Iterator[OpenSite]:
    """The site that countersigns."""
    site = OpenSite(load_site(Path(shutil.copytree(made, tmp_path / "seaside"))))
    yield site
    site.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of the other site, with its checkpoint beside it: 11 lines."""
    path = tmp_path / "st-marys" / "audit.jsonl"
    path.parent.mkdir()
    write(path, 10)
    checkpoint(path)
    return path


def shown(log: Path) -> dict[str, Any]:
    return read_checkpoint(checkpoint_path(log)).model_dump(mode="json")


def keep(document: dict[str, Any], path: Path) -> Path:
    path.write_bytes(canonical_json(document))
    return path


def test_countersignature_names_both_sites_and_is_signed_by_the_second(
    seaside: OpenSite, log: Path
) -> None:
    document = countersign(seaside, shown(log), KEY.public_hex, OWNER, "owner")
    assert (document["type"], document["site"]) == ("sitegate countersignature", "seaside")
    assert document["public_key"] == seaside.key.public_hex
    assert document["checkpoint"] == shown(log)


def test_countersigning_stands_in_the_log_of_the_site_that_did_it(
    seaside: OpenSite, log: Path
) -> None:
    countersign(seaside, shown(log), KEY.public_hex, OWNER, "owner")
    *_, line = read_events(seaside.site.audit)
    assert (line["event"], line["actor"], line["role"], line["subject"]) == (
        "log countersigned", OWNER, "owner", "st-marys",
    )  # fmt: skip
    assert line["objects"] == {"head": shown(log)["head"]}
    assert line["detail"] == {"lines": 11, "of_key": KEY.public_hex}


def test_nothing_is_signed_that_cannot_be_logged(
    seaside: OpenSite, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[bytes] = []
    sign = seaside.key.sign
    monkeypatch.setattr(
        seaside.key,
        "sign",
        lambda purpose, message: signed.append(message) or sign(purpose, message),
    )
    seaside.audit.close()  # its file is closed, so it cannot be written
    with pytest.raises(RecordError, match="so nothing was done"):
        countersign(seaside, shown(log), KEY.public_hex)
    assert signed == []
    seaside.audit._open()


def test_untouched_log_agrees_with_its_countersignature(
    seaside: OpenSite, log: Path, tmp_path: Path
) -> None:
    kept = keep(countersign(seaside, shown(log), KEY.public_hex), tmp_path / "kept.json")
    write(log, 5, start=10)
    proved = read_countersignature(kept, seaside.key.public_hex)
    found = verify_log(log, KEY.public_hex, checkpoints=[proved])
    assert (found.intact, found.lines) == (True, 16)


@pytest.mark.parametrize("lines", [5, 11, 20])
def test_whole_log_that_was_replaced_with_the_stolen_key_is_found(
    seaside: OpenSite, log: Path, tmp_path: Path, lines: int
) -> None:
    kept = keep(countersign(seaside, shown(log), KEY.public_hex), tmp_path / "kept.json")
    plain = contents(log.read_bytes().splitlines())
    plain[3]["actor"] = "nobody"
    checkpoint_path(log).unlink()
    log.write_bytes(b"".join(rechained([*plain, *plain][: lines - 1], KEY)))
    checkpoint(log)
    assert verify_log(log, KEY.public_hex).intact  # by itself it is perfect
    proved = read_countersignature(kept, seaside.key.public_hex)
    found = verify_log(log, KEY.public_hex, checkpoints=[proved])
    assert found.bad_line == (lines + 1 if lines < 11 else 11)


def test_log_that_was_replaced_under_a_new_key_is_found(
    seaside: OpenSite, log: Path, tmp_path: Path
) -> None:
    kept = keep(countersign(seaside, shown(log), KEY.public_hex), tmp_path / "kept.json")
    checkpoint_path(log).unlink()
    log.write_bytes(b"".join(rechained(contents(log.read_bytes().splitlines()), OTHER)))
    proved = read_countersignature(kept, seaside.key.public_hex)
    assert verify_log(log, OTHER.public_hex).intact
    assert verify_log(log, OTHER.public_hex, checkpoints=[proved]).bad_line == 11


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lines": 12}, "is not signed by the key given"),
        ({"head": "0" * 64}, "is not signed by the key given"),
        ({"site": "north"}, "is not signed by the key given"),
        ({"signature": ""}, "is not signed by the key given"),
        ({"public_key": OTHER.public_hex}, "is not signed by the key given"),
        ({"lines": "many"}, "this is not a checkpoint: `lines`"),
        ({"more": 1}, "this is not a checkpoint: `more` is not a field"),
    ],
)
def test_what_the_other_site_did_not_sign_is_not_countersigned(
    seaside: OpenSite, log: Path, change: dict[str, Any], words: str
) -> None:
    before = seaside.site.audit.read_bytes()
    with pytest.raises(DecisionError, match=words):
        countersign(seaside, {**shown(log), **change}, KEY.public_hex)
    assert seaside.site.audit.read_bytes() == before


def test_checkpoint_of_another_key_than_the_one_handed_over_is_refused(
    seaside: OpenSite, log: Path
) -> None:
    with pytest.raises(DecisionError, match="is not signed by the key given"):
        countersign(seaside, shown(log), OTHER.public_hex)


def test_site_does_not_countersign_itself(seaside: OpenSite) -> None:
    seaside.audit.checkpoint()
    with pytest.raises(DecisionError, match="does not countersign its own log"):
        countersign(seaside, shown(seaside.site.audit), seaside.key.public_hex)


def test_log_that_goes_on_is_countersigned_again(seaside: OpenSite, log: Path) -> None:
    first = countersign(seaside, shown(log), KEY.public_hex)
    again = countersign(seaside, shown(log), KEY.public_hex)
    assert first["checkpoint"] == again["checkpoint"]
    write(log, 1, start=10)
    checkpoint(log)
    assert countersign(seaside, shown(log), KEY.public_hex)["checkpoint"]["lines"] == 13


def test_log_that_became_shorter_or_another_is_not_countersigned_again(
    seaside: OpenSite, log: Path
) -> None:
    countersign(seaside, shown(log), KEY.public_hex)
    plain = contents(log.read_bytes().splitlines())
    plain[3]["actor"] = "nobody"
    for kept, lines in ((4, 5), (10, 11)):
        checkpoint_path(log).unlink()
        log.write_bytes(b"".join(rechained(plain[:kept], KEY)))
        checkpoint(log)
        assert shown(log)["lines"] == lines
        with pytest.raises(DecisionError, match=r"had 11 lines when it was countersigned on 20"):
            countersign(seaside, shown(log), KEY.public_hex)


# ------------------------------------------------------------------------------------- reading

SEEN = Checkpoint(site="st-marys", lines=3, head="ab" * 32, at="now", public_key=KEY.public_hex)
SIGNED = sign_countersignature(OTHER, "seaside", SEEN, "2026-11-25T12:00:00Z")


@pytest.mark.parametrize(
    "change",
    [
        {"site": "north"},
        {"at": "2025-11-25T12:00:00Z"},
        {"checkpoint": SEEN.model_copy(update={"lines": 2})},
        {"signature": KEY.sign("audit countersignature", SIGNED.signed_bytes)},
        {"signature": OTHER.sign("audit checkpoint", SIGNED.signed_bytes)},
        {"signature": "xx"},
        {"public_key": KEY.public_hex},
    ],
)
def test_countersignature_that_was_changed_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "kept.json"
    path.write_text(SIGNED.model_dump_json())
    assert read_countersignature(path, OTHER.public_hex) == SEEN
    path.write_text(SIGNED.model_copy(update=change).model_dump_json())
    with pytest.raises(RecordError, match="was not signed by the key given"):
        read_countersignature(path, OTHER.public_hex)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[" * 100_000, b"\xff"])
def test_file_that_is_no_countersignature_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "kept.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordError, match="is missing or is not a countersignature"):
        read_countersignature(path, OTHER.public_hex)


def test_signature_covers_every_field() -> None:
    plain = SIGNED.model_dump(mode="json")
    assert set(plain) == set(Countersignature.model_fields)
    signed = SIGNED.signed_bytes.decode()
    assert all(f'"{name}":' in signed for name in plain if name != "signature")
