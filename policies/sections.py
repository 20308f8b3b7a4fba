"""The sections of a policy document. Each field has a meaning, a range and a safe default.

What has to be written out is whose policy it is, what it is about, and the two things that nobody
should consent to by silence: that code reads images itself (`access`), and that updates leave as
computed (`privacy.mode`).
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, StringConstraints, WithJsonSchema, field_validator

from policies.contract import DType, Line
from policies.strict import Strict

ModulePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w]*(\.[A-Za-z_][\w]*)*$")]
VersionStart = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]
"""The first 8 to 64 hex digits of a dataset version."""
MethodCode = Annotated[str, StringConstraints(pattern=r"^1131\d\d$")]
"""A code of CID 7050 (PS3.16): 113100 for the basic profile, 113101 and on for its options."""
Modality = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,8}$")]
Account = Annotated[str, StringConstraints(pattern=r"^(\*|[^@\s*]+)@[^@\s*]+$", max_length=200)]
"""An e-mail address, or `*@uni.example` for every address of a domain."""

Words = Annotated[
    Line, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 200, "title": "Words"})
]
"""A line of text. Its pattern names Unicode classes, which not every reader of schemas knows."""

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
    "torchvision.datasets",
    "torchvision.io",
)
"""Calls that no honest training job needs: files, processes, code from strings, native code."""


class RequestersRule(Strict):
    """Who may ask. The hospital makes every account; this narrows it down further."""

    accounts: tuple[Account, ...] = Field(default=(), max_length=1000)
    """Accounts that may ask, such as `rita@uni.example` or `*@uni.example`; empty: every account
    that the hospital made."""
    institutions: tuple[Words, ...] = Field(default=(), max_length=200)
    """Institutions whose accounts may ask, as written when the account was made; empty: all."""


class RunsRule(Strict):
    """How often approved code may run."""

    maximum: int = Field(default=10, ge=1, le=10_000)
    """Most runs that one approval may grant; failed runs count."""
    per_day: int = Field(default=500, ge=1, le=10_000)
    """Most runs that one approval may start in 24 hours."""


class ExpiryRule(Strict):
    """How long an approval holds."""

    maximum_days: int = Field(default=30, ge=1, le=730)
    """Most days between approval and expiry."""
    undecided_days: int = Field(default=60, ge=1, le=730)
    """Days after which a request that nobody decided expires."""


class ContractRule(Strict):
    """What a request may declare as leaving."""

    dtypes: tuple[DType, ...] = Field(default=get_args(DType), min_length=1, max_length=5)
    """Types of numbers that arrays may have."""
    maximum_arrays: int = Field(default=2000, ge=0, le=5000)
    """Most weight arrays."""
    maximum_tables: int = Field(default=5, ge=0, le=50)
    """Most tables of counts."""
    maximum_cells: int = Field(default=10_000, ge=1, le=1_000_000)
    """Most cells of all tables of counts together."""
    maximum_metrics: int = Field(default=10, ge=0, le=20)
    """Most single numbers, such as the loss."""


class JobRule(Strict):
    """What the text of a job may contain."""

    imports: tuple[ModulePath, ...] = Field(
        default=("math", "numpy", "torch", "torchvision.models"), max_length=100
    )
    """Modules a job may import, with everything below them."""
    forbidden_calls: tuple[ModulePath, ...] = Field(default=UNSAFE_CALLS, max_length=1000)
    """Names a job may not use, by their full dotted name, with everything below them."""
    maximum_lines: int = Field(default=300, ge=10, le=5000)
    """Most lines of a job: what nobody can read, nobody can approve."""


class ExamplesRule(Strict):
    """How many images a result must rest on."""

    minimum: int = Field(default=50, ge=2, le=1_000_000)
    """Fewest images that a run may use for its update to leave."""
    minimum_classes: int = Field(default=2, ge=1, le=1000)
    """Fewest classes that a dataset version must have."""
    minimum_per_class: int = Field(default=10, ge=1, le=1_000_000)
    """Fewest training images of each class of a dataset version."""


class DominanceRule(Strict):
    """No patient may stand for a large part of a dataset."""

    maximum_share: float = Field(default=0.1, gt=0, le=1)
    """Largest share of the training images that may come from one patient."""
    unknown_patients: Literal["refuse", "read"] = "refuse"
    """What happens where nobody knows which image is whose: the request is refused, or a person
    is told to look at it."""


class CountsRule(Strict):
    """Small numbers of patients."""

    minimum: int = Field(default=10, ge=2, le=1000)
    """Every cell of a table that leaves is 0 or at least this."""


class UpdateRule(Strict):
    """How much may leave."""

    maximum_mb: float = Field(default=10, gt=0, le=2000)
    """Largest update of one run, in megabytes (10^6 bytes) of array data."""
    maximum_total_mb: float = Field(default=5000, gt=0, le=1e6)
    """Most megabytes over all runs of one approval."""
    maximum_change_norm: float = Field(default=10, gt=0, le=1e9)
    """Largest L2 norm of (returned weights - weights sent), over all arrays."""


class SandboxRule(Strict):
    """What one run may use up."""

    memory_mb: int = Field(default=2048, ge=64, le=1_000_000)
    """Memory beside the libraries, in MiB."""
    time_s: int = Field(default=600, ge=1, le=86_400)
    """Wall time of one run, in seconds; then it is ended."""
    processes: int = Field(default=64, ge=1, le=4096)
    """Processes and threads of one run."""
    proof_days: int = Field(default=0, ge=0, le=365)
    """Days that a proof of the cage by `sitegate doctor` holds; without one nothing runs. 0 demands
    none."""


class PublishingRule(Strict):
    """What the hospital's own images need before they become a dataset version."""

    minimum_per_class: int = Field(default=10, ge=1, le=1_000_000)
    """Fewest images of each class; a dataset with a smaller class is not published."""
    minimum_patients: int = Field(default=10, ge=1, le=1_000_000)
    """Fewest patients of a dataset; arrays that name no patients are not held to it."""
    options: tuple[MethodCode, ...] = Field(default=(), max_length=20)
    """De-identification methods that a version's certificate has to list, as in (0012,0064)."""
    text_search: Literal["required", "if installed", "off"] = "required"
    """Whether pixels are searched for text (Tesseract): without it nothing is published, it is
    published all the same, or the search is not made. Arrays below 64 pixels hold no text."""

    @field_validator("text_search", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        return "off" if value is False else value  # YAML takes a bare `off` for a boolean

    suspect_modalities: tuple[Modality, ...] = Field(
        default=("ES", "IVUS", "OP", "OPT", "OT", "SC", "US", "XC"), max_length=50
    )
    """Modalities whose images are left out unless they are marked as free of burned-in text."""
    recognisable_heads: Literal["refuse", "allow"] = "refuse"
    """CT and MR that may show a face (113102 is not applied)."""
