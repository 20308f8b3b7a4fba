"""A policy that demands a proof of the cage: nothing runs without one, and the site makes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import factories
from datasites.audit_log import read_events
from federation.errors import RefusedError
from hospitals import Hospital, make_hospital, start

REFUSED = (
    "sandbox.proof: the cage was not proved at this site yet; allowed: a proof of at most 30 days. "
    "To do: ask the hospital to run `sitegate doctor`."
)


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A site whose policy demands a proof of at most 30 days."""
    made = make_hospital(
        tmp_path_factory.mktemp("careful") / "site", example="seaside", sandbox={"proof_days": 30}
    )
    try:
        start(made)
        yield made
    finally:
        made.trial.stop()


def test_nothing_runs_until_the_cage_is_proved_and_a_restart_forgets_no_proof(
    careful: Hospital,
) -> None:
    study = careful.submit(careful.connect(), factories.DOUBLE_JOB)
    with pytest.raises(RefusedError) as refused:
        careful.run(study)
    assert [finding.sentence for finding in refused.value.findings] == [REFUSED]
    assert careful.trial.control.status()["sandbox_proof"].startswith("not proved yet")

    checks = careful.trial.control.examine()
    assert len(checks) > 30
    assert all(check["ok"] for check in checks), checks
    assert careful.trial.control.status()["sandbox_proof"].startswith("proved ")
    update = careful.run(study)
    np.testing.assert_array_equal(update.weights["w"], factories.weights()["w"] * 2)

    careful.trial.stop()
    careful.trial.launch()
    careful.trial.wait_until_up()
    again = careful.connect().study(study.job, study.wanted, study.requests)
    np.testing.assert_array_equal(
        careful.run(again, round_number=2).weights["w"], factories.weights()["w"] * 2
    )
    told = [line for line in read_events(Path(careful.trial.site.audit))
            if line["subject"] == "sandbox"]  # fmt: skip
    assert [line["event"] for line in told] == ["sandbox proved"]
    assert told[0]["detail"] == {"tried": len(checks), "failed": []}
