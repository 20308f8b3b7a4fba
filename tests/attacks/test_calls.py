"""Calls that are recorded, forged, oversize or garbage, at a site that may be flooded."""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import ssl
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import factories
from datasites.errors import SiteError
from datasites.keys import load_identity
from policies.arrays import pack
from tests.attacks.attacker import (
    UID,
    Answer,
    Call,
    SyftSigningKey,
    attack,
    client,
    key_of,
    log_in,
    post,
    read_answer,
    sign,
)
from tests.attacks.capnp_bombs import many_bytes, many_lists
from tests.attacks.jobs import job
from tests.attacks.victim import Victim

BODY_LIMIT = 1_000_000


def describe(victim: Victim, **changes: Any) -> Answer:
    """A call of `sitegate.describe`, changed where the test says so."""
    return post(victim.rita, Call("sitegate.describe", **changes).body(victim.rita))


# --- the same call twice ------------------------------------------------------------------------


def test_a_recorded_call_is_answered_once(fortress):
    body = Call("sitegate.describe").body(fortress.rita)
    assert post(fortress.rita, body).value
    with fortress.logged() as events:
        again = post(fortress.rita, body)
    assert again.refusal.startswith("This call was answered before")
    assert events[0]["event"] == "call refused"


def test_of_ten_copies_of_a_call_at_once_one_is_answered(fortress):
    body = Call("sitegate.describe").body(fortress.rita)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: post(fortress.rita, body), range(10)))
    assert sum(a.value is not None for a in answers) == 1


def test_a_recorded_run_does_not_run_or_return_again(fortress):
    study = fortress.submit(factories.DOUBLE_JOB)
    body = Call(
        "code.call",
        {
            "uid": UID.from_string(study._codes["st-marys"]),
            "round": 1,
            "attempt": 1,
            "weights": pack(factories.weights()),
            "config": '{"rate":0.5}',
        },
    ).body(fortress.rita)
    assert post(fortress.rita, body).arrays
    assert post(fortress.rita, body).value is None


def test_a_recorded_call_is_not_answered_after_a_restart_either(restarted, fortress):
    assert post(fortress.rita, restarted.recorded).refusal.startswith("This call was answered")


@pytest.mark.parametrize(
    ("seconds", "answered"),
    [
        pytest.param(-290, True, id="290 s ago"),
        pytest.param(290, True, id="290 s ahead"),
        pytest.param(-302, False, id="302 s ago"),
        pytest.param(310, False, id="310 s ahead"),
        pytest.param(-1e9, False, id="decades ago"),
    ],
)
def test_only_calls_of_the_last_minutes_are_answered(fortress, seconds, answered):
    answer = describe(fortress, sent_at=int((time.time() + seconds) * 1000))
    assert (answer.value is not None) == answered
    assert answered or "s from the site's time" in answer.refusal


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"nonce": ...}, id="no nonce"),
        pytest.param({"sent_at": ...}, id="no time"),
        pytest.param({"nonce": ..., "sent_at": ...}, id="neither"),
        pytest.param({"nonce": ""}, id="empty nonce"),
        pytest.param({"nonce": "0" * 31}, id="short nonce"),
        pytest.param({"nonce": "0" * 33}, id="long nonce"),
        pytest.param({"nonce": [1] * 32}, id="nonce that is a list"),
        pytest.param({"sent_at": "1700000000000"}, id="time as text"),
        pytest.param({"sent_at": True}, id="time that is a truth value"),
        pytest.param({"sent_at": [0]}, id="time that is a list"),
    ],
)
def test_a_call_without_time_and_nonce_is_not_answered(fortress, changes):
    assert describe(fortress, **changes).refusal in (
        "The call cannot be read.",
        "The call has no nonce of 32 hex digits.",
    )


@pytest.mark.parametrize("digits", [20, 400])
def test_a_time_of_any_size_is_refused_in_a_sentence(fortress, digits):
    with fortress.logged() as events:
        answer = describe(fortress, sent_at=10**digits)
    assert answer.refusal == "The call cannot be read."
    assert [e["event"] for e in events] == ["call refused"]


# --- other keys ---------------------------------------------------------------------------------


def test_a_call_with_an_unknown_key_is_refused(fortress):
    answer = describe(fortress, key=SyftSigningKey.generate())
    assert answer.refusal == "There is no account with this key."


