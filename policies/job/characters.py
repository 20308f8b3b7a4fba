"""Characters of a text that show a reader something else than Python reads.

References:
    Boucher and Anderson, Trojan Source: Invisible Vulnerabilities, 2021, arXiv:2111.00169.
    Unicode Technical Standard 39, Unicode Security Mechanisms.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator

from policies.findings import Finding, Severity, refuse
from policies.job.text import JobText, shown

RULE = "job.characters"
_BIDIRECTIONAL = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_BREAKS = frozenset("\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
_LOOKALIKES = frozenset(
    "авекморсутхѕіјԁԛԝһгпАВЕКМНОРСТУХЅІЈԌοανικρτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧɑɡıℓ"  # Cyrillic, Greek, Latin
)
"""Letters that look like ASCII letters and are others."""
_COOKIE = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_IDENTIFIER = re.compile(r"\w+")


def allowed(_job: object) -> str:
    """What the rule lets pass."""
    return "characters that show what they are"


def check(job: JobText) -> Iterator[Finding]:
    """Findings about characters, line by line, then about names."""
    for number, line in enumerate(job.lines, 1):
        cookie = _COOKIE.match(line) if number <= 2 else None
        if cookie and cookie[1].lower().replace("_", "-") not in ("utf-8", "utf8"):
            yield _refuse("a declaration of another encoding", "UTF-8", number)
        if not line.isascii() or not line.isprintable():
            yield from _check_line(line, number)
    for name, number in _identifiers(job):
        yield from _check_identifier(name, number)


def _check_line(line: str, number: int) -> Iterator[Finding]:
    kinds = {
        "characters that turn the order of the text": _BIDIRECTIONAL & set(line),
        "characters that look like the end of a line": _BREAKS & set(line),
        "invisible or control characters": {c for c in line if _is_invisible(c)},
    }
    for kind, found in kinds.items():
        if found:
            listed = ", ".join(f"U+{ord(c):04X}" for c in sorted(found)[:4])
            yield _refuse(f"{kind}: {listed}", "what a reader sees is what runs", number)


def _is_invisible(character: str) -> bool:
    if character in _BIDIRECTIONAL or character in _BREAKS or character == "\t":
        return False
    category = unicodedata.category(character)
    odd_space = category == "Zs" and character not in " \xa0"
    blank = character in "\u115f\u1160\u3164\uffa0\u2800"
    return category in ("Cc", "Cf", "Co", "Cn") or odd_space or blank


def _identifiers(job: JobText) -> Iterator[tuple[str, int]]:
    """Names as they are written: Python reads some letters as others."""
    seen: set[str] = set()
    parsed = {
        value
        for node in job.nodes
        for field, value in ast.iter_fields(node)
        if field in ("id", "attr", "arg", "name", "asname", "module") and isinstance(value, str)
    }
    for number, line in enumerate(job.lines, 1):
        if line.isascii():
            continue
        for word in _IDENTIFIER.findall(line):
            if not word.isascii() and unicodedata.normalize("NFKC", word) in parsed - seen:
                seen.add(unicodedata.normalize("NFKC", word))
                yield word, number


def _check_identifier(word: str, number: int) -> Iterator[Finding]:
    normal = unicodedata.normalize("NFKC", word)
    if normal.isascii():
        yield _refuse(
            f"`{shown(normal)}` written in other letters", "names in plain letters", number
        )
    elif len(word) > 1 and any(c in _LOOKALIKES for c in word):
        codes = ", ".join(f"U+{ord(c):04X}" for c in word if c in _LOOKALIKES)
        yield _refuse(
            f"a name with letters that look like others: {codes[:40]}",
            "names in plain letters",
            number,
        )
    else:
        yield Finding(
            RULE,
            Severity.READ,
            f"the name `{shown(word)}`",
            "names in plain letters",
            "check that no other name looks like it",
            number,
        )


def _refuse(seen: str, allowed_characters: str, line: int) -> Finding:
    return refuse(RULE, seen, allowed_characters, "write it in plain letters", line)
