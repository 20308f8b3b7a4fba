"""Cases of a policy: a request, or what a run returns, and the verdict that is expected.

A file of cases names its policy, a request that every case starts from, and the cases. A case
writes down only what is different, so that it reads like a sentence: one run more, refused by
`runs.maximum`. The hospital keeps them beside its policy and runs them after every change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from policies.contract import ArrayContract, Line, Terms
from policies.request_rules import Ask, DatasetFacts, Requester
from policies.review_rule import ApproverRole, TrackRecord
from policies.strict import Strict, validation_sentences
from policies.yaml_text import parse_yaml

T = TypeVar("T", bound=Strict)
Changes = dict[str, Any]
"""Fields that are different; each replaces the whole field."""
Expected = Literal["approvable", "read", "warn", "refused"]


class CaseError(ValueError):
    """A file of cases that is missing or invalid; the message names the field or the case."""


class Dataset(Strict):
    """What is known of the dataset version."""

    examples: int | None
    """Training images."""
    classes: tuple[int | None, ...]
    """Training images of each class."""
    largest_share: float | None = None
    """Part of the training images that comes from the patient with the most."""
    patients_known: bool | None = None
    """Whether it is known which image is whose."""
    methods: tuple[str, ...] = ()
    """De-identification methods in the certificate."""


class Asker(Strict):
    """Who asks."""

    account: str
    """The account."""
    institution: str = ""
    """The institution that the hospital wrote down for it."""


class Record(Strict):
    """What was approved here before."""

    text_approved: bool = True
    """Whether this very text was."""
    account_approved: int = Field(default=1, ge=0)
    """How many requests of this account were."""


class Start(Strict):
    """The request that every case starts from."""

    text: str
    """The job."""
    terms: Changes
    """What is asked for: the fields of `policies/contract.py`, Terms."""
    dataset: Changes
    """What is known of the dataset version."""
    requester: Changes
    """Who asks."""
    record: Changes = Field(default={})
    """What was approved before."""
    config: Changes = Field(default={})
    """The arguments that a run is called with."""


class Returned(Strict):
    """What a run returned; the rest of it is as the contract says."""

    examples: int | None = None
    """Images used; without it, all training images."""
    change_norm: float = 0.0
    """L2 norm of returned weights minus sent weights."""
    smallest_cell: int = 0
    """A number that stands in a cell of each table of counts."""


class ExpectedReview(Strict):
    """Who has to agree; what is not written is not compared."""

    approvers: int | None = None
    """How many people."""
    roles: tuple[ApproverRole, ...] | None = None
    """Roles among them, in any order."""
    waiting_hours: float | None = None
    """Hours after submission."""
    tiers: tuple[str, ...] | None = None
    """Tiers that raise it."""


class Case(Strict):
    """One case: what is different from the start, and what is expected."""

    name: Line
    """The case in words; together with the verdict it reads as a sentence."""
    text: str | None = None
    """Another job."""
    replace: tuple[str, str] | None = None
    """A piece of the text, and what stands there instead."""
    lines: int | None = Field(default=None, ge=1, le=10_000)
    """How many lines the text has: comment lines are added at its end."""
    weight_arrays: int | None = Field(default=None, ge=0, le=5000)
    """How many weight arrays are declared, of one number each, instead of the contract's."""
    terms: Changes = Field(default={})
    """Terms that are different; each replaces the whole field."""
    dataset: Changes = Field(default={})
    """Facts of the dataset version that are different."""
    requester: Changes = Field(default={})
    """What is different about who asks."""
    record: Changes = Field(default={})
    """What is different about the past."""
    config: Changes | None = None
    """Arguments of a run that are different; the case is then about the run's arguments."""
    update: Returned | None = None
    """What a run returned; the case is then about its release."""
    expect: Expected = "approvable"
    """The verdict. `refused`: by exactly the rules that are named. `read`, `warn`: nothing is
    refused, and the named rules ask a person to look, or warn. `approvable`: nothing is refused,
    and the named rules, if any, have nothing to say."""
    rule: str | tuple[str, ...] = ()
    """The rule that the case is about, or all of them."""
    review: ExpectedReview | None = None
    """Who has to agree."""

    @model_validator(mode="after")
    def _verdict_has_its_rule(self) -> Self:
        if self.expect != "approvable" and not self.rules:
            raise ValueError(f"`expect: {self.expect}` needs the `rule` that decides")
        if self.config is not None and self.update is not None:
            raise ValueError("a case is about arguments (`config`) or about an `update`, not both")
        return self

    @property
    def rules(self) -> tuple[str, ...]:
        """The deciding rules."""
        return (self.rule,) if isinstance(self.rule, str) else self.rule

    @property
    def about_a_run(self) -> bool:
        """Whether the case is about a run's arguments or its update, not about the request."""
        return self.config is not None or self.update is not None

    def ask(self, start: Start) -> Ask:
        """The whole request of this case.

        Raises:
            CaseError: What it changes does not fit.
        """
        text = start.text if self.text is None else self.text
        if self.replace is not None:
            if self.replace[0] not in text:
                raise CaseError(f"case `{self.name}`: `{self.replace[0]}` is not in the text")
            text = text.replace(*self.replace)
        if self.lines is not None:
            text += "#\n" * (self.lines - text.count("\n") - 1)
        facts = self._parsed(Dataset, start.dataset | self.dataset, "dataset")
        asker = self._parsed(Asker, start.requester | self.requester, "requester")
        return Ask(
            text=text,
            terms=self._terms(start),
            dataset=DatasetFacts(**facts.model_dump()),
            requester=Requester(**asker.model_dump()),
        )

    def track_record(self, start: Start) -> TrackRecord:
        """What was approved before in this case; raises as `ask`."""
        record = self._parsed(Record, start.record | self.record, "record")
        return TrackRecord(**record.model_dump())

    def _terms(self, start: Start) -> Terms:
        terms = self._parsed(Terms, start.terms | self.terms, "terms")
        if self.weight_arrays is None or terms.contract is None:
            return terms
        one = ArrayContract(shape=(1,), dtype="float32")
        weights = {f"array_{k}": one for k in range(self.weight_arrays)}
        contract = terms.contract.model_copy(update={"weights": weights})
        return terms.model_copy(update={"contract": contract})

    def _parsed(self, model: type[T], plain: Changes, field: str) -> T:
        try:
            return model.model_validate(plain)
        except ValidationError as error:
            sentences = "; ".join(validation_sentences(error, model))
            raise CaseError(f"case `{self.name}`: {field}: {sentences}") from error


class CaseFile(Strict):
    """A file of cases."""

    policy: Line
    """The policy's file, relative to this one."""
    request: Start
    """The request that every case starts from."""
    cases: tuple[Case, ...] = Field(min_length=1)
    """The cases."""


def load_cases(path: Path) -> CaseFile:
    """The cases in the YAML file `path`.

    Raises:
        CaseError: It cannot be read, or a field is missing, unknown or does not fit.
    """
    try:
        plain = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"the cases {path} cannot be read") from error
    except ValueError as error:
        raise CaseError(f"the cases {path} are not YAML: {error}") from error
    try:
        return CaseFile.model_validate(plain)
    except ValidationError as error:
        sentences = "; ".join(validation_sentences(error, CaseFile))
        raise CaseError(f"the cases {path} are not valid: {sentences}") from error
