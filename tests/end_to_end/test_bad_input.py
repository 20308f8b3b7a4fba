"""What a researcher gets wrong, at a real site: a sentence each, which says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import factories
import federation
from datasites.keys import make_keys
from datasites.trial import free_port, roster
from federation.errors import FederationError, RefusedError, UntrustedError
from policies.contract import Bound

EMAIL = "rita@uni.example"


def login(hospital, *, entry=None, **changes):
    """Connect to the shared hospital, with an entry of the roster or an argument changed."""
    listed = roster([hospital.trial])
    listed["sites"][0].update(entry or {})
    return federation.connect(
        **{"roster": listed, "email": EMAIL, "password": factories.PASSWORD, **changes}
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wrong"},
         "st-marys did not log rita@uni.example in: the e-mail address or the password is wrong. "
         "Look at both; the hospital makes accounts and sets passwords anew"),
        ({"email": "nobody@uni.example"}, "st-marys did not log nobody@uni.example in: the e-mail"),
        ({"password": {"seaside": "x"}},
         "there is no password for st-marys; give one for each site of the roster"),
        ({"entry": {"url": "https://127.0.0.1:1"}},
         "st-marys at https://127.0.0.1:1 does not answer; try again, and ask the hospital"),
        ({"entry": {"url": "http://127.0.0.1"}}, "site 1 of the roster: `url`: "),
        ({"entry": {"authority": "nowhere.pem"}},
         "the authority file nowhere.pem of st-marys cannot be read; the hospital gives it out"),
        ({"entry": {"city": "London"}},
         "site 1 of the roster: `city` is not a field; the fields here are `name`, `url`, `auth"),
        ({"roster": {"sites": []}}, "the roster names no site; it is a YAML file with `sites:`"),
        ({"roster": {"sites": ["st-marys"]}}, "site 1 of the roster: "),
        ({"roster": {}}, "the roster names no site; it is a YAML file with `sites:`"),
        ({"roster": "nowhere.yaml"}, "the roster nowhere.yaml cannot be read (No such file"),
        ({"roster": "."}, "the roster . cannot be read (Is a directory)"),
    ],
)  # fmt: skip
def test_who_cannot_log_in_reads_why_and_what_to_do(hospital, changes, words):
    with pytest.raises(FederationError) as refused:
        login(hospital, **changes)
    assert str(refused.value).startswith(words)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["sites: [", "\x00", "sites: {a: 1}", "just words", b"\xff\xfe\xff"]
)
def test_a_roster_that_is_none_says_what_one_is(tmp_path, text):
    file = tmp_path / "roster.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FederationError, match="it is a YAML file with `sites:`, a list of `name`"):
        federation.connect(file, email=EMAIL, password="x")


def test_a_site_twice_in_the_roster_is_named(hospital):
    listed = roster([hospital.trial, hospital.trial])
    with pytest.raises(FederationError, match="the roster has st-marys twice; give each site its"):
        federation.connect(listed, email=EMAIL, password="x")


def test_a_certificate_of_another_authority_is_not_trusted(hospital, tmp_path):
    (tmp_path / "keys").mkdir()
    make_keys(tmp_path / "keys", "127.0.0.1", "another")
    authority = str(tmp_path / "keys" / "tls_authority.pem")
    with pytest.raises(UntrustedError, match="a certificate that the authority in the roster did "
                       "not sign; ask the hospital for its authority file"):  # fmt: skip
        login(hospital, entry={"authority": authority})
    elsewhere = f"https://0.0.0.0:{hospital.trial.site.config.port}"
    with pytest.raises(UntrustedError, match="shows a certificate for another address; write the"):
        login(hospital, entry={"url": elsewhere})
    (tmp_path / "garbage.pem").write_text("no certificate")
    with pytest.raises(
        FederationError, match=r"the authority file .*garbage\.pem of st-marys cannot"
    ):
        login(hospital, entry={"authority": str(tmp_path / "garbage.pem")})


def test_every_site_that_cannot_be_reached_is_named(hospital):
    listed = roster([hospital.trial])
    for name in ("north-clinic", "seaside"):
        gone = {"name": name, "url": f"https://127.0.0.1:{free_port()}"}
        listed["sites"].append({**listed["sites"][0], **gone})
    with pytest.raises(FederationError) as refused:
        federation.connect(listed, email=EMAIL, password=factories.PASSWORD)
    lines = str(refused.value).splitlines()
    assert lines[0] == "2 of 3 sites did not let you in:"
    assert [line.split(" at ")[0] for line in lines[1:]] == ["- north-clinic", "- seaside"]


def test_a_site_that_is_not_in_the_roster_is_answered_with_those_that_are(hospital, rita):
    words = "there is no site `seaside`; the roster has st-marys. Take one of them, or add it"
    for ask in (
        lambda: rita["seaside"],
        lambda: rita.check(federation.Job(factories.DOUBLE_JOB, "j", "train"), None, ["seaside"]),
    ):
        with pytest.raises(FederationError, match=words):
            ask()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": {}}, ["weights.names", "declared and not sent: w", "send every declared"]),
        ({"weights": {"w": np.zeros(5, np.float32)}},
         ["weights.shape", "`w` is float32 (5,)", "float32 (4,)", "ask for approval of this one"]),
        ({"weights": {"w": np.full(4, np.nan, np.float32)}},
         ["weights.finite", "`w` has numbers that are not finite", "send other weights"]),
        ({"config": {"rate": 7.0}},
         ["arguments.range", "`rate` = 7.0", "0.0 to 1.0", "stay within the approved range"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_the_site_too(hospital, rita, changes, words):
    study = hospital.submit(rita, factories.DOUBLE_JOB)
    with pytest.raises(RefusedError) as refused:
        hospital.run(study, **changes)
    for word in words:
        assert word in str(refused.value)
    assert study.status()["runs used"].tolist() == ["0 of 10"]


def test_an_argument_of_another_type_is_refused_here(hospital, rita):
    study = hospital.submit(rita, factories.DOUBLE_JOB, arguments={"rate": Bound(value=1)})
    with pytest.raises(FederationError, match="`rate` in `config` is a float32; give a plain"):
        federation.run_rounds(
            study, factories.weights(), {"rate": np.float32(1)}, rounds=1, progress=False
        )


SILENT = """
import json, sys
import federation

roster, password = json.loads(sys.argv[1]), sys.argv[2]
sites = federation.connect(roster, email="rita@uni.example", password=password)
sites["st-marys"].mock("chest-xray")
sites.datasets()
sys.stderr.write("so far nothing\\n")
federation.connect(roster, email="rita@uni.example", password="wrong")
"""


def test_a_program_has_nothing_of_syft_on_its_screen_and_no_traceback_of_ours(hospital):
    done = subprocess.run(
        [sys.executable, "-c", SILENT, json.dumps(roster([hospital.trial])), factories.PASSWORD],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == ""
    before, error, where = done.stderr.splitlines()
    assert before == "so far nothing"
    assert error.startswith("FederationError: st-marys did not log rita@uni.example in: the e-mail")
    assert where == "  at <string>, line 10"
    assert done.returncode == 1
