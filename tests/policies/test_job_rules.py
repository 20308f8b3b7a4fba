"""Honest jobs pass the example policy; each hostile text is refused by its rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import factories
from policies.document import load_policy
from policies.findings import Finding, Severity, refusals, verdict
from policies.job_rules import MAXIMUM_BYTES, RULES, check_job, job_sha256
from policies.sections import UNSAFE_CALLS, JobRule

ROOT = Path(__file__).parents[2]
RULE = load_policy(ROOT / "policies/university-hospital.yaml").job
HEADER = "# computes nothing\ndef train(data, weights, config):\n"


def check(text: str, rule: JobRule = RULE) -> list[Finding]:
    return check_job(text, "train", rule)


def body(*lines: str) -> str:
    """A job whose entry function has these lines."""
    return HEADER + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("file", "entry"), [("train_classifier.py", "train"), ("evaluate_classifier.py", "evaluate")]
)
@pytest.mark.parametrize(
    "policy", ["university-hospital", "community-hospital", "childrens-hospital"]
)
def test_honest_job_passes_the_example_policy(file: str, entry: str, policy: str) -> None:
    text = (ROOT / "notebooks/jobs" / file).read_text()
    found = check_job(text, entry, load_policy(ROOT / f"policies/{policy}.yaml").job)
    assert verdict(found) == "ok"
    assert [f.rule for f in found] == list(RULES)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["import math, numpy as np", "return np.load_like"], id="a longer name"),
        pytest.param(["from torch.nn import functional as F", "return F.relu"], id="below torch"),
        pytest.param(["import torch.nn as nn", "return nn.Linear"], id="dotted import"),
        pytest.param(["model.load_state_dict(weights)"], id="a method with load in its name"),
        pytest.param(["return data.open('x')"], id="a method called open"),
        pytest.param(["nn.Module.__init__(self)"], id="the one dunder that classes need"),
        pytest.param(["text = 'import os; eval(1)'"], id="words in a string"),
        pytest.param(["reopen = evaluate"], id="names that contain others"),
    ],
)
def test_ordinary_text_is_not_refused(lines: list[str]) -> None:
    assert refusals(check(body(*lines))) == []


HOSTILE = [
    # modules that are not allowed
    ("job.imports", "import", body("import os")),
    ("job.imports", "among allowed ones", body("import math, subprocess, numpy")),
    ("job.imports", "a submodule", body("import os.path")),
    ("job.imports", "from", body("from socket import socket")),
    ("job.imports", "renamed", body("import ctypes as numpy")),
    ("job.imports", "a name that starts alike", body("import numpy_financial")),
    ("job.imports", "a relative import", body("from . import secrets")),
    ("job.imports", "a relative module", body("from .numpy import load")),
    ("job.imports", "two levels up", body("from ..torch import nn")),
    ("job.imports", "in a branch that is never taken", body("if 0:", "    import os")),
    ("job.imports", "in a class", HEADER + "    return 1\nclass A:\n    import os\n"),
    ("job.imports", "pickle", body("import pickle")),
    ("job.imports", "of a builtin module", body("import builtins")),
    ("job.imports", "of importlib", body("from importlib import import_module")),
    # code from strings, files, internals
    ("job.calls", "eval", body("return eval('1')")),
    ("job.calls", "exec", body("exec('import os')")),
    ("job.calls", "compile", body("compile('1', '', 'eval')")),
    ("job.calls", "open", body("return open('/data/x').read()")),
    ("job.calls", "open under another name", body("read = open", "return read('/x')")),
    ("job.calls", "open as a default", body("f = lambda o=open: o('/x')")),
    ("job.calls", "open in an f-string", body("return f'{open(1)}'")),
    ("job.calls", "open as a decorator", body("@open", "def f(): pass")),
    ("job.calls", "getattr", body("return getattr(data, 'x')")),
    ("job.calls", "__import__", body("return __import__('os')")),
    ("job.calls", "__builtins__", body("return __builtins__['open']")),
    ("job.calls", "a dunder attribute", body("return ().__class__")),
    ("job.calls", "a chain of dunders", body("return [].__class__.__base__.__subclasses__()")),
    ("job.calls", "a dunder of a call", body("return f().__globals__")),
    ("job.calls", "a dunder by import", body("from numpy import __dict__ as d", "return d")),
    ("job.calls", "numpy.load", body("import numpy", "return numpy.load('/x')")),
    ("job.calls", "numpy as n", body("import numpy as n", "return n.load('/x')")),
    ("job.calls", "load as x", body("from numpy import load as x", "return x('/x')")),
    ("job.calls", "load unnamed", body("from numpy import load", "return load('/x')")),
    ("job.calls", "load kept for later", body("import numpy as n", "f = n.load", "f('/x')")),
    ("job.calls", "memmap", body("import numpy as np", "return np.memmap('/x')")),
    (
        "job.calls",
        "a module as name",
        body("import numpy.lib.format as f", "return f.open_memmap('/x')"),
    ),
    ("job.calls", "hub from torch", body("from torch import hub", "return hub.load('a', 'b')")),
    (
        "job.calls",
        "native code",
        body("from torch.utils.cpp_extension import load_inline as x", "x('')"),
    ),
    ("job.calls", "ctypes in numpy", body("import numpy as np", "return np.ctypeslib.load()")),
    (
        "job.calls",
        "a name that another function uses for a harmless module",
        body("import numpy as np", "return np.load('/x')")
        + "def helper():\n    import math as np\n    return np.pi\n",
    ),
    # the form that a reviewer can read
    ("job.form", "global", body("global x", "x = 1")),
    ("job.form", "nonlocal", body("x = 1", "def f():", "    nonlocal x", "    x = 2")),
    ("job.form", "a statement outside", body("return 1") + "x = train\n"),
    ("job.form", "a call outside", body("return 1") + "train(1, 2, 3)\n"),
    ("job.form", "an import outside", "import numpy\n" + body("return 1")),
    ("job.form", "a condition outside", body("return 1") + "if 1:\n    pass\n"),
    ("job.form", "another entry", body("return 1").replace("train", "other")),
    (
        "job.form",
        "a helper first",
        "def f():\n    return 1\n" + body("return 1"),
    ),
    ("job.form", "a class as entry", "class train:\n    pass\n"),
    ("job.form", "a coroutine", "async def train(data, weights, config):\n    return 1\n"),
    ("job.form", "other arguments", "def train(weights, data, config):\n    return 1\n"),
    ("job.form", "one argument more", "def train(data, weights, config, more=1):\n    return 1\n"),
    ("job.form", "unnamed arguments", "def train(data, weights, config, /):\n    return 1\n"),
    ("job.form", "no function", "# nothing\n"),
    ("job.form", "nothing", ""),
    ("job.form", "too many lines", body(*["x = 1"] * RULE.maximum_lines)),
    (
        "job.form",
        "too many lines, ended as on old Macs",
        body(*["x = 1"] * RULE.maximum_lines).replace("\n", "\r"),
    ),
    # not a text of Python 3.11
    ("job.syntax", "Python 2", body("print 'x'")),
    ("job.syntax", "prose", "please run my job"),
    ("job.syntax", "a null byte", body("x = '\0'")),
    ("job.syntax", "a null byte at the end", body("return 1") + "\0"),
    ("job.syntax", "a lone surrogate", body("x = '\udc80'")),
    ("job.syntax", "a lone surrogate in a comment", body("return 1  # \ud800")),
    ("job.syntax", "deep brackets", body("return " + "(" * 5000 + ")" * 5000)),
    ("job.syntax", "a long sum", body("return " + "1+" * 50_000 + "1")),
    ("job.syntax", "a long sign", body("return " + "-" * 50_000 + "1")),
    ("job.syntax", "deep blocks", body(*("  " * k + "if 1:" for k in range(200)))),
    ("job.syntax", "too many attributes", body("return a" + ".b" * 20_000)),
    ("job.syntax", "huge", body("return 1") + "#" * MAXIMUM_BYTES),
    ("job.syntax", "huge in bytes", "#" + "é" * (MAXIMUM_BYTES // 2 + 1)),
]


@pytest.mark.parametrize(
    ("rule", "text"), [pytest.param(r, t, id=f"{r}: {name}") for r, name, t in HOSTILE]
)
def test_hostile_text_is_refused(rule: str, text: str) -> None:
    refused = refusals(check(text))
    assert {finding.rule for finding in refused} == {rule}


@pytest.mark.parametrize("length", [900, 1200, 2900])
@pytest.mark.parametrize("link", [".b", ".b()", "[0]", "()"])
def test_long_chain_is_judged_without_a_crash(length: int, link: str) -> None:
    found = check(body("return a" + link * length))
    assert {f.rule for f in refusals(found)} <= {"job.syntax", "job.calls"}


@given(st.text(max_size=300))
def test_any_text_gets_a_verdict(text: str) -> None:
    assert check(text)
    assert check(body(*text.split("\n")))


@pytest.mark.parametrize("call", UNSAFE_CALLS)
def test_every_unsafe_call_is_refused_also_below_it(call: str) -> None:
    root = call.split(".")[0]
    imports = [f"import {root}"] if "." in call else []
    for used in (call, f"{call}.below"):
        refused = refusals(check(body(*imports, f"return {used}")))
        assert f"use of `{used}`" in {f.seen for f in refused}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            body("import os"),
            "job.imports (line 3): import of `os`; allowed: math, numpy, torch, "
            "torchvision.models. To do: use the allowed modules, or ask the hospital.",
        ),
        (
            body("import numpy as n", "return n.load('/x')"),
            "job.calls (line 4): use of `numpy.load`; allowed: anything but `numpy.load`. "
            "To do: return arrays; files and processes are not available.",
        ),
        (
            body("return ().__class__"),
            "job.calls (line 3): `__class__`; allowed: no access to Python's internals. "
            "To do: write it without.",
        ),
        (
            "def f():\n    return 1\n",
            "job.form (line 1): the first statement is not the entry function; allowed: "
            "`def train(data, weights, config)` first, helpers after it. "
            "To do: move imports into the functions.",
        ),
        (
            body("return 1") + "x = 1\n",
            "job.form (line 4): a statement outside the functions; allowed: functions and classes "
            "only. To do: move it into a function.",
        ),
        (
            body("print 1"),
            "job.syntax (line 3): the text is not Python; allowed: a Python 3.11 module. "
            "To do: run it once before submitting.",
        ),
        (
            "#" * (MAXIMUM_BYTES + 1),
            "job.syntax: 200,001 characters; allowed: at most 200,000. "
            "To do: send the job alone, without data.",
        ),
    ],
)
def test_refusal_says_what_was_seen_what_is_allowed_and_what_to_do(
    text: str, sentence: str
) -> None:
    assert [finding.sentence for finding in refusals(check(text))] == [sentence]


def test_name_in_wide_letters_is_refused_for_its_letters_and_its_meaning() -> None:
    refused = refusals(check(body("return ｏｐｅｎ('/x')")))
    assert {f.rule for f in refused} == {"job.calls", "job.characters"}


def test_all_reasons_are_told_at_once() -> None:
    refused = refusals(check("import os\n" + body("eval('1')", "global x") + "x = 1\n"))
    assert {f.rule for f in refused} == {"job.form", "job.imports", "job.calls"}


@pytest.mark.parametrize(("lines", "kept"), [(10, True), (11, False)])
def test_number_of_lines_is_limited(lines: int, kept: bool) -> None:
    text = body(*["x = 1"] * (lines - 2)).rstrip("\n")
    assert (refusals(check(text, JobRule(maximum_lines=10))) == []) is kept


@pytest.mark.parametrize(("size", "kept"), [(MAXIMUM_BYTES, True), (MAXIMUM_BYTES + 1, False)])
def test_size_is_limited(size: int, kept: bool) -> None:
    text = body("return 1")
    text += "#" * (size - len(text))
    assert (refusals(check(text)) == []) is kept


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (body("print(1)"), "`print`"),
        (body("raise ValueError(data)"), "`raise`"),
        (body("return 1").removeprefix("# computes nothing\n"), "no comment at the top"),
    ],
)
def test_what_a_person_should_look_at_is_marked(text: str, seen: str) -> None:
    found = check(text)
    assert [f.seen for f in found if f.severity is Severity.READ] == [seen]
    assert refusals(found) == []


def test_raise_of_the_same_error_again_is_ordinary() -> None:
    assert verdict(check(body("try:", "    f()", "except ValueError:", "    raise"))) == "ok"


def test_imports_follow_the_policy() -> None:
    only_math = factories.policy(job={"imports": ["math"]}).job
    assert refusals(check(body("import math"), only_math)) == []
    refused = refusals(check(body("import numpy"), only_math))
    assert [f.allowed for f in refused] == ["math"]


def test_digest_is_of_the_bytes() -> None:
    text = body("return 1")
    assert job_sha256(text) != job_sha256(text.replace("\n", "\r\n"))
    assert job_sha256(text) != job_sha256(text + "\n")
    assert job_sha256("é") == ("4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c")
