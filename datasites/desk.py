"""A person's desk at a hospital: the command line from Python, with their name and password set.

For notebooks, where `sitegate request list` is written `desk("request list")`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from datasites.config import Site, load_site
from datasites.control import Control, needs_rehearsal, shown_on
from datasites.errors import ConfigurationError, SiteError
from policies.strict import Strict
from policies.yaml_text import parse_yaml

WIDTH = 112
"""Characters of a line, as many as fit on a notebook's page."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class _Seat(Strict):
    """One entry of a file of desks."""

    site: Path
    """The site's directory."""
    person: str
    """Who sits there."""
    password: SecretStr
    """Their password."""


class Desk:
    """Somebody of a hospital at their desk; `desk("audit verify")` shows what the command says."""

    def __init__(self, path: Path, person: str, password: str) -> None:
        self.site: Site = load_site(path)
        self.person = person
        self.control = Control(self.site.control_socket)
        self._password = password

    def __call__(self, command: str) -> None:
        """Run a command of `sitegate` and print what it says.

        Raises:
            SiteError: It did not succeed; the message is the command's.
        """
        done = subprocess.run(
            [sys.executable, "-m", "datasites.cli", *shlex.split(command)],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "SITEGATE_SITE": str(self.site.path),
                "SITEGATE_PERSON": self.person,
                "SITEGATE_PASSWORD": self._password,
                "COLUMNS": str(WIDTH),
                "FORCE_COLOR": "1",  # notebooks show bold and colours
                "TTY_INTERACTIVE": "0",  # and no bars that move
            },
        )
        if done.returncode:
            said = _ESCAPES.sub("", done.stderr or done.stdout).strip().splitlines()
            raise SiteError(f"sitegate {command}: {said[-1] if said else 'it failed'}")
        sys.stdout.write(done.stdout)

    def decide(self, number: int, verb: str, reason: str) -> dict[str, Any]:
        """Decide about a request after looking at it, and rehearse it first if need be.

        Args:
            number: The request.
            verb: `approve`, `deny`, `revoke` or `changes`.
            reason: Why; the researcher reads it.

        Returns:
            The review sheet afterwards.
        """
        sheet = self.control.request(number)
        if verb == "approve" and needs_rehearsal(sheet):
            sheet = self.control.rehearse(number)
        return self.control.decide(
            number, verb, self.person, self._password, reason, shown=shown_on(sheet)
        )

    def __repr__(self) -> str:
        return f"Desk({self.person} at {self.site.config.title})"


def read_desks(file: str | Path) -> dict[str, Desk]:
    """The desks in a YAML file: a site's name, and its `site`, `person` and `password`.

    Raises:
        ConfigurationError: The file cannot be read, or an entry is not valid.
    """
    try:
        plain = parse_yaml(Path(file).read_text(encoding="utf-8"))
        seats = {name: _Seat.model_validate(seat) for name, seat in plain.items()}
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read ({error.strerror})") from error
    except (ValueError, AttributeError, ValidationError) as error:
        raise ConfigurationError(
            f"{file} is no file of desks: names of sites, each with `site`, `person`, `password`"
        ) from error
    return {
        name: Desk(seat.site, seat.person, seat.password.get_secret_value())
        for name, seat in seats.items()
    }
