from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lamina.errors import Conflict, NoSuchLayer
from lamina.ids import CacheId
from lamina.kernel.mounts import Mount, is_mountpoint, mount
from lamina.storage.mounting import Mounts
from lamina.storage.vfs.driver import Vfs

ONE = CacheId("one")


class OverTmpfs(Vfs):
    """A driver whose layers are mounts: real ones, of the simplest file system there is."""

    broken = False
    prepared: frozenset[CacheId] = frozenset()

    def attach(self, cache_id: CacheId) -> tuple[Mount, ...]:
        tree = self.tree(cache_id)
        self.prepared = self.prepared | {cache_id}
        first = Mount("tmpfs", "first", tree, data="size=64k")
        return (first, Mount("no-such-fs", "second", tree)) if self.broken else (first,)

    def detach(self, cache_id: CacheId) -> None:
        self.prepared = self.prepared - {cache_id}


@pytest.fixture
def driver(tmp_path: Path) -> OverTmpfs:
    found = OverTmpfs(tmp_path)
    found.create(ONE, None)
    return found


@pytest.mark.root
class TestMounts:
    def test_the_first_mounts_and_the_last_unmounts(self, driver: OverTmpfs) -> None:
        mounts = Mounts(driver)
        tree = mounts.acquire(ONE)
        mounts.acquire(ONE)
        mounts.release(ONE)
        assert is_mountpoint(tree)
        mounts.release(ONE)
        assert not is_mountpoint(tree)
        assert driver.prepared == set()

    def test_a_block_that_fails_unmounts(self, driver: OverTmpfs) -> None:
        mounts = Mounts(driver)
        with pytest.raises(ZeroDivisionError), mounts.mounted(ONE):
            raise ZeroDivisionError
        assert not is_mountpoint(driver.tree(ONE))

    def test_a_failed_mount_leaves_nothing_and_takes_no_use(self, driver: OverTmpfs) -> None:
        mounts = Mounts(driver)
        driver.broken = True
        with pytest.raises(OSError, match="No such device"):
            mounts.acquire(ONE)
        assert not is_mountpoint(driver.tree(ONE))
        assert driver.prepared == set()
        assert mounts.count(ONE) == 0
        driver.broken = False
        with mounts.mounted(ONE):
            assert mounts.count(ONE) == 1

    def test_a_mount_of_an_earlier_daemon_counts_as_one_use(self, driver: OverTmpfs) -> None:
        mount(driver.attach(ONE)[0])
        mounts = Mounts(driver)
        with mounts.mounted(ONE):
            assert mounts.count(ONE) == 2
        assert is_mountpoint(driver.tree(ONE))
        mounts.release(ONE)
        assert not is_mountpoint(driver.tree(ONE))

    def test_a_mount_that_somebody_else_undid_can_be_released(self, driver: OverTmpfs) -> None:
        mounts = Mounts(driver)
        tree = mounts.acquire(ONE)
        Mounts(driver).release(ONE)
        mounts.release(ONE)
        assert not is_mountpoint(tree)

    def test_threads_that_come_together_share_one_mount(self, driver: OverTmpfs) -> None:
        mounts = Mounts(driver)
        mine = threading.Barrier(8)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                mine.wait(10)
                for _ in range(20):
                    with mounts.mounted(ONE) as tree:
                        assert is_mountpoint(tree)
            except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert not is_mountpoint(driver.tree(ONE))


def test_an_unknown_layer_is_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(NoSuchLayer):
        Mounts(Vfs(tmp_path)).acquire(CacheId("nobody"))


def test_what_nobody_uses_cannot_be_released(tmp_path: Path) -> None:
    driver = Vfs(tmp_path)
    driver.create(ONE, None)
    with pytest.raises(Conflict, match="not mounted"):
        Mounts(driver).release(ONE)
