"""What a researcher can read: no pixel, no path, no other researcher, whatever a job tries."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import factories
from datasites.catalogue import handle
from policies.arrays import pack
from tests.attacks.attacker import UID, Call, attack, client, read_answer, serialise
from tests.attacks.jobs import HONEST, job
from tests.attacks.victim import Victim

PIXELS = factories.splits()["train"][0][0, 0, :6]
SECRET = "-".join(str(p) for p in PIXELS)
"""What the jobs below try to tell: the first pixels of the first image."""

OPENING = """
import numpy as np
images, labels = data.arrays("train")
pixels = [int(p) for p in images[0, 0, :6]]
secret = "-".join(str(p) for p in pixels)
update = {"weights": dict(weights), "metrics": {"loss": 0.5}, "examples": 120}
"""


def is_clean(text: str) -> bool:
    """Whether a text that a researcher reads has no pixel, no path and nothing of Python's."""
    text = re.sub(r"R-\d+/\d+/\d+", "", text)  # a run id
    numbers = set(re.findall(r"\d+", text))
    return not (
        SECRET in text
        or {str(p) for p in PIXELS} <= numbers
        or re.search(r"/|\\|Traceback|\.py\b|pytest|line \d+, in|0x[0-9a-f]{4}|<class|syft\.", text)
    )


def refusal(victim: Victim, body: str, **changes: Any) -> str:
    """All that a researcher is told when a run is refused."""
    study = victim.submit(job(OPENING + body), **changes)
    answer = attack(
        victim.rita,
        "code.call",
        uid=UID.from_string(study._codes["st-marys"]),
        round=1,
        attempt=1,
        weights=pack(factories.weights()),
        config='{"rate":0.5}',
    )
    assert answer.value is None
    return json.dumps([f.as_dict() for f in answer.findings], ensure_ascii=False)


def test_the_secret_is_what_the_job_sees(victim):
    """The twin of all below: what a contract declares does leave, here the same pixels."""
    body = 'update["weights"]["w"] = np.array(pixels[:4], np.float32)\nreturn update'
    weights = victim.run(victim.submit(job(OPENING + body))).weights["w"]
    np.testing.assert_array_equal(weights, PIXELS[:4])
    assert not is_clean(f"the pixels are {SECRET}")
    assert not is_clean(f"the pixels are {PIXELS.tolist()}")
    assert not is_clean("no file /tmp/x")


TELLING = {
    # what is raised
    "the text of an error": "raise ValueError(secret)",
    "a missing key": "return {}[secret]",
    "a shape that does not fit": "return images.reshape(pixels)",
    "the code of an exit": "raise SystemExit(secret)",
    "a class made of data": "class Pixels(Exception):\n    pass\nPixels.name = secret\n"
    "raise Pixels(secret)",
    "a chain of errors": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n"
    "    raise KeyError(secret) from e",
    "an interrupt": "raise KeyboardInterrupt(secret)",
    "a syntax error": "raise SyntaxError(secret)",
    # what is said
    "print": "print(secret, flush=True)\nreturn {}",
    "a number that cannot be read": "np.float32(secret)",
    # names
    "the name of a metric": 'update["metrics"][secret] = 1.0\nreturn update',
    "the name of an array": 'update["weights"][secret] = weights["w"]\nreturn update',
    "a name that is a path": 'update["weights"]["/etc/" + secret] = weights["w"]\nreturn update',
    "the name of a table": 'update["counts"] = {secret: np.zeros(2, int)}\nreturn update',
    "the name of a key": "update[secret] = 1\nreturn update",
    # values that do not fit
    "a metric that is a text": 'update["metrics"]["loss"] = secret\nreturn update',
    "images that are a text": 'update["examples"] = secret\nreturn update',
    "the shape of an array": 'update["weights"]["w"] = np.zeros(pixels[:2])\nreturn update',
    "a list for weights": 'update["weights"] = pixels\nreturn update',
    "the images": "return images",
}


@pytest.mark.parametrize("how", TELLING)
def test_a_refusal_tells_nothing_of_the_images_through(victim, how):
    told = refusal(victim, TELLING[how])
    assert is_clean(told), told


FORGED = """
head = '{"error": "' + secret + '"}'
frame = chr(0) * 7 + chr(len(head)) + head + chr(0) * 8
"""
CRASH = "np.lib.stride_tricks.as_strided(np.zeros(1), (10**9,), (4096,)).sum()\nreturn update"


