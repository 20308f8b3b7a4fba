"""Form, literals, names, state and the second opinion: both sides of each threshold."""

from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.findings import Finding, Severity
from policies.job.text import MAXIMUM_NESTING, MAXIMUM_PER_LINE
from policies.job_rules import RULES, check_job
from policies.sections import JobRule

HEAD = "# computes nothing\ndef train(data, weights, config):\n"
BLOB = base64.b64encode(random.Random(0).randbytes(90)).decode()


def body(*lines: str) -> str:
    return HEAD + "".join(f"    {line}\n" for line in (*lines, "return weights"))


def seen(text: str, rule: str) -> list[tuple[Severity, str]]:
    """What a rule says about a text, the kept rule left out."""
    found = check_job(text, "train", JobRule())
    return [(f.severity, f.seen) for f in found if f.rule == rule and f.severity.rank]


@pytest.mark.parametrize(
    ("line", "severity", "words"),
    [
        ("x = " + "1" * 24, None, ""),
        ("x = " + "1" * 25, Severity.WARN, "a number of more than 24 digits"),
        ("x = b'" + "a" * 16 + "'", None, ""),
        ("x = b'" + "a" * 17 + "'", Severity.WARN, "17 bytes in the text"),
        (f"x = [{'1, ' * 64}]", None, ""),
        (f"x = [{'1, ' * 65}]", Severity.WARN, "65 values written out"),
        (f"x = '{BLOB}'", Severity.WARN, "a text of 120 characters that looks encoded"),
        (f"x = 1  # {BLOB}", Severity.WARN, "encoded data in a comment"),
        ("x = '" + "00ff" * 20 + "'", Severity.WARN, "a text of 80 characters that looks encoded"),
        ("x = '" + "word " * 60 + "'", None, ""),
        ("x = 'layer1.0.downsample.1.running_mean'", None, ""),
        ("x = 1  # " + "-" * 90, None, ""),
        ("x = '{:.3f} of {}'", None, ""),
        ("x = '{0.a}'", Severity.WARN, "a format that reads attributes or items"),
        ("x = '{0[a]}'", Severity.WARN, "a format that reads attributes or items"),
        ("x = 'import os'", Severity.READ, "code inside a string"),
    ],
)  # fmt: skip
def test_literals(line: str, severity: Severity | None, words: str) -> None:
    expected = [] if severity is None else [(severity, words)]
    assert seen(body(line), "job.literals") == expected


@pytest.mark.parametrize(
    ("text", "severity", "words"),
    [
        (body("x = 1  # " + "a " * 63), None, ""),
        (body("x = 1  # " + "a " * 70), Severity.READ, "a line of 153 characters"),
        (body("x = 1  # " + "a " * 200), Severity.WARN, "a line of 413 characters"),
        (body("x = 1" + " " * 39 + "# y"), None, ""),
        (body("x = 1" + " " * 40 + "# y"), Severity.WARN, "a wide gap within a line"),
        (body("x = 1; y = 2"), Severity.READ, "several statements on one line"),
        (body("x = 'a; b'"), None, ""),
        (body("while True:", "    break", "    x = 1"), Severity.WARN,
         "code that is never reached"),
        (body("while True:", "    x = 1", "    break"), None, ""),
        (body("return 1"), Severity.WARN, "code that is never reached"),
        (body() + "def f(x=1, y=None):\n    return x\n", None, ""),
        (body() + "def f(x=train(1, 2, 3)):\n    return x\n", Severity.WARN,
         "code that runs when the text is loaded"),
        (body() + "@train\ndef f(x):\n    return x\n", Severity.WARN,
         "code that runs when the text is loaded"),
        (body() + "class A:\n    size = 3\n", None, ""),
        (body() + "class A:\n    size = train(1, 2, 3)\n", Severity.WARN,
         "code that runs when the text is loaded"),
        (body() + "def train(data, weights, config):\n    return 2\n", Severity.REFUSE,
         "a second `train`, which runs instead of the first"),
    ],
)  # fmt: skip
def test_form(text: str, severity: Severity | None, words: str) -> None:
    expected = [] if severity is None else [(severity, words)]
    assert seen(text, "job.form") == expected


