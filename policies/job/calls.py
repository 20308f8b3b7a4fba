"""Names that a job may not use: files, processes, network, native code, Python's internals."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from policies.findings import Finding, Severity, refuse
from policies.job.text import JobText, shown

RULE = "job.calls"
UNSAFE_METHODS = frozenset({"tofile", "dump", "dumps", "ctypes", "setflags"})
"""Attributes of arrays that write files or reach raw memory, whatever the array is called."""
MEMORY = frozenset({
    "data_ptr", "filename", "from_dlpack", "frombuffer", "fromstring", "from_file", "memmap",
    "_mmap", "storage", "tobytes", "tostring", "to_dlpack", "typed_storage", "untyped_storage",
    "as_strided", "packbits", "unpackbits", "share_memory_", "getbuffer", "newbuffer",
})  # fmt: skip
"""Attributes that turn arrays into bytes or bytes into arrays, or show memory as it is."""
SYSTEM = frozenset({
    "os", "sys", "builtins", "subprocess", "importlib", "inspect", "pickle", "cPickle", "marshal",
    "shutil", "socket", "ctypes", "threading", "multiprocessing", "concurrent", "asyncio",
    "tempfile", "pathlib", "mmap", "gc", "pdb", "runpy", "pkgutil", "posix", "nt", "urllib",
    "requests", "http", "ssl", "zipfile", "tarfile", "atexit", "platform", "getpass", "traceback",
    "_C", "warnings", "logging",
})  # fmt: skip
"""Modules of Python that others lead to: `torch.serialization.os`."""
REFLECTION = frozenset({
    "cr_frame", "f_back", "f_builtins", "f_code", "f_globals", "f_locals", "gi_code", "gi_frame",
    "tb_frame", "tb_next", "func_globals", "co_code", "mro", "ag_frame",
})  # fmt: skip
"""Attributes that lead from a value to the code that made it."""
DOUBTFUL = {
    "dir": "names of an object at run time",
    "exit": "an end of the program",
    "quit": "an end of the program",
    "help": "an interactive shell",
    "id": "an address in memory",
    "object": "Python's internals",
}
METHODS = frozenset({
    "__call__", "__enter__", "__exit__", "__getitem__", "__init__", "__iter__", "__len__",
    "__next__", "__repr__",
})  # fmt: skip
"""Special methods that a model or a dataset may define; others run when nobody calls them."""
PARALLEL = frozenset({"num_workers", "n_jobs", "multiprocessing_context", "worker_init_fn"})


def is_below(name: str, root: str) -> bool:
    """Whether a dotted name is `root` or below it."""
    return name == root or name.startswith(root + ".")


def allowed(job: JobText) -> str:
    """What the rule lets pass."""
    return f"none of {len(job.rule.forbidden_calls)} names"


def check(job: JobText) -> Iterator[Finding]:
    """Findings about names, in the order of the tree."""
    if job.names.tangled:
        yield _warn(
            "a name that stands for very many things", "a name for one thing", _WITHOUT, None
        )
    used_as_values = set(_values(job))
    inner = {node.value for node in job.nodes if isinstance(node, ast.Attribute)}
    for node in job.nodes:
        for name in sorted(job.names.of(node)):
            yield from _check_name(name, node, job, whole=node not in inner)
        if isinstance(node, ast.Name) and node in used_as_values:
            yield from _check_value(node, job)
        elif isinstance(node, ast.keyword) and node.arg in PARALLEL:
            yield from _check_workers(node)
        elif isinstance(node, ast.MatchClass):
            yield from _check_pattern(node)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from _check_definition(node)


def _check_name(name: str, node: ast.AST, job: JobText, whole: bool) -> Iterator[Finding]:
    line = getattr(node, "lineno", None)
    first, last = name.split(".", 1)[0], name.rsplit(".", 1)[-1]
    if last == "__init__":
        return
    if last.startswith("__") and last.endswith("__"):
        yield refuse(RULE, f"`{shown(last)}`", "no access to Python's internals", _WITHOUT, line)
    elif "." in name and last in REFLECTION:
        yield refuse(RULE, f"`.{last}`", "no access to Python's internals", _WITHOUT, line)
    elif "." in name and last.startswith("_") and first not in ("self", "cls"):
        yield _warn(f"`.{shown(last)}`, which is private", "public names", _WITHOUT, line)
    if "." in name and last in UNSAFE_METHODS and first not in job.names.modules:
        do = "return arrays; files and raw memory are not available"
        yield refuse(RULE, f"`.{last}`", "arrays that are only computed with", do, line)
    if name in DOUBTFUL and isinstance(getattr(node, "ctx", None), ast.Load):
        yield Finding(
            RULE, Severity.READ, f"`{name}`: {DOUBTFUL[name]}", "plain code", _WITHOUT, line
        )
    forbidden = _forbidden(name, job) if whole else None  # once for a chain of attributes
    if forbidden:
        do = "return arrays; files and processes are not available"
        yield refuse(RULE, f"use of `{shown(name, 80)}`", f"anything but `{forbidden}`", do, line)
    elif "." in name and last in MEMORY:
        do = "compute with arrays as they are"
        yield _warn(f"`.{last}`", "arrays that are only computed with", do, line)


_WITHOUT = "write it without"


def _forbidden(name: str, job: JobText) -> str | None:
    """What forbids a name: itself, a name above it, or the same thing by another way."""
    for forbidden in job.rule.forbidden_calls:
        if is_below(name, forbidden):
            return forbidden
    first, *below = name.split(".")
    if first not in job.names.modules:
        return None
    for number, part in enumerate(below):
        if part in SYSTEM and part not in job.rule.imports:
            return part
        if part in job.names.modules and number + 1 < len(below):
            again = _forbidden(".".join(below[number:]), job)
            if again:
                return again
    for forbidden in job.rule.forbidden_calls:
        top, *rest = forbidden.split(".")
        if rest and top == first and rest[-1] in below:
            return forbidden
    return None


def _values(job: JobText) -> Iterator[ast.Name]:
    """Imported names that are used as a value, not to get at something in them."""
    inner: set[ast.expr | None] = set()
    for node in job.nodes:
        if isinstance(node, ast.Attribute | ast.Assign | ast.AnnAssign | ast.NamedExpr):
            inner.add(node.value)
    for node in job.nodes:
        if isinstance(node, ast.Name) and node.id in job.names.imported and node not in inner:
            yield node


def _check_value(node: ast.Name, job: JobText) -> Iterator[Finding]:
    """A module that is handed on: what is used of it can no longer be seen."""
    for full in sorted(job.names.of(node)):
        above = any(forbidden.startswith(full + ".") for forbidden in job.rule.forbidden_calls)
        if isinstance(node.ctx, ast.Load) and (above or full in job.names.modules):
            do = "use it by its name"
            yield _warn(f"the module `{shown(full)}` as a value", "values", do, node.lineno)


def _check_workers(node: ast.keyword) -> Iterator[Finding]:
    if isinstance(node.value, ast.Constant) and not node.value.value:
        return
    yield Finding(
        RULE,
        Severity.READ,
        f"`{node.arg}`",
        "one process",
        "leave it out: the site decides how many cores a run has",
        node.value.lineno,
    )


def _check_pattern(node: ast.MatchClass) -> Iterator[Finding]:
    for attribute in node.kwd_attrs:
        if attribute.startswith("__"):
            seen = f"`{shown(attribute)}` in a pattern"
            yield refuse(RULE, seen, "no access to Python's internals", _WITHOUT, node.lineno)


def _check_definition(node: ast.FunctionDef | ast.ClassDef) -> Iterator[Finding]:
    name, line = node.name, node.lineno
    if isinstance(node, ast.ClassDef):
        if any(keyword.arg == "metaclass" for keyword in node.keywords):
            yield _warn("a metaclass", "plain classes", _WITHOUT, line)
    elif name.startswith("__") and name.endswith("__") and name not in METHODS:
        yield _warn(f"a definition of `{shown(name)}`", "plain methods", _WITHOUT, line)


def _warn(seen: str, allowed_instead: str, do: str, line: int | None) -> Finding:
    return Finding(RULE, Severity.WARN, seen, allowed_instead, do, line)
