"""The documents of a request's evidence: what they are called, and what they say, read strictly.

They are texts: what a site collects for a new folder, and what a verifier finds in one, is read by
the same code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field, ValidationError

from datasites.approvals import Approval
from datasites.catalogue import Card
from datasites.certificate import Certificate
from datasites.errors import RecordError
from datasites.rehearsal import Rehearsal
from datasites.signed_decisions import SignedDecision
from policies.contract import Digest, Terms
from policies.document import Policy, PolicyError, parse_policy
from policies.strict import Strict, canonical_json

JOB, TERMS, SETTINGS, KEY = "job.py", "terms.json", "settings.json", "site_key.pub"
APPROVALS, DECISIONS, REHEARSALS = "approval.json", "decisions.json", "rehearsal.json"
CARD, CERTIFICATE = "card.json", "deidentification.json"
POLICY = "policy.yaml"
EXCERPT, CHECKPOINT, MANIFEST = "log-excerpt.jsonl", "checkpoint.json", "manifest.json"
RECORD, PAGE, CRATE = "evidence.json", "evidence.html", "ro-crate-metadata.json"

MADE_AFTERWARDS = frozenset({EXCERPT, CHECKPOINT, MANIFEST, RECORD, PAGE, CRATE})
"""Files that are no documents: they follow from the documents and the log."""

EXPORTED = "documents_sha256"
"""Name of the digest of all documents in the line of the log that says they are exported."""

M = TypeVar("M", bound=BaseModel)


class DocumentError(RecordError):
    """A document of evidence cannot be read; the message names it."""


class Settings(Strict):
    """How the site was set up when the evidence was exported; its configuration says so."""

    site: str
    """Short name of the site."""
    title: str
    """The hospital's name."""
    url: str
    """Where researchers reach it."""
    public_key: Digest
    """The site's public key, hex."""
    sandbox: str
    """Which sandbox runs are in."""
    own_certificate: bool
    """Whether the site serves the hospital's own TLS certificate, or the one made for trials."""
    request: int = Field(ge=1)
    """Number of the request."""
    researcher: str
    """Account that asked."""
    policy_in_force: Digest
    """Digest of the policy in force."""
    at: str
    """When the documents were collected, UTC."""


@dataclass(frozen=True, slots=True)
class Signed(Generic[M]):
    """A document that the site signed.

    Attributes:
        document: What it says.
        signed_bytes: What the signature is made over.
        signature: The signature, hex.
    """

    document: M
    signed_bytes: bytes
    signature: str


@dataclass(frozen=True, slots=True)
class Documents:
    """Everything beside the log that evidence rests on.

    Attributes:
        settings: How the site was set up.
        job: The exact text.
        terms: What was asked for.
        terms_sha256: Digest of the terms.
        policies: Digest -> policy, of those that the site has kept; the first is `policy.yaml`.
        decisions: Every decision, oldest first.
        approvals: Every approval, oldest first.
        rehearsals: Digest -> report.
        card: What researchers know of the dataset version, if it is still there.
        certificate: How it was de-identified.
        version_sha256: The digest that card, certificate and the digests of the arrays come to;
            empty when one of them is missing.
    """

    settings: Settings
    job: str
    terms: Terms
    terms_sha256: str
    policies: dict[str, Policy]
    decisions: tuple[Signed[SignedDecision], ...]
    approvals: tuple[Signed[Approval], ...]
    rehearsals: dict[str, Rehearsal]
    card: Card | None
    certificate: Signed[Certificate] | None
    version_sha256: str

    @property
    def policy(self) -> Policy | None:
        """The policy that matters most: of the last approval, else decision, else in force."""
        return next(iter(self.policies.values()), None)


def documents_sha256(files: Mapping[str, str]) -> str:
    """The digest of all documents of a folder, which the log states before the folder exists."""
    digests = {name: sha256(text) for name, text in files.items() if name not in MADE_AFTERWARDS}
    return hashlib.sha256(canonical_json(digests)).hexdigest()


