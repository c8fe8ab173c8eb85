"""The whole machine killed while the driver works, and its disk opened by the next one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.vm.machine import Plan, run, started

pytestmark = [pytest.mark.vm, pytest.mark.slow]

SURVIVOR = (sys.executable, "-m", "tests.unit.storage.zfs.survivor")


@pytest.mark.parametrize(
    ("seed", "cut_at"), [(1, r"^begin 0+6 "), (2, r"^(created|removing) 0+[89]"), (3, r"^removing")]
)
def test_what_was_answered_is_there_after_a_power_cut(tmp_path: Path, seed: int, cut_at: str) -> None:
    """Layers that were sealed are whole, removed ones stay away, what was half made can be removed, nothing leaks."""
    disk = tmp_path / "disk"
    work = Plan(command=[*SURVIVOR, "work", str(seed)], modules=["zfs"], disk=disk, disk_mb=512, timeout_s=300)
    with started(work) as machine:
        assert machine.stdout.wait_for(cut_at, 300), bytes(machine.stdout.data)
        machine.kill()
    ended = run(Plan(command=[*SURVIVOR, "look"], modules=["zfs"], disk=disk, timeout_s=300))
    assert ended.stdout.splitlines()[-1:] != [], ended.stderr.decode()
    assert len(ended.stdout.splitlines()) == 1, ended.stdout.decode()
    assert ended.stdout.startswith(b"consistent"), ended.stdout.decode()
