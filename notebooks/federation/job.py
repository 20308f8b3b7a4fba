"""A job: the one text that is sent to hospitals, and how to try it here first."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.errors import FederationError
from policies.job_rules import job_sha256


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
        """Call a function of the job here, for example on a mock, or to draw initial weights."""
        names: dict[str, Any] = {"__name__": self.name}
        exec(compile(self.text, f"{self.name}.py", "exec"), names)  # noqa: S102  the user's own text
        if function not in names:
            raise FederationError(f"the job {self.name} has no function `{function}`")
        return names[function](*arguments)

    def try_on(
        self,
        arrays: Mapping[str, Any],
        card: Mapping[str, Any],
        weights: Mapping[str, Any],
        config: Mapping[str, Any],
    ) -> Any:
        """Run the entry function here on `images` and `labels`, which stand for every split."""
        return self.call(self.entry, LocalData(dict(arrays), dict(card)), weights, config)


@dataclass(frozen=True, slots=True)
class LocalData:
    """Stands for the site's `data` object: a card, and the same arrays for each split."""

    images_and_labels: dict[str, Any]
    card: dict[str, Any]

    def arrays(self, split: str) -> tuple[Any, Any]:
        """Images and labels; `split` must be one that the card knows."""
        if split not in self.card["counts"]:
            raise ValueError("there is no such split in the card's counts")
        return self.images_and_labels["images"], self.images_and_labels["labels"]


def read_job(path: str | Path) -> Job:
    """The job in a `.py` file; its entry is the first function.

    Raises:
        FederationError: The file is missing, is not Python, or does not start with a function.
    """
    file = Path(path)
    try:
        text = file.read_bytes().decode("utf-8")
        first = next(iter(ast.parse(text).body), None)
    except (OSError, SyntaxError, ValueError) as error:
        raise FederationError(f"{file} is not a Python text that can be read") from error
    if not isinstance(first, ast.FunctionDef):
        raise FederationError(f"{file} must start with its entry function; comments may precede it")
    return Job(text, file.stem, first.name)