@pytest.mark.parametrize(
    ("lines", "severity", "words"),
    [
        (["import numpy as np", "f = np", "f.load('/x')"], Severity.REFUSE,
         "use of `numpy.load`"),
        (["import numpy as np", "f, g = np, 1", "f.load('/x')"], Severity.REFUSE,
         "use of `numpy.load`"),
        (["import numpy as np", "for f in (np,): f.load('/x')"], Severity.REFUSE,
         "use of `numpy.load`"),
        (["import numpy as np", "(lambda f=np: f.load('/x'))()"], Severity.REFUSE,
         "use of `numpy.load`"),
        (["import torch", "torch.serialization.os.system('x')"], Severity.REFUSE,
         "use of `torch.serialization.os.system`"),
        (["import numpy as np", "np.core.multiarray.fromfile('/x')"], Severity.REFUSE,
         "use of `numpy.core.multiarray.fromfile`"),
        (["import numpy as np", "f([np])"], Severity.WARN, "the module `numpy` as a value"),
        (["from numpy import lib", "f(lib)"], Severity.WARN, "the module `numpy.lib` as a value"),
        (["from torch import nn", "f(nn.Linear)"], None, ""),
        (["from torch.nn import Linear", "f(Linear)"], None, ""),
        (["data._directory"], Severity.WARN, "`._directory`, which is private"),
        (["self._cache = 1"], None, ""),
        (["x.tobytes()"], Severity.WARN, "`.tobytes`"),
        (["x.f_globals"], Severity.REFUSE, "`.f_globals`"),
        (["f(num_workers=0)"], None, ""),
        (["f(num_workers=2)"], Severity.READ, "`num_workers`"),
        (["class A(metaclass=B): pass"], Severity.WARN, "a metaclass"),
        (["class A:", "    def __len__(self): return 1"], None, ""),
        (["class A:", "    def __del__(self): return 1"], Severity.WARN,
         "a definition of `__del__`"),
    ],
)  # fmt: skip
def test_calls(lines: list[str], severity: Severity | None, words: str) -> None:
    found = seen(body(*lines), "job.calls")
    assert ((severity, words) in found) if severity else (found == [])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["import torch", "torch.relu = 1"], "a change of the module `torch`"),
        (["from torch import nn", "nn.functional.relu = 1"], "a change of the module `torch.nn`"),
        (["train.kept = 1"], "a change of the function or class `train`"),
        (["import torch", "torch.backends['x'] = 1"], "a change of the module `torch`"),
        (["import torch", "del torch.relu"], "a change of the module `torch`"),
        (["model.relu = 1"], ""),
        (["weights['w'] = 1"], ""),
    ],
)
def test_state(lines: list[str], words: str) -> None:
    assert seen(body(*lines), "job.state") == ([(Severity.WARN, words)] if words else [])


def second(text: str) -> list[Finding]:
    found = check_job(text, "train", JobRule(imports=("math", "hashlib", "random")))
    return [f for f in found if f.rule == "job.second_opinion" and f.severity.rank]


def test_second_opinion_names_its_test_and_line() -> None:
    (finding,) = second(body("import random", "", "x = random.random()"))
    assert (finding.line, finding.severity) == (5, Severity.READ)
    assert finding.seen.startswith("B311: ")


def test_second_opinion_warns_of_what_bandit_finds_serious() -> None:
    (finding,) = second(body("import hashlib", "x = hashlib.md5(b'')"))
    assert (finding.line, finding.severity) == (4, Severity.WARN)
    assert finding.seen.startswith("B324: ")


def test_second_opinion_repeats_nothing_and_cannot_be_silenced() -> None:
    assert second(body("eval('1')")) == []
    assert len(second(body("import random", "x = random.random()  # nosec"))) == 1


@pytest.mark.parametrize(("depth", "refused"), [(MAXIMUM_NESTING - 8, False), (80, True)])
def test_nesting_is_limited(depth: int, refused: bool) -> None:
    text = body("x = " + "-" * depth + "y")
    assert bool(seen(text, "job.syntax")) is refused


@pytest.mark.parametrize(("names", "refused"), [(MAXIMUM_PER_LINE * 5 - 100, False), (2000, True)])
def test_dense_text_is_refused(names: int, refused: bool) -> None:
    text = body("x = [" + "y, " * (names // 2) + "]")
    found = check_job(text, "train", JobRule(maximum_lines=10))
    assert ("job.syntax" in {f.rule for f in found}) is refused


WORDS = """
images labels data weights x = += [ ] ( ) : , . * ** for in if else lambda yield await return not
None 0 1 'a' {} {x:x} _ self def class with as try: except: match case @ -> := import from numpy np
.T [0] [:] [*x] data.arrays('train') ;
"""


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS.split()), max_size=25))
def test_any_words_get_a_verdict_from_every_rule(line: list[str]) -> None:
    found = check_job(
        body("images, labels = data.arrays('train')", " ".join(line)), "train", JobRule()
    )
    assert {f.rule for f in found} in ({"job.syntax"}, set(RULES))
