"""A job: the one text that is sent to hospitals, and how to try it here first."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.errors import FederationError
from federation.job_html import job_html
from policies.job_rules import job_sha256
from policies.text_lines import lines_of


@dataclass(frozen=True, slots=True)
class Job:
    """The text of a job, byte for byte as it is reviewed and run."""

    text: str
    name: str
    entry: str

    @property
    def sha256(self) -> str:
        """Digest of the text; hospitals show the same one."""
        return job_sha256(self.text)

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the job here, for example on a mock, or to draw initial weights.

        Raises:
            FederationError: There is no such function, or the job failed; its error is the cause.
        """
        names: dict[str, Any] = {"__name__": self.name}
        file = f"{self.name}.py"
        try:
            exec(compile(self.text, file, "exec"), names)  # noqa: S102  the user's own text
            if function in names:
                return names[function](*arguments)
        except Exception as error:
            where = self._where(error, file)
            raise FederationError(
                f"the job {self.name} failed{where}: {type(error).__name__}: {error}"
            ) from error
        raise FederationError(f"the job {self.name} has no function `{function}`")

    def _where(self, error: Exception, file: str) -> str:
        """The line of the text that an error came from, if it came from one."""
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        line = frames[-1].lineno if frames else None
        if isinstance(error, SyntaxError) and error.filename == file:
            line = error.lineno
        lines = lines_of(self.text)
        if line is None or not 1 <= line <= len(lines):
            return ""
        return f" in line {line}, `{lines[line - 1].strip()}`"

    def _repr_html_(self) -> str:
        return job_html(self.name, self.text, self.sha256)

    def try_on(
        self,
        arrays: Mapping[str, Any],
        card: Mapping[str, Any],
        weights: Mapping[str, Any],
        config: Mapping[str, Any],
    ) -> Any:
        """Run the entry function here on a mock, which stands for every split.

        Args:
            arrays: `images`, `labels`, and `group_{attribute}` where the card has subgroups.
            card: The dataset's card.
            weights: The weights to start from.
            config: The job's arguments.
        """
        return self.call(self.entry, LocalData(dict(arrays), dict(card)), weights, config)


@dataclass(frozen=True, slots=True)
class LocalData:
    """Stands for the site's `data` object: a card, and the same arrays for each split."""

    mock: dict[str, Any]
    card: dict[str, Any]

    def arrays(self, split: str) -> tuple[Any, Any]:
        """Images and labels; `split` must be one that the card knows."""
        if split not in self.card["counts"]:
            raise ValueError("there is no such split in the card's counts")
        return self.mock["images"], self.mock["labels"]

    def groups(self, split: str) -> dict[str, Any]:
        """Attribute -> place of each image's value in the card's `groups`, -1 for none."""
        if split not in self.card["counts"]:
            raise ValueError("there is no such split in the card's counts")
        return {name: self.mock[f"group_{name}"] for name in self.card.get("groups", ())}


def read_job(path: str | Path) -> Job:
    """The job in a `.py` file; its entry is the first function.

    Raises:
        FederationError: The file is missing, is not Python, or does not start with a function.
    """
    file = Path(path)
    try:
        text = file.read_bytes().decode("utf-8")
        first = next(iter(ast.parse(text).body), None)
    except OSError as error:
        raise FederationError(f"{file} cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise FederationError(f"{file} is not a Python text: {error}") from error
    if not isinstance(first, ast.FunctionDef):
        raise FederationError(f"{file} must start with its entry function; comments may precede it")
    return Job(text, file.stem, first.name)
