"""Mounting a driver's layers: once for all users, found again after a restart, left by the last one."""

from __future__ import annotations

import pytest

from lamina.errors import LayerInUse
from lamina.ids import CacheId
from lamina.kernel.mounts import is_mountpoint
from lamina.storage.driver import Rebases, StorageDriver
from lamina.storage.mount_helper import carry_out, take_down
from tests.conformance.conftest import Bench
from tests.conformance.trees import (
    BASE,
    Write,
)

pytestmark = pytest.mark.root


class TestMounting:
    def test_attaching_and_detaching_twice_is_fine(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        assert bench.driver.attach(CacheId("child")) == bench.driver.attach(CacheId("child"))
        bench.driver.detach(CacheId("child"))
        bench.driver.detach(CacheId("child"))

    def test_a_mount_lasts_until_its_last_user_is_gone(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        with bench.mounts.mounted(CacheId("child")) as tree:
            with bench.mounts.mounted(CacheId("child")):
                pass
            assert (tree / "a file").exists()

    def test_what_was_mounted_before_a_restart_counts_as_one_use(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        bench.mounts.acquire(CacheId("child"))
        place = bench.driver.mount_point(CacheId("child"))
        if not bench.driver.attach(CacheId("child")):
            return  # nothing is ever mounted
        bench.reopen()
        with bench.mounts.mounted(CacheId("child")):
            pass
        assert is_mountpoint(place), "a short use took the container's root away"
        bench.mounts.release(CacheId("child"))
        assert not is_mountpoint(place)

    def test_recovery_unmounts_what_no_container_uses(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        places = {}
        for name in ("dead", "live"):
            bench.layer(name, "base")
            bench.mounts.acquire(CacheId(name))
            places[name] = bench.driver.mount_point(CacheId(name))
        if not bench.driver.attach(CacheId("live")):
            return  # nothing is ever mounted
        bench.reopen()
        assert bench.mounts.recover({CacheId("live")}) == ["dead"]
        assert not is_mountpoint(places["dead"])
        assert is_mountpoint(places["live"])
        bench.mounts.release(CacheId("live"))

    def test_the_mounts_a_driver_names_can_be_made_by_anybody(self, bench: Bench) -> None:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base", Write("mine"))
        wanted = bench.driver.attach(CacheId("child"))
        for one in wanted:
            carry_out(one)
        assert (bench.driver.tree(CacheId("child")) / "mine").exists()
        take_down(wanted)
        bench.driver.detach(CacheId("child"))

    def test_closing_twice_is_fine(self, bench: Bench) -> None:
        bench.driver.close()
        bench.driver.close()


class TestFillingBeforeTheParent:
    def test_a_layer_filled_first_shows_its_parent_after_rebase(self, bench: Bench) -> None:
        driver = bench.driver
        if not isinstance(driver, Rebases):
            assert not hasattr(driver, "rebase")
            return
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("early", None, Write("mine", b"m"))
        driver.rebase(CacheId("early"), CacheId("base"))
        driver.rebase(CacheId("early"), CacheId("base"))
        bench.reopen()
        tree = bench.shows("early")
        assert tree["mine"].content == b"m"
        assert tree["a file"].content == b"content"
        with pytest.raises(LayerInUse):
            bench.driver.remove(CacheId("base"))

    def test_rebase_wants_an_open_layer_and_a_sealed_parent(self, bench: Bench) -> None:
        driver: StorageDriver = bench.driver
        if not isinstance(driver, Rebases):
            return
        bench.layer("base", None, sealed=True)
        bench.layer("open", None)
        bench.layer("other", None)
        with pytest.raises(LayerInUse):
            driver.rebase(CacheId("other"), CacheId("open"))
        with pytest.raises(LayerInUse):
            driver.rebase(CacheId("base"), CacheId("base"))