def test_the_kind_of_a_failure_is_not_the_jobs_to_choose_with_numpy_alone(victim):
    """`numpy.DataSource` opens files; the run's answer goes through descriptor 3."""
    body = FORGED + (
        'pipe = np.DataSource(None).open("/proc/self/fd/3", "w", encoding="latin-1")\n'
        "pipe.write(frame)\npipe.flush()\n"
    )
    told = ""
    try:
        told = refusal(victim, body + CRASH)
    except Exception as error:  # the policy may refuse the text, and nothing runs
        assert "job.calls" in str(error)  # noqa: PT017
    assert is_clean(told), told


def test_the_kind_of_a_failure_is_not_the_jobs_to_choose(open_house):
    body = FORGED + 'import os\nos.write(3, frame.encode("latin-1"))\nos.kill(os.getpid(), 9)'
    told = refusal(open_house, body)
    assert is_clean(told), told


def test_a_forged_answer_tells_nothing_in_its_numbers(open_house):
    """The worker counts undeclared keys; a job can send a count of its own, of any length."""
    body = """
    import os, json, struct
    number = int("".join(f"{p:03d}" for p in pixels))
    head = json.dumps({"undeclared": number, "metrics": {"loss": 0.5}, "examples": 120}).encode()
    about = {"weights/w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    about = json.dumps(about).encode()
    body = struct.pack("<Q", len(about)) + about + bytes(16)
    os.write(3, struct.pack(">Q", len(head)) + head + struct.pack(">Q", len(body)) + body)
    os.kill(os.getpid(), 9)
    """
    told = refusal(open_house, "\n".join(line[4:] for line in body.splitlines()))
    assert "".join(f"{p:03d}" for p in PIXELS).lstrip("0") not in told, told


def test_the_name_of_an_error_class_is_told_only_if_it_is_pythons_own(open_house):
    body = 'raise type("Pixels_" + "_".join(str(p) for p in pixels), (ValueError,), {})()'
    told = refusal(open_house, body)
    assert "ended with ValueError" in told
    assert "Pixels_" not in told
    assert is_clean(told)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            'update.update({str(i): 0 for i in range(CHOSEN)})\nreturn update', id="extra keys"
        ),
        pytest.param(
            'update["weights"].update({str(i): weights["w"][:0] for i in range(CHOSEN)})\n'
            "return update",
            id="extra arrays",
        ),
        pytest.param(
            'update["weights"]["w"] = np.full(4, 2.0 ** CHOSEN, np.float32)\nreturn update',
            id="the size of the change",
        ),
        pytest.param(
            'update["examples"] = CHOSEN // 8\nreturn update', id="the number of images"
        ),
        pytest.param(
            'update["metrics"].update({str(i): 0.0 for i in range(CHOSEN)})\nreturn update',
            id="extra metrics",
        ),
        pytest.param(
            'update["weights"]["w"] = np.zeros(CHOSEN, np.float32)\nreturn update', id="the shape"
        ),
    ],
)  # fmt: skip
def test_a_refusal_is_the_same_whatever_number_the_run_chose(victim, body):
    """`policies.update_rules`: it says nothing that the run could have chosen freely."""
    told = {
        re.sub(r"R-\d+/\d+/\d+", "", refusal(victim, body.replace("CHOSEN", str(number))))
        for number in (20, 60)
    }
    assert len(told) == 1, told


# --- what the site says by itself ---------------------------------------------------------------