def test_a_call_with_somebody_elses_key_and_ones_own_signature_is_refused(fortress):
    body = Call("sitegate.requests").body(fortress.mallory)
    stolen = fortress.rita._key.verify_key.verify_key.encode() + body[32:]
    assert post(fortress.rita, body).value is not None
    fresh = Call("sitegate.requests").body(fortress.mallory)
    stolen = stolen[:32] + fresh[32:]
    assert post(fortress.rita, stolen).refusal == "The signature of the call is not valid."


def test_a_call_whose_message_was_changed_after_signing_is_refused(fortress):
    body = bytearray(Call("sitegate.requests").body(fortress.rita))
    body[-20] ^= 1
    assert post(fortress.rita, bytes(body)).refusal == "The signature of the call is not valid."


def test_the_sites_own_root_key_gets_nothing_over_the_network(fortress):
    """Whoever stole identity.json can still not use it through the front door."""
    root = key_of(bytes.fromhex(load_identity(fortress.state).key))
    assert str(root.verify_key) == fortress.rita._server_key
    for path, kwargs in (("sitegate.describe", {}), ("user.get_all", {}), ("request.get_all", {})):
        answer = post(fortress.rita, Call(path, kwargs, key=root).body(fortress.rita))
        assert answer.refusal == "Only researchers' accounts are answered over the network."


def test_a_researchers_account_that_syft_made_more_powerful_is_not_answered_any_more(fortress):
    (before,) = fortress.sql(
        "SELECT fields FROM User WHERE json_extract(fields, '$.email') = 'mallory@uni.example'",
        file="datasite.db",
    )[0]
    assert json.loads(before)["role"] == "DATA_SCIENTIST"

    def store(fields: str) -> None:
        fortress.sql(
            "UPDATE User SET fields = ? "
            "WHERE json_extract(fields, '$.email') = 'mallory@uni.example'",
            fields,
            file="datasite.db",
        )

    for role in ("DATA_OWNER", "ADMIN", "GUEST"):
        store(json.dumps({**json.loads(before), "role": role}))
        try:
            answer = attack(fortress.mallory, "sitegate.describe")
        finally:
            store(before)
        assert answer.refusal == "Only researchers' accounts are answered over the network."
    assert attack(fortress.mallory, "sitegate.describe").value


def test_a_call_for_another_site_is_refused(fortress):
    assert describe(fortress, server_uid=UID()).refusal == "The call is for another site."


def test_the_log_names_the_researcher_whose_call_was_refused(fortress):
    with fortress.logged() as events:
        attack(fortress.rita, "user.get_all")
    assert [(e["event"], e["actor"]) for e in events] == [("call refused", "rita@uni.example")]


# --- the list of calls --------------------------------------------------------------------------


def test_of_all_paths_of_syft_four_are_on_the_list(fortress):
    from syft.service.service import ServiceConfigRegistry

    paths = sorted(ServiceConfigRegistry.get_registered_configs())
    assert len(paths) > 200
    answered = []
    with client(fortress.rita) as http:
        for path in paths:
            response = http.post("/api/v2/api_call", content=Call(path).body(fortress.rita))
            refusal = read_answer(fortress.rita, response.content).refusal
            if refusal != f"`{path}` is not something a researcher may call.":
                answered.append(path)
    assert answered == [
        "action.get_mock",
        "code.call",
        "code.request_code_execution",
        "dataset.get_all",
    ]


@pytest.mark.parametrize(
    ("path", "kwargs", "args"),
    [
        pytest.param("sitegate.describe", {"x": 1}, [], id="one argument too many"),
        pytest.param("sitegate.describe", {}, [1], id="positional argument"),
        pytest.param("action.get_mock", {}, [], id="missing argument"),
        pytest.param("action.get_mock", {"uid": "x"}, [], id="text for an id"),
        pytest.param("action.get_mock", {"uid": None}, [], id="None for an id"),
        pytest.param("action.get_mock", {"uid": [UID()]}, [], id="list for an id"),
        pytest.param("dataset.get_all", {"page_size": 1}, [], id="an argument that syft knows"),
        pytest.param(
            "code.request_code_execution",
            {"job": b"x", "terms": "{}", "follows": 0},
            [],
            id="bytes for a text",
        ),
        pytest.param(
            "code.call",
            {"uid": UID(), "round": True, "attempt": 1, "weights": b"", "config": "{}"},
            [],
            id="truth value for a number",
        ),
        pytest.param(
            "code.call",
            {"uid": UID(), "round": 1, "attempt": 1, "weights": {"w": [1]}, "config": "{}"},
            [],
            id="mapping for bytes",
        ),
    ],
)
def test_arguments_of_other_names_and_types_are_refused(fortress, path, kwargs, args):
    answer = post(fortress.rita, Call(path, kwargs, args).body(fortress.rita))
    takes = f"`{path}` takes exactly "
    assert answer.refusal.startswith((takes, "The call cannot be read."))


