"""The whole machine killed while the driver works, and its disk opened by the next one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.vm.machine import Plan, run, started

pytestmark = [pytest.mark.vm, pytest.mark.slow]

SURVIVOR = (sys.executable, "-m", "tests.unit.storage.devicemapper.survivor")
MODULES = ("loop", "dm_thin_pool", "xfs")


@pytest.mark.parametrize(
    ("fstype", "seed", "cut_at"),
    [("ext4", 1, r"(?m)^begin 0+6 "), ("ext4", 2, r"(?m)^(created|removing) 0+[89]"), ("xfs", 3, r"(?m)^removing")],
)
def test_what_was_answered_is_there_after_a_power_cut(tmp_path: Path, fstype: str, seed: int, cut_at: str) -> None:
    """Layers that were sealed are whole, removed ones stay away, what was half made is gone, and nothing leaks."""
    disk = tmp_path / "disk"
    work = Plan(command=[*SURVIVOR, "work", fstype, str(seed)], modules=MODULES, disk=disk, timeout_s=300)
    with started(work) as machine:
        assert machine.stdout.wait_for(cut_at, 300), bytes(machine.stdout.data)
        machine.kill()
    ended = run(Plan(command=[*SURVIVOR, "look", fstype], modules=MODULES, disk=disk, timeout_s=300))
    lines = ended.stdout.decode().splitlines()
    assert len(lines) == 1, f"{lines}\n{ended.stderr.decode()}"
    assert lines[0].startswith("consistent")
