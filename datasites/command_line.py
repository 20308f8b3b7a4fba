"""What all commands share: options, plain words for a person's mistakes, output."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from datasites.errors import ConfigurationError, SiteError
from datasites.imaging.problems import UnreadableSourceError
from datasites.imaging.standardise import StandardisationError

P = ParamSpec("P")
R = TypeVar("R")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

SiteOption = Annotated[
    Path, typer.Option("--site", envvar="SITEGATE_SITE", help="The site's directory.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def told_plainly(command: Callable[P, R]) -> Callable[P, R]:
    """Show a person's mistake as one sentence, with its exit code, and never as a traceback."""

    @wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return command(*arguments, **options)
        except SiteError as error:
            err.print(str(error), style="red", markup=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from error
        except StandardisationError as error:
            err.print(str(error), style="red", markup=False, soft_wrap=True)
            raise typer.Exit(2) from error
        except UnreadableSourceError as error:
            err.print(str(error), style="red", markup=False, soft_wrap=True)
            raise typer.Exit(1) from error
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            err.print(
                f"{error.strerror or 'the system refused'}{where}. Nothing is lost; mend it, and "
                "the same command goes on.",
                style="red",
                markup=False,
            )
            raise typer.Exit(1) from error

    return run


def request_number(request: str) -> int:
    """The number in `R-7` or `7`.

    Raises:
        ConfigurationError: It is neither.
    """
    digits = request.upper().removeprefix("R-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 9:
        raise ConfigurationError(f"`{request}` is not a request; write R-7 or 7")
    return int(digits)


def read_public_key(file: Path) -> str:
    """A site's public key from the file in which the hospital handed it over, hex.

    Raises:
        ConfigurationError: There is no such file, or no key in it.
    """
    try:
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"there is no public key at {file}") from error
    if re.fullmatch("[0-9a-f]{64}", key) is None:
        raise ConfigurationError(f"{file} holds no public key of a site: 64 hex digits")
    return key


def say(text: str) -> None:
    """A line for a person, never wrapped: paths and passwords are to be copied."""
    out.print(text, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """A value for a machine."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