@pytest.mark.parametrize(
    ("digits", "expected"), [(5, ["run.id"]), (16, ["run.id"]), (400, [])], ids=str
)
def test_a_round_of_any_size_is_refused_in_a_sentence(fortress, digits, expected):
    study = fortress.submit(factories.DOUBLE_JOB)
    kwargs = {"round": 10 ** (digits + 2), "attempt": 1, "weights": b"", "config": "{}"}
    code = UID.from_string(study._codes["st-marys"])
    answer = attack(fortress.rita, "code.call", uid=code, **kwargs)
    assert answer.rules == expected
    assert expected or answer.refusal == "The call cannot be read."


# --- the port -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        *("/register", "/stream", "/forgot_password", "/reset_password", "/api", "/new_api_call"),
        *("/api_call_stream", "/python", "/docs", "/openapi.json", "/job", "/webhook"),
    ],
)
def test_routes_of_syft_that_are_not_in_use_are_not_there(fortress, path, method):
    with client(fortress.rita) as http:
        for whole in (path, f"/api/v2{path}", f"/api/v1{path}"):
            assert http.request(method, whole).status_code == 404


@pytest.mark.parametrize("path", ["/requests/1/approve", "/accounts", "/datasets", "/status"])
def test_the_control_sockets_routes_are_not_on_the_network(fortress, path):
    person = {"person": fortress.trial.owner, "password": fortress.trial.owner_password}
    with client(fortress.rita) as http:
        response = http.post(path, json={**person, "reason": "x"})
    assert response.status_code == 404


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET /api/v2/metadata HTTP/1.1\r\nHost: x\r\n\r\n", id="plain http"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="plain http/2"),
        pytest.param(bytes(100), id="zeros"),
    ],
)
def test_without_tls_nobody_gets_anything(fortress, sent):
    port = int(fortress.rita.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        plain.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in plain.recv(10_000)


def connect_tls(victim: Victim) -> ssl.SSLSocket:
    """A raw connection."""
    context = ssl.create_default_context(cafile=victim.rita._authority)
    port = int(victim.rita.url.rsplit(":", 1)[1])
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def send_much(victim: Victim, path: str, megabytes: int) -> tuple[int, bytes]:
    """Send a body until the site answers; how many bytes it took, and its answer."""
    chunk, sent = bytes(65_536), 0
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {megabytes * 2**20}\r\n\r\n"
    with connect_tls(victim) as tls:
        tls.sendall(head.encode())
        with contextlib.suppress(OSError):
            while sent < megabytes * 2**20:
                if answer := _said_by_now(tls):
                    return sent, answer
                tls.sendall(chunk)
                sent += len(chunk)
        return sent, tls.recv(10_000)


def _said_by_now(tls: ssl.SSLSocket) -> bytes:
    """What the site has said, nothing if it only renewed its session tickets."""
    if select.select([tls], [], [], 0)[0]:
        tls.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            return tls.recv(10_000)
        tls.settimeout(20)
    return b""


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/api/v2/api_call", BODY_LIMIT), ("/api/v2/login", 10_000)],
)
def test_a_body_over_the_limit_is_not_read_to_its_end(fortress, path, limit):
    before = fortress.peak_mb()
    sent, answer = send_much(fortress, path, megabytes=300)
    assert answer.startswith(b"HTTP/1.1 413")
    assert sent < limit + 30e6  # what lies in the buffers of two sockets
    assert fortress.peak_mb() - before < 50


