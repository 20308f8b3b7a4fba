"""What people type and hand over: requests and public keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasites.command_line import read_public_key, request_number
from datasites.errors import ConfigurationError


@pytest.mark.parametrize(
    ("typed", "number"), [("7", 7), ("R-7", 7), ("r-07", 7), ("R-999999999", 999_999_999)]
)
def test_a_request_is_typed_with_or_without_its_letter(typed: str, number: int) -> None:
    assert request_number(typed) == number


@pytest.mark.parametrize("typed", ["", "R-", "R7", "-7", "R-7/1/1", "٧", "R-1000000000", "seven"])
def test_what_is_no_request_is_said_so(typed: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        request_number(typed)
    assert str(refused.value) == f"`{typed}` is not a request; write R-7 or 7"


def test_a_public_key_is_64_hex_digits(tmp_path: Path) -> None:
    file = tmp_path / "site_key.pub"
    file.write_text("ab" * 32 + "\n")
    assert read_public_key(file) == "ab" * 32


@pytest.mark.parametrize("content", ["", "ab" * 31, "ab" * 33, "zz" * 32, "{}"])
def test_another_file_holds_no_public_key(tmp_path: Path, content: str) -> None:
    file = tmp_path / "site_key.pub"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match="holds no public key of a site: 64 hex digits"):
        read_public_key(file)
    with pytest.raises(ConfigurationError, match="there is no public key at"):
        read_public_key(tmp_path / "none.pub")