def read_documents(files: Mapping[str, str]) -> Documents:
    """What the documents of a folder say.

    Raises:
        DocumentError: One is missing or cannot be read.
    """
    if missing := {JOB, TERMS, SETTINGS, KEY, POLICY, DECISIONS} - files.keys():
        raise DocumentError(f"{min(missing)} is missing")
    certificate = _certificate(files) if CERTIFICATE in files else None
    rehearsals = [_model(REHEARSALS, Rehearsal, p) for p in _list(files, REHEARSALS)]
    return Documents(
        settings=_model(SETTINGS, Settings, _json(files, SETTINGS)),
        job=files[JOB],
        terms=_model(TERMS, Terms, _json(files, TERMS)),
        terms_sha256=sha256(files[TERMS]),
        policies=_policies(files),
        decisions=tuple(_signed(DECISIONS, SignedDecision, p) for p in _list(files, DECISIONS)),
        approvals=tuple(_signed(APPROVALS, Approval, p) for p in _list(files, APPROVALS)),
        rehearsals={report.sha256: report for report in rehearsals},
        card=_model(CARD, Card, _json(files, CARD)) if CARD in files else None,
        certificate=certificate,
        version_sha256=_version_sha256(files, certificate),
    )


def policy_files(digests: Sequence[str]) -> dict[str, str]:
    """Digest -> name of the YAML file of each policy; the first is `policy.yaml`."""
    names = (POLICY if k == 0 else f"policy-{d[:12]}.yaml" for k, d in enumerate(digests))
    return dict(zip(digests, names, strict=True))


def sha256(text: str) -> str:
    """Hex SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_file(value: Any) -> str:
    """A JSON value as a file that people can read: indented, with a line feed at its end."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def signed_file(documents: Iterable[tuple[str, str]]) -> str:
    """The file of signed documents: each with its signature."""
    return json_file([{"document": json.loads(d), "signature": s} for d, s in documents])


def _json(files: Mapping[str, str], name: str) -> Any:
    try:
        plain = json.loads(files[name])
        canonical_json(plain)  # refuses what cannot be written again, such as NaN
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{name} is not JSON") from error
    return plain


def _list(files: Mapping[str, str], name: str) -> list[Any]:
    plain = _json(files, name) if name in files else []
    if not isinstance(plain, list):
        raise DocumentError(f"{name} is not a list")
    return plain


def _model(name: str, model: type[M], plain: Any) -> M:
    try:
        return model.model_validate_json(json.dumps(plain))
    except (ValidationError, ValueError) as error:
        raise DocumentError(f"{name} is not a document of this version of Sitegate") from error


def _signed(name: str, model: type[M], plain: Any, inside: str = "document") -> Signed[M]:
    if not isinstance(plain, dict) or not isinstance(plain.get("signature"), str):
        raise DocumentError(f"{name} has no signature beside a document")
    document = plain.get(inside)
    signed_bytes = canonical_json(document)
    return Signed(_model(name, model, document), signed_bytes, plain["signature"])


def _certificate(files: Mapping[str, str]) -> Signed[Certificate]:
    plain = _json(files, CERTIFICATE)
    return _signed(CERTIFICATE, Certificate, plain, inside="certificate")


def _policies(files: Mapping[str, str]) -> dict[str, Policy]:
    names = [n for n in files if n.startswith("policy") and n.endswith(".yaml")]
    policies = {}
    for name in sorted(names, key=lambda name: (name != POLICY, name)):
        canonical = name.removesuffix(".yaml") + ".json"
        try:
            policy = parse_policy(files[name], name)
        except PolicyError as error:
            raise DocumentError(str(error)) from error
        if sha256(files.get(canonical, "")) != policy.sha256:
            raise DocumentError(f"{canonical} does not say what {name} says")
        policies[policy.sha256] = policy
    return policies


def _version_sha256(files: Mapping[str, str], certificate: Signed[Certificate] | None) -> str:
    """The name of a dataset version is the digest of its files' digests: `datasites.catalogue`."""
    if certificate is None or CARD not in files:
        return ""
    beside = {name: sha256(files[name]) for name in (CARD, CERTIFICATE)}
    return hashlib.sha256(canonical_json(certificate.document.arrays | beside)).hexdigest()