def test_the_limit_of_a_body_is_where_the_configuration_says(fortress):
    with client(fortress.rita) as http:
        assert http.post("/api/v2/api_call", content=bytes(BODY_LIMIT)).status_code == 200
        refused = http.post("/api/v2/api_call", content=bytes(BODY_LIMIT + 1))
    assert refused.status_code == 413
    assert refused.text == "The call is larger than the 1 MB that this site reads."


# --- garbage ------------------------------------------------------------------------------------


def _mutate(body: bytes, rng: random.Random) -> bytes:
    """A body with a few bytes changed, cut out, doubled, or cut off."""
    changed = bytearray(body)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(changed)) if changed else 0
        match rng.randrange(5):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                changed[at : at + 8] = rng.choice([bytes(8), b"\xff" * 8, rng.randbytes(8)])
            case 2:
                del changed[at : at + rng.randint(1, 40)]
            case 3:
                changed[at:at] = changed[at : at + rng.randint(1, 200)]
            case 4:
                del changed[at:]
    return bytes(changed)


def _valid_calls(victim: Victim) -> list[Call]:
    return [
        Call("sitegate.describe"),
        Call("action.get_mock", {"uid": UID()}),
        Call(
            "code.request_code_execution",
            {"job": factories.DOUBLE_JOB, "terms": "{}", "follows": 0},
        ),
        Call(
            "code.call",
            {"uid": UID(), "round": 1, "attempt": 1, "weights": bytes(64), "config": "{}"},
        ),
    ]


@pytest.mark.parametrize("signed", [False, True], ids=["broken signature", "signed garbage"])
def test_changed_calls_are_refused_in_a_sentence_and_the_site_goes_on(fortress, signed):
    """Signed garbage is what only a researcher can send: it reaches the reading of the message."""
    rng, answers = random.Random(7), Counter()
    calls = _valid_calls(fortress)
    with client(fortress.rita) as http:
        for i in range(300):
            call = calls[i % len(calls)]
            if signed:
                body = sign(_mutate(call.message(fortress.rita), rng), fortress.rita._key)
            else:
                body = _mutate(call.body(fortress.rita), rng)
            response = http.post("/api/v2/api_call", content=body)
            assert response.status_code == 200, (i, body[:200])
            answers[read_answer(fortress.rita, response.content).refusal] += 1
    assert not any("could not answer" in refusal for refusal in answers), answers
    assert sum(answers.values()) == 300
    fortress.still_serves()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(95), id="shorter than an envelope"),
        pytest.param(bytes(96), id="an envelope without message"),
        pytest.param(bytes(97), id="zeros"),
        pytest.param(b"\xff" * 500, id="a key that is no point of the curve"),
        pytest.param(b'{"path": "user.get_all"}' * 10, id="JSON"),
        pytest.param(b"\x80\x04\x95" + bytes(200), id="a pickle"),
    ],
)
def test_garbage_is_refused_in_a_sentence(fortress, body):
    assert post(fortress.rita, body).refusal in (
        "This is not a call of the federation client.",
        "The signature of the call is not valid.",
    )


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0", id="one byte"),
        pytest.param(bytes(64), id="an empty segment"),
        pytest.param(b"\xff" * 64, id="as many segments as can be said"),
        pytest.param(b"\0\0\0\0\xff\xff\xff\x7f" + bytes(64), id="a segment of 16 GB"),
    ],
)
def test_signed_garbage_is_refused_in_a_sentence(fortress, message):
    assert post(fortress.rita, sign(message, fortress.rita._key)).refusal in (
        "This is not a call of the federation client.",
        "The call cannot be read.",
        "The call is for another site.",
    )


def test_a_small_message_that_grows_when_it_is_read_takes_no_memory(fortress):
    """0.9 MB on the wire, 120 times as much when each pointer is followed."""
    bomb = sign(many_bytes(900_000, 120), fortress.rita._key)
    assert len(bomb) < BODY_LIMIT
    before = fortress.peak_mb()
    assert post(fortress.rita, bomb).refusal == "The call cannot be read."
    assert fortress.peak_mb() - before < 50


def test_a_small_message_that_means_very_much_is_not_followed(fortress):
    """1,952 bytes that are 13^9 numbers to whom follows every pointer: hours."""
    bomb = sign(many_lists(13, 9), fortress.rita._key)
    assert post(fortress.rita, bomb).refusal == "The call cannot be read."


