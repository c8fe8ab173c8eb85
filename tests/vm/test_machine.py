"""The virtual machine itself: what it shows of this machine, how it ends, and that it changes nothing here."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest

from tests.vm.failures import VmFailed
from tests.vm.machine import Plan, run, started

pytestmark = pytest.mark.vm


def test_a_command_comes_back_as_it_ended(tmp_path: Path) -> None:
    """One machine for all that can be asked of a good one."""
    before = os.listdir("/etc")
    script = f"""
        printf 'out\\0\\377\\r\\n'; echo err >&2
        uname -r >/run/share/release
        echo made >/etc/made-in-guest; echo made >/tmp/made-in-guest
        cat {tmp_path}/seen; pwd; echo "$COLOUR"
        dd if=/dev/zero bs=1024 count=2048 status=none
        exit 7
    """
    (tmp_path / "seen").write_text("from the host\n")
    share = tmp_path / "share"
    ended = run(Plan(command=[script], share=share, directory=tmp_path, environment={"COLOUR": "it's blue"}))
    assert ended.code == 7
    assert ended.stdout == b"out\0\xff\r\nfrom the host\n" + f"{tmp_path}\nit's blue\n".encode() + bytes(2048 * 1024)
    assert ended.stderr == b"err\n"
    assert (share / "release").read_text().strip() != platform.release()
    assert os.listdir("/etc") == before
    assert not Path("/tmp/made-in-guest").exists()


def test_a_panic_says_so_with_the_end_of_the_console() -> None:
    with pytest.raises(VmFailed, match=r"(?s)before its command ended.*sysrq triggered crash"):
        run(Plan(command=["echo c >/proc/sysrq-trigger"], timeout_s=120))


def test_a_time_limit_ends_the_machine() -> None:
    began = time.monotonic()
    with pytest.raises(VmFailed, match="the time limit of 10 s is over"):
        run(Plan(command=["sleep 1000"], timeout_s=10))
    assert time.monotonic() - began < 60


def test_the_disk_of_a_killed_machine_can_be_opened_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    writing = "echo whole >/scratch/kept; sync; echo cut now; while :; do echo more >>/scratch/growing; done"
    with started(Plan(command=[writing], disk=disk, disk_mb=64, timeout_s=120)) as machine:
        assert machine.stdout.wait_for("^cut now$", 120)
        machine.kill()
    ended = run(Plan(command=["cat /scratch/kept"], disk=disk, timeout_s=120))
    assert (ended.code, ended.stdout) == (0, b"whole\n")


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(VmFailed, match="failed at modprobe no_such_module"):
        run(Plan(command=["true"], modules=["no_such_module"], timeout_s=120))
