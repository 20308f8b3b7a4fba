"""Runs at a real site: process of its own, TLS, gate, sandbox, audit."""

from __future__ import annotations

import numpy as np

import factories


def test_approved_job_runs_and_releases_exactly_what_it_returned(hospital, rita):
    study = hospital.submit(rita, factories.DOUBLE_JOB)
    update = hospital.run(study)
    np.testing.assert_array_equal(update.weights["w"], [0, 2, 4, 6])
    assert update.examples == 120
    assert update.metrics == {"loss": 0.5}
