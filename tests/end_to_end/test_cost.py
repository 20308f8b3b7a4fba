"""What a site does not load, write or keep: sites stay small."""

from __future__ import annotations

from pathlib import Path

import psutil

import factories


def test_a_site_loads_torch_in_its_cages_only(hospital, rita):
    hospital.run(hospital.submit(rita, factories.DOUBLE_JOB))
    site = hospital.trial.process_id
    loads_torch = {
        process.pid: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
        for process in (psutil.Process(site), *psutil.Process(site).children(recursive=True))
    }
    assert not loads_torch.pop(site)
    assert any(loads_torch.values())
