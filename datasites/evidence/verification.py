"""Is an evidence folder what its site exported? The check needs the folder and the site's key only.

Every check goes on after the one before it, as far as it can, and tells all that it finds. Whoever
changed a file without the key is found by the first two; the others hold the site to its own log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from datasites.audit_checkpoint import Checkpoint
from datasites.errors import RecordError
from datasites.evidence.bindings import find_contradictions
from datasites.evidence.claims import Line
from datasites.evidence.documents import (
    CHECKPOINT,
    CRATE,
    EXCERPT,
    MANIFEST,
    PAGE,
    RECORD,
    Documents,
    read_documents,
    sha256,
)
from datasites.evidence.excerpt import read_excerpt
from datasites.evidence.export import derived_files
from datasites.evidence.folder import read_folder
from datasites.evidence.manifest import Manifest, manifest_file

_MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What lines of another form than this version writes may lead to; only the site can sign such."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a folder.

    Attributes:
        name: What was checked, in a word or two.
        holds: What is true if there is no problem, a sentence.
        problems: What was found, a sentence each.
    """

    name: str
    holds: str
    problems: tuple[str, ...]


def verify_evidence(path: Path, public_hex: str) -> list[Check]:
    """Check a folder; it holds if no check has a problem.

    Args:
        path: The folder.
        public_hex: The site's public key, hex, as the hospital handed it over.

    Raises:
        ConfigurationError: There is no such folder.
    """
    folder = read_folder(path)
    manifest, manifest_problems = _manifest(folder.files, public_hex)
    belongs = manifest.files.keys() | {MANIFEST} if manifest else folder.files.keys()
    files = {name: text for name, text in folder.files.items() if name in belongs}
    lines, log_problems = _lines(files, public_hex)
    documents, document_problems = _documents(files)
    statement_problems = ["without log and documents, nothing can be derived"]
    if documents and lines:
        document_problems = _contradictions(files, documents, lines, public_hex)
        statement_problems = list(_statements(files, documents, lines))
    elif documents:
        document_problems = ["without a log that holds, there is nothing to compare them with"]
    return [
        Check("manifest", "The manifest is signed by the site's key.", tuple(manifest_problems)),
        Check(
            "files",
            f"{len(files)} files, each as the manifest says; none more and none less.",
            (*folder.problems, *_files(folder.files, manifest)),
        ),
        Check(
            "log",
            f"{len(lines)} lines are shown; chain and signed checkpoints hold.",
            tuple(log_problems),
        ),
        Check(
            "documents",
            "Text, terms, policies, decisions and approvals are signed, and those of the lines.",
            tuple(document_problems),
        ),
        Check(
            "statements",
            "Every statement follows from the lines that it names; page and crate say the same.",
            tuple(statement_problems),
        ),
    ]


def _manifest(files: Mapping[str, str], public_hex: str) -> tuple[Manifest | None, list[str]]:
    try:
        manifest = Manifest.model_validate_json(files[MANIFEST])
    except KeyError:
        return None, [f"{MANIFEST} is missing"]
    except ValidationError:
        return None, [f"{MANIFEST} is not a manifest"]
    if manifest.public_key != public_hex or not manifest.is_signed:
        return manifest, [
            f"{MANIFEST} was not signed by the key given ({public_hex[:12]}…); it names the key "
            f"{manifest.public_key[:12]}… of site {manifest.site!r}"
        ]
    if files[MANIFEST] != manifest_file(manifest):
        return manifest, [f"{MANIFEST} says what was signed, and is written in another form"]
    return manifest, []


def _files(files: Mapping[str, str], manifest: Manifest | None) -> Iterator[str]:
    if manifest is None:
        return
    for name in sorted(manifest.files.keys() | files.keys() - {MANIFEST}):
        if name not in manifest.files:
            yield f"{name!r} does not belong to the evidence"
        elif name not in files:
            yield f"{name!r} is missing"
        elif sha256(files[name]) != manifest.files[name]:
            yield f"{name!r} was changed after it was exported"


def _lines(files: Mapping[str, str], public_hex: str) -> tuple[list[Line], list[str]]:
    """The lines of the excerpt, and what is wrong with it or with the checkpoint beside it."""
    try:
        lines: list[Line] = [*read_excerpt(files.get(EXCERPT, ""), public_hex)]
    except RecordError as error:
        return [], [f"{EXCERPT}: {error}"]
    try:
        signed = Checkpoint.model_validate_json(files.get(CHECKPOINT, ""))
    except ValidationError:
        return lines, [f"{CHECKPOINT} is missing or is not a checkpoint"]
    said = (signed.public_key, signed.lines, signed.head)
    if said != (public_hex, lines[-1]["n"], lines[-1]["hash"]) or not signed.is_signed:
        return lines, [f"{CHECKPOINT} does not vouch for the last line of the excerpt"]
    return lines, []


def _documents(files: Mapping[str, str]) -> tuple[Documents | None, list[str]]:
    try:
        return read_documents(files), []
    except RecordError as error:
        return None, [str(error)]


def _contradictions(
    files: Mapping[str, str], documents: Documents, lines: Sequence[Line], public_hex: str
) -> list[str]:
    try:
        return find_contradictions(files, documents, lines, public_hex)
    except _MALFORMED as error:
        return [f"the documents cannot be compared with these lines: {type(error).__name__}"]


def _statements(
    files: Mapping[str, str], documents: Documents, lines: Sequence[Line]
) -> Iterator[str]:
    """Derive record, page and crate again, and tell where the folder has others."""
    try:
        derived = derived_files(files, documents, lines)
    except _MALFORMED as error:
        yield f"nothing can be derived from these lines: {type(error).__name__}"
        return
    if files.get(RECORD) == derived[RECORD]:
        yield from (
            f"{n} does not state the same" for n in (PAGE, CRATE) if files.get(n) != derived[n]
        )
        return
    try:
        said, again = json.loads(files.get(RECORD, "")), json.loads(derived[RECORD])
    except (ValueError, RecursionError):
        yield f"{RECORD} is missing or is not JSON"
        return
    if isinstance(said, dict) and said.get("made_with") != again["made_with"]:
        yield (
            f"{RECORD} was made with {said.get('made_with')!r} and this is {again['made_with']}; "
            "another version may say things in other words. Verify with that version"
        )
        return
    yield f"{RECORD} does not follow from lines and documents: {_difference(said, again)}"


def _difference(said: Any, again: Any, place: str = "") -> str:
    """Where two JSON values differ first, and how."""
    if isinstance(said, dict) and isinstance(again, dict) and said.keys() == again.keys():
        pairs = [(f"{place}.{name}".lstrip("."), said[name], again[name]) for name in again]
    elif isinstance(said, list) and isinstance(again, list) and len(said) == len(again):
        pairs = [(f"{place}[{k}]", a, b) for k, (a, b) in enumerate(zip(said, again, strict=True))]
    else:
        return f"{place or 'the document'} says {_brief(said)}; it follows: {_brief(again)}"
    differing = ((where, a, b) for where, a, b in pairs if a != b)
    first = next(differing, None)
    return _difference(first[1], first[2], first[0]) if first else "it is written in another form"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:159]}…"