@pytest.mark.parametrize("depth", [20, 200, 2000])
def test_a_deeply_nested_message_does_not_end_the_site(fortress, depth):
    body, alive = sign(many_lists(1, depth), fortress.rita._key), False
    assert len(body) < BODY_LIMIT
    with contextlib.suppress(httpx.TransportError):
        assert post(fortress.rita, body).value is None
        alive = bool(describe(fortress).value)
    assert alive, f"the site ended with {fortress.trial._process.wait(10)}"


# --- logins -------------------------------------------------------------------------------------


def test_the_root_account_of_syft_and_the_owner_cannot_log_in(fortress):
    identity = load_identity(fortress.state)
    wrong = "the e-mail address or the password is wrong"
    with fortress.logged() as events:
        assert log_in(fortress.rita, "root@sitegate.example", identity.root_password) == (
            200,
            wrong,
        )
        owner = (fortress.trial.owner, fortress.trial.owner_password)
        assert log_in(fortress.rita, *owner) == (200, wrong)
    assert [e["event"] for e in events] == ["login refused"] * 2
    assert log_in(fortress.rita, "rita@uni.example", factories.PASSWORD) == (200, "")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"email": "rita@uni.example"}', id="no password"),
        pytest.param(b'{"email": 1, "password": 2}', id="numbers"),
        pytest.param(b'{"email": "a", "password": null}', id="null"),
        pytest.param(b"[" * 9000, id="nested"),
        pytest.param(b"\xff\xfe\x00", id="not UTF-8"),
        pytest.param(b"1" * 9000, id="a large number"),
    ],
)
def test_a_login_of_another_form_is_refused_in_a_sentence(fortress, body):
    with client(fortress.rita) as http:
        response = http.post("/api/v2/login", content=body)
    assert response.status_code == 200
    assert b"A login is a JSON object" in response.content


def test_a_password_that_is_no_text_is_refused_like_any_wrong_one(fortress):
    """JSON can say half of a surrogate pair, which no encoding can write."""
    for email in ("rita@uni.example", "nobody@uni.example"):
        assert log_in(fortress.rita, email, "\ud800")[0] == 200


# --- what ends the site, or locks everybody out: last -------------------------------------------


def test_after_five_wrong_passwords_even_the_right_one_has_to_wait(fortress):
    with ThreadPoolExecutor(20) as pool:
        said = Counter(
            pool.map(
                lambda i: log_in(fortress.rita, "mallory@uni.example", f"guess {i}")[1], range(20)
            )
        )
    guessed = said["the e-mail address or the password is wrong"]
    status, sentence = log_in(fortress.rita, "mallory@uni.example", factories.PASSWORD)
    assert status == 200
    assert sentence.startswith("too many failed tries; try again in")
    assert 1 <= guessed <= 5, f"{guessed} of 20 guesses made at the same time were looked at"


def _running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not asked for does not."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] != "Z"
    return False


def _with_descendants(path: str) -> dict[int, str]:
    """Processes that were started for the datasets below `path`, and all below them."""
    parents: dict[int, int] = {}
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (entry / "cmdline").read_bytes()
            if path.encode() in command:
                found[pid] = command.decode(errors="replace")[:80]
    grown = True
    while grown:
        below = {p for p, parent in parents.items() if parent in found and p not in found}
        found |= dict.fromkeys(below, "descendant")
        grown = bool(below)
    return {pid: name for pid, name in found.items() if _running(pid)}


def test_a_killed_site_leaves_no_process_behind_not_even_a_spinning_job(fortress):
    datasets = str(fortress.trial.site.datasets)
    fortress.still_serves()  # the cage is up
    idle = _with_descendants(datasets)
    study = fortress.submit(job("while True:\n    pass"))

    def spin() -> None:
        with contextlib.suppress(Exception):
            fortress.run(study)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    end = time.monotonic() + 5
    while len(busy := _with_descendants(datasets)) <= len(idle) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(busy) > len(idle) > 0  # the job's own process
    fortress.trial.kill()
    thread.join(10)
    end = time.monotonic() + 5
    while (left := [pid for pid in busy if _running(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []
    assert _with_descendants(datasets) == {}
    with pytest.raises(SiteError):
        fortress.trial.control.status()
