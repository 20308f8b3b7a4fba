"""Errors that are shown to a person as one sentence, without a traceback.

    SiteError                 exit code 1
    ├── ConfigurationError    2   a file or option is missing or invalid
    ├── DecisionError         1   a request cannot be decided that way
    ├── AccountError          1   unknown account, wrong password, too many tries
    ├── DatasetError          1   a dataset cannot be read, published or found
    ├── RecordError           3   the audit log or the records cannot be written or do not verify
    ├── SandboxError          4   the sandbox cannot be had on this machine
    └── RunRefused            1   a run or its update is refused; carries findings

The words stand where the facts are, at the `raise`. A `RunRefused` goes to the researcher, so it
never holds data, a path or a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.findings import Finding


class SiteError(Exception):
    """Something a person did or has to mend; `exit_code` is the command line's."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in the place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigurationError(SiteError):
    """A file or option is missing or invalid."""

    exit_code = 2


class DecisionError(SiteError):
    """A request cannot be decided that way."""


class AccountError(SiteError):
    """An account is unknown, a password is wrong, or there were too many tries."""


class DatasetError(SiteError):
    """A dataset cannot be read, published or found."""


class RecordError(SiteError):
    """The audit log or the records cannot be written, or do not verify."""

    exit_code = 3


class SandboxError(SiteError):
    """The sandbox cannot be had on this machine, or broke."""

    exit_code = 4


class RunRefused(SiteError):
    """A request, a run or its update is refused."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(" ".join(finding.sentence for finding in findings[:5]))
        self.findings = list(findings)