TEXTS = {
    "nothing": "",
    "no function": "x = 1",
    "a class": "# x\nclass A:\n    pass\n",
    "a lambda": "train = lambda data, weights, config: 1",
    "not Python": "def train(data, weights, config:\n",
    "a null byte": '# x\ndef train(data, weights, config):\n    return "\0"\n',
    "deep arithmetic": f"# x\ndef train(data, weights, config):\n    return {'-' * 7000}1\n",
    "deep brackets": f"# x\ndef train(data, weights, config):\n    return {'(' * 3000}\n",
    "a long chain": f"# x\ndef train(data, weights, config):\n    return data{'.a' * 950}\n",
    "other indents": "# x\ndef train(data, weights, config):\n\treturn 1\n        x\n",
    "a global variable": "# x\ndef train(data, weights, config):\n    global a\n    a = 1\n",
    "async": "# x\nasync def train(data, weights, config):\n    return 1\n",
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_text_that_is_no_job_is_refused_by_a_rule_and_blocks_nobody(victim, what):
    terms = victim.submit(job(HONEST)).wanted.at(
        victim.mallory.dataset("chest-xray").version, "train"
    )
    answer = attack(
        victim.mallory,
        "code.request_code_execution",
        job=TEXTS[what],
        terms=terms.model_dump_json(),
        follows=0,
    )
    taken = victim.sql("SELECT id FROM requests WHERE text = ?", TEXTS[what])
    for (number,) in taken:
        assert "refused" in victim.trial.control.request(number)["verdict"]
    assert taken or answer.rules == ["job.syntax"], answer.refusal
    assert is_clean(" ".join(f"{f.seen} {f.allowed}" for f in answer.findings))


@pytest.mark.parametrize(
    ("job_text", "terms"),
    [
        pytest.param(factories.DOUBLE_JOB, "", id="no terms"),
        pytest.param(factories.DOUBLE_JOB, "{}", id="empty terms"),
        pytest.param(factories.DOUBLE_JOB, "[" * 5000, id="nested terms"),
        pytest.param(factories.DOUBLE_JOB, '{"runs": ' + "9" * 5000 + "}", id="a long number"),
        pytest.param(factories.DOUBLE_JOB, "x" * 900_000, id="long terms"),
        pytest.param("x" * 300_000, "{}", id="a long text"),
    ],
)
def test_terms_that_do_not_fit_are_refused_by_a_rule(victim, job_text, terms):
    path = "code.request_code_execution"
    answer = attack(victim.rita, path, job=job_text, terms=terms, follows=0)
    assert answer.rules
    assert set(answer.rules) <= {"request.terms", "request.size"}
    assert is_clean(" ".join(f.sentence for f in answer.findings))


def test_terms_for_a_dataset_that_is_not_there_say_nothing_about_others(victim):
    terms = factories.terms(version="1" * 64)
    answer = attack(
        victim.rita,
        "code.request_code_execution",
        job=factories.DOUBLE_JOB,
        terms=terms.model_dump_json(),
        follows=0,
    )
    assert answer.rules == ["dataset.version"]
    assert victim.hospital.version[:12] not in answer.refusal


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/nowhere"),
        ("GET", "/api/v2/../../etc/passwd"),
        ("GET", "/api/v2/%2e%2e/%2e%2e/etc/passwd"),
        ("GET", "/api/v2/api_call"),
        ("PUT", "/api/v2/login"),
        ("DELETE", "/api/v2/metadata"),
        ("TRACE", "/api/v2/"),
    ],
)
def test_pages_that_are_not_there_say_nothing(victim, method, path):
    with client(victim.rita) as http:
        response = http.request(method, path)
    assert response.status_code in (404, 405)
    assert response.json()["detail"] in ("Not Found", "Method Not Allowed")
    assert "server" not in response.headers


def test_what_anyone_may_read_is_a_name_and_two_ids(victim):
    with client(victim.rita) as http:
        metadata, health = http.get("/api/v2/metadata").json(), http.get("/api/v2/").json()
    assert set(metadata) == {"name", "server_uid", "verify_key"}
    assert health == {"status": "ok", "site": "st-marys"}


# --- the private side ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("action.get", "action.get_pointer", "action.exists", "action.set", "action.delete"),
        *("action.is_resolved", "action.np_array", "action.has_storage_permission"),
        *("blob_storage.read", "dataset.get_by_id", "dataset.get_assets_by_action_id"),
        *("dataset.get_by_action_id", "code.get_by_id", "code.get_all", "sync.get_permissions"),
        *("api.view", "twin_api.call", "migration", "data_subject.get_all", "code.view"),
    ],
)
def test_no_call_reads_the_private_side(victim, path):
    asset = UID.from_string(victim.rita.dataset("chest-xray").asset)
    for arguments in ({"uid": asset}, {"uid": asset, "twin_mode": 1}, {}):
        answer = attack(victim.rita, path, **arguments)
        assert answer.value is None
        assert answer.refusal == f"`{path}` is not something a researcher may call."


