"""`sitegate audit` says what it found, in words and as JSON, with the right exit code."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import factories
from audit_logs import KEY, OTHER, checkpoint, contents, rechained, write
from datasites.audit_checkpoint import read_checkpoint
from datasites.audit_log import AuditLog, Event, read_events
from datasites.audit_segments import checkpoint_path
from datasites.cli import app
from datasites.config import Site
from datasites.countersignature import sign_countersignature
from datasites.keys import load_site_key
from datasites.new_site import example_config, example_policy, make_site
from datasites.show_audit import print_event

OWNER = "owner@st-marys.example"


def audit(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["audit", *map(str, arguments)])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 11 lines with a checkpoint beside it, and key files of two sites."""
    (tmp_path / "key.pub").write_text(KEY.public_hex + "\n")
    (tmp_path / "other.pub").write_text(OTHER.public_hex)
    path = tmp_path / "audit.jsonl"
    write(path, 10)
    checkpoint(path)
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a few events in its log after those of its making; the last is a checkpoint."""
    path = tmp_path_factory.mktemp("made") / "site"
    config = example_config("st-marys")
    made = make_site(path, config, example_policy(), OWNER, OWNER, factories.PASSWORD)
    log = AuditLog(made.audit, load_site_key(made.keys), "st-marys")
    log.append(Event.REQUEST_SUBMITTED, "rita@uni.example", "R-7", text_sha256="ab" * 32)
    log.append(Event.REQUEST_APPROVED, OWNER, "R-7", role="owner", reason="as agreed")
    log.append(Event.RUN_STARTED, "rita@uni.example", "R-7/1/1")
    log.append(Event.RUN_STARTED, "nora@uni.example", "R-71/1/1")
    log.checkpoint()
    log.close()
    return made


# ------------------------------------------------------------------------------------- verify


def test_intact_log_of_a_site_is_verified(site: Site) -> None:
    done = audit("verify", "--site", site.path)
    assert done.exit_code == 0, done.output
    lines = len(site.audit.read_bytes().splitlines())
    assert done.stdout.splitlines() == [
        f"Intact: {lines} lines, chain unbroken, 2 signed checkpoints; 0 lines since the last are "
        "chained and not yet signed.",
        f"It agrees with a checkpoint kept outside of it, which covers {lines} lines.",
    ]


def test_log_is_verified_offline_with_nothing_but_the_key(log: Path, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere" / "audit.jsonl"
    alone.parent.mkdir()
    alone.write_bytes(log.read_bytes())
    done = audit("verify", alone, "--public-key", tmp_path / "key.pub")
    assert done.exit_code == 0
    assert "No checkpoint outside of the log was given" in done.stdout


def test_damaged_log_is_told_with_its_line_and_exit_code_3(log: Path, tmp_path: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b"R-1/4/1", b"R-1/3/1"))
    done = audit("verify", log, "--public-key", tmp_path / "key.pub")
    assert done.exit_code == 3
    assert done.stdout == (
        "DAMAGED: line 5 was changed after it was written. 4 lines before it verify.\n"
    )


def test_cut_log_is_told_with_the_checkpoint_that_says_so(log: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    checkpoint_path(log).rename(kept)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:6]))
    key = ("--public-key", tmp_path / "key.pub")
    assert audit("verify", log, *key).exit_code == 0
    done = audit("verify", log, *key, "--checkpoint", kept)
    assert done.exit_code == 3
    at = read_checkpoint(kept).at
    assert done.stdout == (
        f"DAMAGED: line 7 is missing: its checkpoint of {at} covers 11 lines. 6 lines before it "
        "verify.\n"
    )


def test_replaced_log_is_told_by_a_countersignature(log: Path, tmp_path: Path) -> None:
    kept = tmp_path / "countersignature.json"
    seen = read_checkpoint(checkpoint_path(log))
    kept.write_text(sign_countersignature(OTHER, "seaside", seen, "now").model_dump_json())
    arguments = (
        *("verify", log, "--public-key", tmp_path / "key.pub"),
        *("--countersignature", kept, "--countersigner", tmp_path / "other.pub"),
    )
    assert audit(*arguments).exit_code == 0
    plain = contents(log.read_bytes().splitlines())
    plain[0]["actor"] = "nobody"
    checkpoint_path(log).unlink()
    log.write_bytes(b"".join(rechained(plain, KEY)))
    done = audit(*arguments)
    assert done.exit_code == 3
    assert done.stdout.startswith("DAMAGED: line 11 is not what the site signed: its checkpoint of")


def test_json_says_the_same_for_machines(log: Path, tmp_path: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b"R-1/4/1", b"R-1/3/1"))
    done = audit("verify", log, "--public-key", tmp_path / "key.pub", "--json")
    said: dict[str, Any] = json.loads(done.stdout)
    assert (said["intact"], said["lines"], said["bad_line"]) == (False, 4, 5)
    assert said["problem"] == "was changed after it was written"


def test_old_file_says_from_which_line_on_it_was_checked(log: Path, tmp_path: Path) -> None:
    write(log, 10, start=10, rotate_bytes=4_000)
    write(log, 10, start=20, rotate_bytes=4_000)
    key = ("--public-key", tmp_path / "key.pub")
    assert audit("verify", log, *key).exit_code == 0
    second = sorted(tmp_path.glob("audit-*.jsonl"))[1]
    done = audit("verify", second, *key)
    assert done.exit_code == 0
    first = int(second.stem[-9:])
    assert f"Checked from line {first} on" in done.stdout
    assert audit("verify", log, *key, "--alone").exit_code == 0
    second.unlink()
    done = audit("verify", log, *key)
    assert done.exit_code == 3
    assert done.stdout.startswith(f"DAMAGED: line {first} is missing: audit")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{log}"], 2, "give a log file and its --public-key, or neither"),
        (["{log}", "--public-key", "{log}x"], 2, "there is no public key at"),
        (["{log}x", "--public-key", "{key}"], 3, "there is no audit log at"),
        (["{log}", "--public-key", "{key}", "--checkpoint", "{key}"], 3, "is not a checkpoint"),
        (["--countersignature", "{key}"], 2, "give both --countersignature and --countersigner"),
        (
            [
                *("{log}", "--public-key", "{key}"),
                *("--countersignature", "{key}", "--countersigner", "{key}"),
            ],
            3,
            "is not a countersignature",
        ),
    ],
)
def test_wrong_use_is_a_sentence(
    log: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    given = [a.format(log=log, key=tmp_path / "key.pub") for a in arguments]
    done = audit("verify", *given)
    assert (done.exit_code, done.stdout) == (code, "")
    assert words in " ".join(done.stderr.split())


# --------------------------------------------------------------------------------------- show


def shown(site: Site, *arguments: object) -> list[str]:
    done = audit("show", "--site", site.path, *arguments)
    assert done.exit_code == 0
    return done.stdout.splitlines()


def test_event_is_shown_in_one_line_with_role_and_reason(site: Site) -> None:
    submitted, approved, started = shown(site, "--subject", "R-7")
    assert submitted.split("UTC  ")[1] == (
        "request submitted  R-7          rita@uni.example (researcher)  text_sha256=abababababab…"
    )
    assert approved.endswith(f"{OWNER} (owner)  reason=as agreed")
    assert "R-7/1/1" in started


def test_show_takes_the_last_lines_and_one_actor(site: Site) -> None:
    lines = len(site.audit.read_bytes().splitlines())
    assert len(shown(site)) == len(shown(site, "--last", 0)) == lines
    numbers = [int(line.split()[0]) for line in shown(site, "--last", 2)]
    assert numbers == [lines - 1, lines]
    numbers = [int(line.split()[0]) for line in shown(site, "--actor", "rita@uni.example")]
    assert numbers == [lines - 4, lines - 2]


def test_words_of_a_stranger_do_not_steer_the_terminal(log: Path) -> None:
    opened = AuditLog(log, KEY)
    opened.append(Event.LOGIN_REFUSED, "x\x1b[2Jy", "login", reason="a\nb\u202ec")
    opened.close()
    *_, line = read_events(log)
    out = Console(file=StringIO(), width=200)
    print_event(out, line)
    assert out.file.getvalue().endswith("x\\u001b[2Jy (researcher)  reason=a\\u000ab\\u202ec\n")


def test_show_does_not_print_signatures(site: Site) -> None:
    assert "signature" not in shown(site, "--last", 1)[0]


def test_show_gives_whole_lines_as_json(site: Site) -> None:
    (line,) = shown(site, "--last", 1, "--json")
    assert set(json.loads(line)) == {
        "n", "previous", "hash", "time", "event", "actor", "role", "subject", "run", "decision",
        "reason", "objects", "detail", "salt",
    }  # fmt: skip


# ------------------------------------------------------------ what only a running site can do


@pytest.mark.parametrize(
    "arguments",
    [
        ["checkpoint"],
        [
            "countersign",
            "{kept}",
            "--public-key",
            "{key}",
            "--as",
            OWNER,
            "--password-file",
            "{key}",
        ],
    ],
)
def test_site_that_does_not_run_cannot_sign(
    site: Site, log: Path, tmp_path: Path, arguments: list[str]
) -> None:
    given = [a.format(kept=checkpoint_path(log), key=tmp_path / "key.pub") for a in arguments]
    done = audit(*given, "--site", site.path)
    assert done.exit_code == 2
    assert "the site does not run; start it with `sitegate serve`" in " ".join(done.stderr.split())
