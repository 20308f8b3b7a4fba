"""Whether runs may be in a cage, by the last proof of it."""

from __future__ import annotations

import datetime as dt

import pytest

import factories
from policies.proof_rules import Proof, check_proof

NOW = dt.datetime(2026, 11, 26, 12, 0, tzinfo=dt.UTC)
BWRAP = "ab" * 32


def proof(age: dt.timedelta, *, passed: bool = True, bubblewrap: str = BWRAP) -> Proof:
    return Proof(NOW - age, passed, bubblewrap)


@pytest.mark.parametrize(
    ("days", "last"),
    [
        pytest.param(0, None, id="none is demanded, and there is none"),
        pytest.param(0, proof(dt.timedelta(0), passed=False), id="none is demanded"),
        pytest.param(30, proof(dt.timedelta(0)), id="of this moment"),
        pytest.param(30, proof(dt.timedelta(days=30)), id="as old as it may be"),
        pytest.param(1, proof(dt.timedelta(days=1)), id="of yesterday"),
    ],
)
def test_runs_may_be_in_a_cage_with(days: int, last: Proof | None) -> None:
    policy = factories.policy(sandbox={"proof_days": days})
    assert check_proof(last, BWRAP, policy, NOW) == []


@pytest.mark.parametrize(
    ("last", "seen"),
    [
        pytest.param(None, "the cage was not proved at this site yet", id="none"),
        pytest.param(
            proof(dt.timedelta(days=30, microseconds=1)),
            "the cage was last proved on 2026-10-27",
            id="too old",
        ),
        pytest.param(
            proof(-dt.timedelta(microseconds=1)),
            "the cage was last proved on 2026-11-26",
            id="in the future",
        ),
        pytest.param(
            proof(dt.timedelta(days=1), passed=False),
            "the cage did not hold when it was tried on 2026-11-25",
            id="one that failed",
        ),
        pytest.param(
            proof(dt.timedelta(days=1), bubblewrap="cd" * 32),
            "another bubblewrap builds the cage than the one proved on 2026-11-25",
            id="of another program",
        ),
        pytest.param(
            proof(dt.timedelta(days=1), bubblewrap=""),
            "another bubblewrap builds the cage than the one proved on 2026-11-25",
            id="of no walls",
        ),
    ],
)
def test_nothing_runs_with(last: Proof | None, seen: str) -> None:
    policy = factories.policy(sandbox={"proof_days": 30})
    (finding,) = check_proof(last, BWRAP, policy, NOW)
    assert finding.sentence == (
        f"sandbox.proof: {seen}; allowed: a proof of at most 30 days. "
        "To do: ask the hospital to run `sitegate doctor`."
    )


def test_one_day_is_one_day() -> None:
    policy = factories.policy(sandbox={"proof_days": 1})
    (finding,) = check_proof(proof(dt.timedelta(days=2)), BWRAP, policy, NOW)
    assert finding.allowed == "a proof of at most 1 day"