def test_what_syft_answers_holds_the_mock_and_never_the_handle(victim):
    """Not even the handle, which names a dataset version, comes back; much less a pixel."""
    held = handle("chest-xray", victim.hospital.version)["version"].encode()
    assert held in serialise(handle("chest-xray", victim.hospital.version))
    asset = UID.from_string(victim.rita.dataset("chest-xray").asset)
    for call in (Call("action.get_mock", {"uid": asset}), Call("dataset.get_all")):
        with client(victim.rita) as http:
            content = http.post("/api/v2/api_call", content=call.body(victim.rita)).content
        answer = read_answer(victim.rita, content)
        assert answer.value is not None
        assert held not in content
    private = factories.splits()["train"][0]
    mock = victim.rita.mock("chest-xray")["images"]
    assert mock.dtype == private.dtype
    assert not any((m == p).all() for m in mock for p in private)


@pytest.mark.parametrize("of", ["random", "code", "request"])
def test_get_mock_of_anything_but_a_dataset_gives_nothing(victim, of):
    study = victim.submit(factories.DOUBLE_JOB)
    victim.run(study)
    query = "SELECT syft_code, syft_request FROM requests ORDER BY id DESC LIMIT 1"
    ((code, request),) = victim.sql(query)
    uid = {"random": UID(), "code": UID.from_string(code), "request": UID.from_string(request)}
    answer = attack(victim.rita, "action.get_mock", uid=uid[of])
    assert answer.value is None
    assert is_clean(answer.refusal)


def test_runs_leave_nothing_of_themselves_in_syft(victim):
    objects = "SELECT count(*) FROM ActionObject"
    before = victim.sql(objects, file="datasite.db")
    study = victim.submit(factories.DOUBLE_JOB)
    victim.run(study)
    assert victim.sql(objects, file="datasite.db") == before


# --- other researchers --------------------------------------------------------------------------


def test_another_researchers_requests_are_not_listed(victim):
    study = victim.submit(factories.DOUBLE_JOB)
    victim.run(study)
    number = study.requests["st-marys"]
    own = json.loads(attack(victim.rita, "sitegate.requests").value)
    others = attack(victim.mallory, "sitegate.requests").value
    assert number in [r["request"] for r in own]
    assert number not in [r["request"] for r in json.loads(others)]
    assert study._codes["st-marys"] not in others
    assert "rita" not in others


@pytest.mark.parametrize("round_number", [1, 2], ids=["a run that was made", "a new run"])
def test_another_researchers_code_cannot_be_called(victim, round_number):
    """Neither run nor asked for what it released: the same id, the same arguments."""
    study = victim.submit(factories.DOUBLE_JOB)
    victim.run(study)
    kwargs = {
        "uid": UID.from_string(study._codes["st-marys"]),
        "round": round_number,
        "attempt": 1,
        "weights": pack(factories.weights()),
        "config": '{"rate":0.5}',
    }
    with victim.logged() as events:
        answer = attack(victim.mallory, "code.call", **kwargs)
    assert answer.value is None
    assert is_clean(answer.refusal)
    assert "rita" not in answer.refusal
    charged = "SELECT count(*) FROM runs WHERE request = ?"
    assert victim.sql(charged, study.requests["st-marys"]) == [(1,)]
    assert attack(victim.rita, "code.call", **kwargs).arrays
    assert [(e["event"], e["actor"]) for e in events] == [("call refused", "mallory@uni.example")]


def test_a_call_that_syft_refuses_is_in_the_log_too(victim):
    with victim.logged() as events:
        assert attack(victim.mallory, "action.get_mock", uid=UID()).value is None
    assert [e["event"] for e in events] == ["call refused"]


def test_two_requests_at_once_are_each_answered_with_their_own_number(victim):
    """Whoever gets the number of the other one would call code that was not approved for it."""
    terms = victim.submit(factories.DOUBLE_JOB).wanted.at(
        victim.rita.dataset("chest-xray").version, "train"
    )

    def ask(i: int) -> int:
        answer = attack(
            victim.mallory,
            "code.request_code_execution",
            job=f"{factories.DOUBLE_JOB}# at once {i}\n",
            terms=terms.model_dump_json(),
            follows=0,
        )
        return int(json.loads(answer.value)["request"])

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(ask, range(8)))
    texts = dict(victim.sql("SELECT id, text FROM requests"))
    assert [texts[n].splitlines()[-1] for n in numbers] == [f"# at once {i}" for i in range(8)]
