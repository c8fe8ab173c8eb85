"""Mounts that a program makes and serves."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.errors import ProcessFailed, Unavailable, Unsupported
from lamina.ids import CacheId
from lamina.kernel import libc, pidfd
from lamina.kernel.mounts import Mount, is_mountpoint, is_served, mount, unmount
from lamina.storage.mount_helper import carry_out, take_down
from lamina.storage.mounting import Mounts
from lamina.storage.vfs.driver import Vfs
from tests.fakes import fuse_stub

pytestmark = pytest.mark.root

ONE = CacheId("one")


def served(target: Path) -> Mount:
    return Mount("fuse.stub", "stub", target, helper=(sys.executable, fuse_stub.__file__, os.fspath(target)))


def end_server(target: Path) -> None:
    with pidfd_of(target) as fd:
        pidfd.send(fd, signal.SIGKILL)
        assert pidfd.wait_ended(fd, 10)


class pidfd_of:  # noqa: N801 - used as a function
    """The server that a stub left behind, held by descriptor."""

    def __init__(self, target: Path) -> None:
        self._fd = pidfd.open_pidfd(int(target.with_name(target.name + ".pid").read_text()))

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        pidfd.close(self._fd)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "target"
    place.mkdir()
    yield place
    if is_mountpoint(place):
        unmount(place, detach=True)


class TestCarryingOut:
    def test_a_helper_mounts_and_leaves_a_server_in_a_session_of_its_own(self, target: Path) -> None:
        carry_out(served(target))
        assert is_mountpoint(target)
        assert os.listdir(target) == []
        server = int(target.with_name("target.pid").read_text())
        assert os.getsid(server) != os.getsid(0)

    def test_the_server_ends_with_the_mount(self, target: Path) -> None:
        carry_out(served(target))
        with pidfd_of(target) as server:
            take_down((served(target),))
            assert pidfd.wait_ended(server, 10)
        assert not is_mountpoint(target)

    def test_what_a_failed_helper_said_is_told(self, target: Path) -> None:
        helper = ("sh", "-c", "echo 'no such branch: x' >&2; exit 3")
        with pytest.raises(ProcessFailed, match=r"fuse.x could not be mounted on .*/target: no such branch: x"):
            carry_out(Mount("fuse.x", "x", target, helper=helper))

    def test_a_silent_failure_is_told_too(self, target: Path) -> None:
        with pytest.raises(ProcessFailed, match="status 3"):
            carry_out(Mount("fuse.x", "x", target, helper=("sh", "-c", "exit 3")))

    def test_a_helper_that_mounts_nothing_has_failed(self, target: Path) -> None:
        with pytest.raises(ProcessFailed, match="mounted nothing"):
            carry_out(Mount("fuse.x", "x", target, helper=("true",)))

    def test_a_helper_that_fails_after_mounting_leaves_nothing_mounted(self, target: Path) -> None:
        helper = ("sh", "-c", f"mount -t tmpfs none {target} && exit 1")
        with pytest.raises(ProcessFailed):
            carry_out(Mount("fuse.x", "x", target, helper=helper))
        assert not is_mountpoint(target)

    def test_a_helper_that_is_not_installed_is_named(self, target: Path) -> None:
        with pytest.raises(Unsupported, match="no-such-helper"):
            carry_out(Mount("fuse.x", "x", target, helper=("no-such-helper",)))

    def test_a_helper_is_started_in_the_mounts_directory(self, target: Path) -> None:
        carry_out(Mount("tmpfs", "x", target, cwd=target.parent, helper=("mount", "-t", "tmpfs", "none", "target")))
        assert is_mountpoint(target)

    def test_the_kernels_own_mounts_need_no_helper(self, target: Path) -> None:
        wanted = Mount("tmpfs", "x", target, data="size=64k")
        carry_out(wanted)
        assert is_mountpoint(target)
        take_down((wanted,))
        take_down((wanted,))
        assert not is_mountpoint(target)

    def test_a_change_of_a_mount_is_not_unmounted_by_itself(self, target: Path) -> None:
        below, above = Mount("tmpfs", "below", target), Mount("tmpfs", "above", target)
        carry_out(below)
        carry_out(above)
        change = Mount("tmpfs", "above", target, libc.MS_REMOUNT, data="size=64k")
        carry_out(change)
        take_down((above, change))
        assert is_mountpoint(target)
        take_down((below,))
        assert not is_mountpoint(target)

    def test_the_program_that_comes_before_the_unmount_sees_the_mount(self, target: Path) -> None:
        flush = ("sh", "-c", f"mountpoint -q {target} && touch {target.parent}/seen")
        wanted = Mount("tmpfs", "x", target, flush=flush)
        carry_out(wanted)
        take_down((wanted,))
        assert (target.parent / "seen").exists()

    def test_the_kernel_alone_is_not_asked_for_what_a_helper_mounts(self, target: Path) -> None:
        with pytest.raises(OSError, match="mount helper"):
            mount(served(target))


class OnStub(Vfs):
    """A driver whose layers are served by a process; the place lies beside the layer, as nobody may look into it."""

    def tree(self, cache_id: CacheId) -> Path:
        return super().tree(cache_id).parent.parent / f"{cache_id}-served"

    def mount_point(self, cache_id: CacheId) -> Path:
        return self.tree(cache_id)

    def attach(self, cache_id: CacheId) -> tuple[Mount, ...]:
        return (served(self.tree(cache_id)),)


class TestADeadServer:
    @pytest.fixture
    def driver(self, tmp_path: Path) -> Iterator[OnStub]:
        found = OnStub(tmp_path)
        found.create(ONE, None)
        found.tree(ONE).mkdir()
        yield found
        if is_mountpoint(found.mount_point(ONE)):
            unmount(found.mount_point(ONE), detach=True)

    def test_it_is_told_from_a_living_one(self, target: Path) -> None:
        assert is_served(target)
        carry_out(served(target))
        assert is_served(target)
        end_server(target)
        assert not is_served(target)
        assert is_mountpoint(target)

    def test_its_mount_is_made_anew_when_nobody_uses_it(self, driver: OnStub) -> None:
        tree = Mounts(driver).acquire(ONE)
        end_server(tree)
        mounts = Mounts(driver)
        with mounts.mounted(ONE):
            assert os.listdir(tree) == []
        assert not is_mountpoint(tree)

    def test_who_comes_while_it_is_used_is_told(self, driver: OnStub) -> None:
        mounts = Mounts(driver)
        tree = mounts.acquire(ONE)
        end_server(tree)
        with pytest.raises(Unavailable, match="the process that served it has ended"):
            mounts.acquire(ONE)
        mounts.release(ONE)
        assert not is_mountpoint(tree)
        with mounts.mounted(ONE):
            assert is_served(tree)

    def test_a_container_that_was_found_alive_uses_it(self, driver: OnStub) -> None:
        tree = Mounts(driver).acquire(ONE)
        end_server(tree)
        mounts = Mounts(driver)
        mounts.recover({ONE})
        with pytest.raises(Unavailable):
            mounts.acquire(ONE)
        mounts.release(ONE)
        assert not is_mountpoint(tree)

    def test_recovery_clears_the_mounts_of_dead_servers(self, driver: OnStub) -> None:
        tree = Mounts(driver).acquire(ONE)
        end_server(tree)
        assert Mounts(driver).recover(()) == [ONE]
        assert not is_mountpoint(tree)
