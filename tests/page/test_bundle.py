"""Evidence is one folder; no name in it leads out of it."""

from __future__ import annotations

import io
import zipfile

import pytest

from datasites.errors import SiteError
from datasites.page.bundle import zipped


def test_files_stand_below_one_folder() -> None:
    files = {"evidence.html": "<p>ä", "data/log.jsonl": "{}"}
    packed = zipfile.ZipFile(io.BytesIO(zipped("evidence-R-6", files)))
    assert packed.namelist() == ["evidence-R-6/data/log.jsonl", "evidence-R-6/evidence.html"]
    assert packed.read("evidence-R-6/evidence.html").decode() == "<p>ä"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../b", "", "a//b", ".x", "a\\b", "a\n"])
def test_names_that_lead_elsewhere_are_refused(name) -> None:
    with pytest.raises(SiteError, match="is not a file name for an evidence folder"):
        zipped("evidence-R-6", {name: "x"})
