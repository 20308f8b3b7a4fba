"""A study in a file: what was asked for, with which text, under which numbers; no secret is in it.

Decisions take days, and kernels do not live so long. `Study.save` writes the file,
`Federation.saved_study` takes the study up again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from federation.errors import FederationError
from federation.job import Job
from federation.terms import Wanted
from federation.whole_file import write_whole
from policies.contract import Access, Bound, Contract
from policies.privacy.asked import PrivacyAsked
from policies.strict import Strict

if TYPE_CHECKING:
    from federation.submission import Study


class SavedStudy(Strict):
    """The content of the file."""

    job: str
    """Name of the job."""
    entry: str
    """Name of its entry function."""
    text: str
    """The job's text, as it was submitted."""
    title: str
    """What it does."""
    purpose: str
    """Why."""
    dataset: str
    """Name of the dataset."""
    runs: int
    """Runs asked for."""
    arguments: dict[str, Bound]
    """What the arguments may be."""
    contract: Contract
    """What leaves."""
    expires_in_days: int
    """How long approvals hold."""
    privacy: PrivacyAsked | None = None
    """What the runs may cost a patient."""
    access: Access = "arrays"
    """How the job sees images."""
    requests: dict[str, int] = Field(min_length=1)
    """Site -> number of the request there."""

    def parts(self) -> tuple[Job, Wanted]:
        """The job and the terms."""
        wanted = Wanted(
            self.title, self.purpose, self.dataset, self.runs, self.arguments, self.contract,
            self.expires_in_days, self.privacy, self.access,
        )  # fmt: skip
        return Job(self.text, self.job, self.entry), wanted


def save_study(study: Study, file: str | Path) -> Path:
    """Write a submitted study into a file; the file.

    Raises:
        FederationError: It was not submitted anywhere, or the file cannot be written.
    """
    if not study.requests:
        raise FederationError("the study has no request yet; submit it first, then save it")
    wanted = study.wanted
    saved = SavedStudy(
        job=study.job.name, entry=study.job.entry, text=study.job.text, title=wanted.title,
        purpose=wanted.purpose, dataset=wanted.dataset, runs=wanted.runs,
        arguments=wanted.arguments, contract=wanted.contract,
        expires_in_days=wanted.expires_in_days, privacy=wanted.privacy,
        access=wanted.access, requests=study.requests,
    )  # fmt: skip
    try:
        write_whole(Path(file), saved.model_dump_json(indent=1).encode())
    except OSError as error:
        raise FederationError(f"{file} cannot be written ({error.strerror})") from error
    return Path(file)


def read_study(file: str | Path) -> SavedStudy:
    """What `save_study` wrote.

    Raises:
        FederationError: The file cannot be read, or is not such a file.
    """
    try:
        return SavedStudy.model_validate_json(Path(file).read_bytes())
    except OSError as error:
        raise FederationError(
            f"{file} cannot be read ({error.strerror}); `study.save(file)` writes such a file "
            "after `sites.submit`"
        ) from error
    except ValidationError as error:
        raise FederationError(
            f"{file} is not a saved study; give the file that `study.save(file)` wrote"
        ) from error
