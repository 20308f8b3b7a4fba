"""Errors that a researcher reads as a sentence, in a notebook and in a terminal.

FederationError
├── ConnectionLostError   the site did not answer; the same call may be made again
├── UntrustedError        what answered cannot show that it is the site
├── RefusedError          the site said no; carries the findings
├── BelowQuorumError      a round had too few sites (`federation.rounds`)
└── NotReleasedError      a model did not pass a leakage test (`federation.release`)

KeyboardInterrupt
└── StoppedError          rounds were stopped by hand (`federation.rounds`)

UserWarning
├── AbsentSiteWarning     a site does not answer, and the quorum holds without it
└── PolicyWarning         a hospital's policy forbids what was submitted to it

IPython shows what `_render_traceback_` gives in the place of a traceback. A script that does not
catch such an error ends with its sentence too, by `show_sentences`; `python -X dev` shows the
traceback.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from types import TracebackType

from policies.findings import Finding


class Sentence:
    """An error that is shown as its message, without the way that it took through the code."""

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows."""
        return f"{type(self).__name__}: {self}".splitlines()


class FederationError(Sentence, Exception):
    """Something went wrong; the message says what to do."""


class AbsentSiteWarning(UserWarning):
    """A site does not answer, and the quorum holds without it."""


class PolicyWarning(UserWarning):
    """A hospital's policy forbids what is submitted, so that nobody there can approve it."""


for _kind in (AbsentSiteWarning, PolicyWarning):  # each time, unless the user has said otherwise
    warnings.simplefilter("always", _kind, append=True)


class ConnectionLostError(FederationError):
    """A site did not answer."""


class UntrustedError(FederationError):
    """What answered cannot show that it is the site."""


class RefusedError(FederationError):
    """A site refused, with a rule, the value seen, the value allowed and what to do."""

    def __init__(self, site: str, findings: Sequence[Finding]) -> None:
        self.site, self.findings = site, list(findings)
        lines = [f"{site} refused:"]
        for f in findings:
            lines += [f"  rule     {f.rule}", f"  seen     {f.seen}", f"  allowed  {f.allowed}"]
            if f.do:
                lines.append(f"  do       {f.do}")
        super().__init__("\n".join(lines))

    @property
    def sentence(self) -> str:
        """The refusal in one line."""
        return f"{self.site} refused: {self.reasons}"

    @property
    def reasons(self) -> str:
        """The refusal in one line, for a table that has the site in a column of its own."""
        return " ".join(f.sentence for f in self.findings)


def show_sentences() -> None:
    """Let a program that such an error ends say its sentence, and where the program called."""
    before = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, Sentence) or sys.flags.dev_mode:
            before(kind, error, trace)
            return
        called = traceback.extract_tb(trace, limit=1)
        where = f"  at {called[0].filename}, line {called[0].lineno}\n" if called else ""
        sys.stderr.write("\n".join(error._render_traceback_()) + f"\n{where}")

    sys.excepthook = show
