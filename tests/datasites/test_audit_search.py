"""Which events a search finds: each condition with what it takes and what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit_logs import KEY
from datasites.audit_log import AuditLog, Event
from datasites.audit_search import find_events


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    opened = AuditLog(path, KEY)
    opened.append(Event.SITE_STARTED, "site", "st-marys")
    opened.append(Event.REQUEST_SUBMITTED, "Rita@uni.example", "R-7")
    opened.append(Event.RUN_STARTED, "Rita@uni.example", "R-7/1/1")
    opened.append(Event.RUN_STARTED, "nora@uni.example", "R-71/1/1")
    opened.append(Event.REQUEST_DENIED, "website@x.example", "R-7", reason="Too broad")
    opened.close()
    return path


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"subject": "R-7"}, [2, 3, 5]),
        ({"subject": "R-7/1/1"}, [3]),
        ({"subject": "R-"}, []),
        ({"event": "run started"}, [3, 4]),
        ({"event": "run"}, []),
        ({"actor": "rita@UNI.example"}, [2, 3]),
        ({"actor": "rita"}, [2, 3]),
        ({"actor": "site"}, [1]),  # and not website@x.example
        ({"text": "too BROAD"}, [5]),
        ({"text": "narrow"}, []),
        ({"subject": "R-7", "actor": "rita", "event": "run started"}, [3]),
    ],
)
def test_all_conditions_hold(log: Path, wanted: dict[str, str], found: list[int]) -> None:
    assert [line["n"] for line in find_events(log, **wanted)] == found
