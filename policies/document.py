"""A hospital's policy: one YAML document, parsed once into one frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from policies.contract import Access, Bound, Name, Use
from policies.privacy.rule import PrivacyRule
from policies.release_rule import ReleaseRule
from policies.review_rule import ReviewRule
from policies.sections import (
    ContractRule,
    CountsRule,
    DominanceRule,
    ExamplesRule,
    ExpiryRule,
    JobRule,
    PublishingRule,
    RequestersRule,
    RunsRule,
    SandboxRule,
    UpdateRule,
    VersionStart,
    Words,
)
from policies.strict import Strict, model_sha256, validation_sentences
from policies.yaml_text import parse_yaml


class PolicyError(ValueError):
    """A policy that is missing or invalid; the message names the field.

    Attributes:
        problems: One sentence for each field that does not fit.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class Policy(Strict):
    """What a hospital allows on its images. What no rule allows is refused."""

    name: Name
    """Short name, shown beside every verdict."""
    version: int = Field(ge=1, le=1_000_000)
    """Raised by the hospital with every change."""
    about: Words | None = None
    """What the policy is for, in one line."""
    datasets: tuple[Name, ...] = Field(min_length=1, max_length=1000)
    """Names of the datasets that jobs may be approved for."""
    versions: dict[Name, tuple[VersionStart, ...]] = Field(default={}, max_length=1000)
    """Dataset -> the only versions that may be asked for, by their first 8 digits or more; a
    dataset that is not named here may be asked for in every version that is published."""
    requesters: RequestersRule = RequestersRule()
    """Who may ask."""
    purposes: tuple[Use, ...] = Field(default=("research",), min_length=1, max_length=4)
    """What results may be used for."""
    access: tuple[Access, ...] = Field(min_length=1, max_length=2)
    """How jobs may see images. `arrays`: any approved training code reads memory-mapped arrays.
    `trainer`: only the hospital's own training loop does, which `privacy.mode: dp_sgd` needs."""
    runs: RunsRule = RunsRule()
    """How often approved code may run."""
    expiry: ExpiryRule = ExpiryRule()
    """How long an approval holds."""
    arguments: dict[Name, Bound] = Field(default={}, max_length=100)
    """The arguments that jobs may have, each with the widest range that can be approved."""
    job: JobRule = JobRule()
    """What the text of a job may contain."""
    contract: ContractRule = ContractRule()
    """What a request may declare as leaving."""
    examples: ExamplesRule = ExamplesRule()
    """How many images a result must rest on."""
    dominance: DominanceRule = DominanceRule()
    """No patient may stand for a large part of a dataset."""
    counts: CountsRule = CountsRule()
    """Small numbers of patients in tables."""
    update: UpdateRule = UpdateRule()
    """How much may leave."""
    sandbox: SandboxRule = SandboxRule()
    """What one run may use up."""
    publishing: PublishingRule = PublishingRule()
    """What the hospital's own images need before they become a dataset version."""
    privacy: PrivacyRule
    """Protection added to what leaves."""
    release: ReleaseRule = ReleaseRule()
    """What a global model must show here before it is called released."""
    review: ReviewRule = ReviewRule()
    """Who decides about requests."""

    @model_validator(mode="after")
    def _versions_are_of_its_datasets(self) -> Self:
        if strangers := set(self.versions) - set(self.datasets):
            raise ValueError(f"`versions` names `{min(strangers)}`, which is not in `datasets`")
        return self

    @model_validator(mode="after")
    def _private_training_is_the_hospitals(self) -> Self:
        if self.privacy.mode == "dp_sgd" and self.access != ("trainer",):
            raise ValueError(
                "`privacy.mode: dp_sgd` needs `access: [trainer]`: where foreign code reads "
                "images, noise in the steps of training guarantees nothing"
            )
        return self

    @model_validator(mode="after")
    def _waiting_ends_before_requests_do(self) -> Self:
        wait, end = self.review.longest_wait_hours, self.expiry.undecided_days * 24
        if wait >= end:
            raise ValueError(
                f"`review` waits {wait:g} hours and `expiry.undecided_days` ends a request after "
                f"{end} hours, so that nobody could approve it"
            )
        return self

    @property
    def sha256(self) -> str:
        """Digest of the policy's meaning: comments and order of the YAML do not count."""
        return model_sha256(self)

    @property
    def title(self) -> str:
        """`university-hospital v1`."""
        return f"{self.name} v{self.version}"


def parse_policy(text: str, source: str = "the policy") -> Policy:
    """The policy in a YAML text.

    Raises:
        PolicyError: It is not YAML, or a field is missing, unknown or out of range.
    """
    try:
        plain = parse_yaml(text)
    except ValueError as error:
        raise PolicyError(f"{source} is not YAML: {error}") from error
    if not isinstance(plain, dict):
        raise PolicyError(f"{source} is empty; a policy starts with `name:` and `version:`")
    try:
        return Policy.model_validate(plain)
    except ValidationError as error:
        problems = validation_sentences(error, Policy)
        raise PolicyError(f"{source} is not valid: {'; '.join(problems)}", problems) from error


def load_policy(path: Path) -> Policy:
    """The policy in the YAML file `path`; raises as `parse_policy`, also when it is missing."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"the policy {path} cannot be read; nothing runs without one") from error
    return parse_policy(text, f"the policy {path}")
