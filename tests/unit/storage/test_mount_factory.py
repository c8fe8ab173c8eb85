"""Mounts by a helper that is kept warm, with the union file system as the helper."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from lamina.errors import ProcessFailed
from lamina.kernel import pidfd
from lamina.kernel.mounts import Mount, is_mountpoint
from lamina.storage.mount_factory import MountFactories
from lamina.storage.mount_helper import take_down
from tests.conformance.grounds_aufs import no_union

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def union() -> None:
    if reason := no_union():
        pytest.skip(f"aufs: {reason}")


def wanted(place: Path, name: str = "m", lower: str = "low") -> Mount:
    for part in (f"up-{name}", "low", name):
        (place / part).mkdir(exist_ok=True)
    options = f"br:up-{name}=rw:{lower}=ro"
    helper = (sys.executable, "-P", "-m", "lamina", "unionfs", "-o", options, os.fspath(place / name))
    return Mount("fuse.lamina-unionfs", "none", place / name, cwd=place, helper=helper, factory=5)


def factory_of(place: Path) -> int:
    """The factory is the one process whose working directory is the place; servers leave it."""
    (found,) = [int(name) for name in filter(str.isdecimal, os.listdir("/proc")) if _works_in(name, place)]
    return found


def _works_in(name: str, place: Path) -> bool:
    try:
        return os.readlink(f"/proc/{name}/cwd") == os.fspath(place)
    except OSError:
        return False


def test_one_factory_makes_many_mounts(tmp_path: Path) -> None:
    factories = MountFactories()
    mounts = [wanted(tmp_path, f"m{number}") for number in range(3)]
    try:
        for one in mounts:
            factories.carry_out(one)
            (one.target / "f").write_text(one.target.name)
        assert factory_of(tmp_path)
        assert [(tmp_path / f"up-m{number}/f").read_text() for number in range(3)] == ["m0", "m1", "m2"]
    finally:
        take_down(mounts)


def test_a_failure_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match=r"branch .*absent cannot be used: No such file"):
        MountFactories().carry_out(wanted(tmp_path, lower="absent"))
    assert not is_mountpoint(tmp_path / "m")


def test_the_factory_ends_with_its_owner_and_its_mounts_go_on(tmp_path: Path) -> None:
    factories = MountFactories()
    one = wanted(tmp_path)
    factories.carry_out(one)
    held = pidfd.open_pidfd(factory_of(tmp_path))
    try:
        del factories
        gc.collect()
        assert pidfd.wait_ended(held, 10)
        (one.target / "f").write_text("still served")
    finally:
        pidfd.close(held)
        take_down((one,))


def test_a_factory_that_was_killed_is_started_again(tmp_path: Path) -> None:
    factories = MountFactories()
    first, second = wanted(tmp_path, "m1"), wanted(tmp_path, "m2")
    try:
        factories.carry_out(first)
        held = pidfd.open_pidfd(factory_of(tmp_path))
        pidfd.send(held, 9)
        assert pidfd.wait_ended(held, 10)
        pidfd.close(held)
        factories.carry_out(second)
        for one in (first, second):
            (one.target / "f").write_text("served")
    finally:
        take_down((first, second))
