"""Options of commands that a person of the hospital answers for by name and password."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from datasites.errors import ConfigurationError

PersonOption = Annotated[
    str,
    typer.Option(
        "--as", envvar="SITEGATE_PERSON", prompt="Your e-mail address", help="Who decides."
    ),
]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option(help="File with your password; else SITEGATE_PASSWORD, else you are asked."),
]


def given_password(file: Path | None) -> str:
    """The password from the file, the environment, or the person."""
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(f"there is no password file {file}") from error
    if password := os.environ.get("SITEGATE_PASSWORD"):
        return password
    return str(typer.prompt("Your password", hide_input=True, err=True))
