"""A hospital's policy: one YAML document, parsed once into one frozen model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator

from policies.contract import Bound, Name
from policies.strict import Strict, model_sha256, validation_sentences

ModulePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w]*(\.[A-Za-z_][\w]*)*$")]

MethodCode = Annotated[str, StringConstraints(pattern=r"^1131\d\d$")]
"""A code of CID 7050 (PS3.16): 113100 for the basic profile, 113101 and on for its options."""
Modality = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,8}$")]

UNSAFE_CALLS = (
    "open",
    "exec",
    "eval",
    "compile",
    "__import__",
    "input",
    "breakpoint",
    "globals",
    "locals",
    "vars",
    "getattr",
    "setattr",
    "delattr",
    "memoryview",
    "type",
    "super",
    "numpy.load",
    "numpy.save",
    "numpy.savez",
    "numpy.savez_compressed",
    "numpy.loadtxt",
    "numpy.savetxt",
    "numpy.DataSource",
    "numpy.lib.npyio",
    "numpy.lib.stride_tricks",
    "numpy.fromfile",
    "numpy.memmap",
    "numpy.genfromtxt",
    "numpy.ctypeslib",
    "numpy.lib.format",
    "numpy.f2py",
    "numpy.distutils",
    "numpy.testing",
    "torch.load",
    "torch.save",
    "torch.hub",
    "torch.jit",
    "torch.ops",
    "torch.utils.cpp_extension",
    "torch.distributed",
    "torch.multiprocessing",
    "torch.package",
    "torch.compile",
    "torch.from_file",
    "torch.serialization",
)
"""Calls that no honest training job needs: files, processes, code from strings, native code."""


class PolicyError(ValueError):
    """A policy that is missing or invalid; the message names the field."""


class RunsRule(Strict):
    """How often approved code may run."""

    maximum: int = Field(ge=1, le=10_000)
    """Most runs that one approval may grant; failed runs count."""


class ExpiryRule(Strict):
    """How long an approval holds."""

    maximum_days: int = Field(ge=1, le=730)
    """Most days between approval and expiry."""


class JobRule(Strict):
    """What the text of a job may contain."""

    imports: tuple[ModulePath, ...] = ("math", "numpy", "torch")
    """Modules a job may import, with everything below them."""
    forbidden_calls: tuple[ModulePath, ...] = UNSAFE_CALLS
    """Names a job may not use, by their full dotted name, with everything below them."""
    maximum_lines: int = Field(default=300, ge=10, le=5000)
    """Most lines of a job: what nobody can read, nobody can approve."""


class ExamplesRule(Strict):
    """How many images a result must rest on."""

    minimum: int = Field(ge=2, le=1_000_000)
    """Fewest images that a run may use for its update to leave."""


class CountsRule(Strict):
    """Small numbers of patients."""

    minimum: int = Field(ge=2, le=1000)
    """Every cell of a table that leaves is 0 or at least this."""


class UpdateRule(Strict):
    """How much may leave in one run."""

    maximum_mb: float = Field(gt=0, le=2000)
    """Largest update, in megabytes (10^6 bytes) of array data."""
    maximum_change_norm: float = Field(gt=0, le=1e9)
    """Largest L2 norm of (returned weights - weights sent), over all arrays."""


class SandboxRule(Strict):
    """What one run may use up."""

    memory_mb: int = Field(default=2048, ge=64, le=1_000_000)
    """Memory beside the libraries, in MiB."""
    time_s: int = Field(default=600, ge=1, le=86_400)
    """Wall time of one run, in seconds; then it is ended."""
    processes: int = Field(default=64, ge=1, le=4096)
    """Processes and threads of one run."""


class PublishingRule(Strict):
    """What the hospital's own images need before they become a dataset version."""

    minimum_per_class: int = Field(default=10, ge=1, le=1_000_000)
    """Fewest images of each class; a dataset with a smaller class is not published."""
    minimum_patients: int = Field(default=10, ge=1, le=1_000_000)
    """Fewest patients of a dataset; arrays that name no patients are not held to it."""
    options: tuple[MethodCode, ...] = ()
    """De-identification methods that a version's certificate has to list, as in (0012,0064)."""
    text_search: Literal["required", "if installed", "off"] = "required"
    """Whether pixels are searched for text (Tesseract): without it nothing is published, it is
    published all the same, or the search is not made. Arrays below 64 pixels hold no text."""

    @field_validator("text_search", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        return "off" if value is False else value  # YAML takes a bare `off` for a boolean

    suspect_modalities: tuple[Modality, ...] = ("ES", "IVUS", "OP", "OPT", "OT", "SC", "US", "XC")
    """Modalities whose images are left out unless they are marked as free of burned-in text."""
    recognisable_heads: Literal["refuse", "allow"] = "refuse"
    """CT and MR that may show a face (113102 is not applied)."""


class PrivacyRule(Strict):
    """Protection added to what leaves."""

    mode: Literal["none"]
    """`none`: updates leave as computed. It has to be written out; there is no default."""


class Policy(Strict):
    """What a hospital allows on its images. What no rule allows is refused."""

    name: Name
    """Short name, shown beside every verdict."""
    version: int = Field(ge=1, le=1_000_000)
    """Raised by the hospital with every change."""
    datasets: tuple[Name, ...] = Field(min_length=1)
    """Names of the datasets that jobs may be approved for."""
    access: tuple[Literal["arrays"], ...] = Field(min_length=1)
    """How jobs may see images. `arrays`: any approved training code reads memory-mapped arrays."""
    runs: RunsRule
    """How often approved code may run."""
    expiry: ExpiryRule
    """How long an approval holds."""
    arguments: dict[Name, Bound] = Field(default={}, max_length=100)
    """The arguments that jobs may have, each with the widest range that can be approved."""
    job: JobRule = JobRule()
    """What the text of a job may contain."""
    examples: ExamplesRule
    """How many images a result must rest on."""
    counts: CountsRule
    """Small numbers of patients in tables."""
    update: UpdateRule
    """How much may leave in one run."""
    sandbox: SandboxRule = SandboxRule()
    """What one run may use up."""
    publishing: PublishingRule = PublishingRule()
    """What the hospital's own images need before they become a dataset version."""
    privacy: PrivacyRule
    """Protection added to what leaves."""

    @property
    def sha256(self) -> str:
        """Digest of the policy's meaning: comments and order of the YAML do not count."""
        return model_sha256(self)

    @property
    def title(self) -> str:
        """`chest-xray v3`."""
        return f"{self.name} v{self.version}"


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice; plain YAML lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(f"`{min(twice)}` is written twice")
        return super().construct_mapping(node, deep)


def parse_policy(text: str, source: str = "the policy") -> Policy:
    """The policy in a YAML text.

    Raises:
        PolicyError: It is not YAML, or a field is missing, unknown or out of range.
    """
    try:
        plain = yaml.load(text, _Loader)  # noqa: S506  a safe loader
    except yaml.YAMLError as error:
        raise PolicyError(f"{source} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(plain, dict):
        raise PolicyError(f"{source} is empty; a policy starts with `name:` and `version:`")
    try:
        return Policy.model_validate(plain)
    except ValidationError as error:
        raise PolicyError(
            f"{source} is not valid: " + "; ".join(validation_sentences(error, Policy))
        ) from error


def load_policy(path: Path) -> Policy:
    """The policy in the YAML file `path`; raises as `parse_policy`, also when it is missing."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"the policy {path} cannot be read; nothing runs without one") from error
    return parse_policy(text, f"the policy {path}")
