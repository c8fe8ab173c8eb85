"""Removing a layer that somebody still uses: refused or done, never half, and nothing is left for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from lamina.errors import LayerInUse
from lamina.ids import CacheId
from lamina.kernel.mounts import is_mountpoint, unmount
from lamina.storage.mount_helper import carry_out
from tests.conformance.conftest import Bench, names_below
from tests.conformance.trees import BASE, Write

pytestmark = pytest.mark.root

CHILD = CacheId("child")


@contextmanager
def an_open_file(tree: Path) -> Iterator[None]:
    with (tree / "mine").open("r+b"):
        yield


@contextmanager
def a_working_directory(tree: Path) -> Iterator[None]:
    with _process(f"import os; os.chdir({os.fspath(tree)!r})"):
        yield


@contextmanager
def a_mount_namespace(tree: Path) -> Iterator[None]:
    """A namespace made while the layer was mounted: it has a copy of the mount, and hears of no unmount."""
    private = "libc.mount(b'none', b'/', None, 0x44000, None)"  # MS_REC | MS_PRIVATE
    with _process(f"import ctypes; libc = ctypes.CDLL(None); assert libc.unshare(0x20000) == 0; {private}"):
        yield


@contextmanager
def _process(preparing: str) -> Iterator[None]:
    """A process that has done something and holds on to it until its input ends."""
    script = f"{preparing}\nimport sys\nprint('ready', flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


Holder = Callable[[Path], AbstractContextManager[None]]
HOLDERS: tuple[Holder, ...] = (an_open_file, a_working_directory, a_mount_namespace)


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: holder.__name__)
def test_a_layer_that_a_process_holds_is_removed_now_or_when_it_lets_go(bench: Bench, holder: Holder) -> None:
    bench.layer("base", None, *BASE, sealed=True)
    before = names_below(bench)
    bench.layer("child", "base", Write("mine", b"m"))
    tree = bench.mounts.acquire(CHILD)
    with holder(tree):
        bench.mounts.release(CHILD)
        assert not is_mountpoint(bench.driver.mount_point(CHILD))
        try:
            bench.driver.remove(CHILD)
        except LayerInUse:
            assert CHILD in bench.driver.cache_ids(), "what was refused is still known"
    bench.driver.remove(CHILD)
    assert bench.driver.cache_ids() == {"base"}
    bench.reopen()
    assert bench.driver.cache_ids() == {"base"}
    assert names_below(bench) - before == set()
    assert bench.shows("base")["a file"].content == b"content"


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: holder.__name__)
def test_a_layer_that_a_process_holds_can_be_mounted_again(bench: Bench, holder: Holder) -> None:
    """A container that is started again while something of its last run lingers."""
    bench.layer("base", None, *BASE, sealed=True)
    bench.layer("child", "base", Write("mine", b"m"))
    tree = bench.mounts.acquire(CHILD)
    with holder(tree):
        bench.mounts.release(CHILD)
        assert bench.shows("child")["mine"].content == b"m"
    bench.edit("child", Write("late", b"l"))
    assert bench.shows("child")["late"].content == b"l"


def test_a_layer_whose_mount_the_daemon_before_left_is_removed_after_recovery(bench: Bench) -> None:
    bench.layer("base", None, *BASE, sealed=True)
    bench.layer("child", "base", Write("mine"))
    bench.mounts.acquire(CHILD)
    bench.reopen()
    bench.mounts.drop(CHILD)
    bench.driver.remove(CHILD)
    assert bench.driver.cache_ids() == {"base"}


def test_a_layer_attached_but_never_mounted_is_removed_after_a_restart(bench: Bench) -> None:
    """Killed between the two."""
    bench.layer("base", None, *BASE, sealed=True)
    before = names_below(bench)
    bench.layer("child", "base", Write("mine"))
    bench.driver.attach(CHILD)
    bench.reopen()
    assert bench.shows("child")["mine"].kind == "-"
    bench.driver.attach(CHILD)
    bench.reopen()
    bench.driver.detach(CHILD)
    bench.driver.remove(CHILD)
    assert names_below(bench) == before


def test_something_mounted_inside_a_layer_is_never_entered(bench: Bench, place: Path) -> None:
    """What a container mounted, or a volume that was not unmounted: its files are not the layer's."""
    outside = place / "outside"
    outside.mkdir()
    (outside / "precious").write_text("p")
    bench.layer("base", None, *BASE, sealed=True)
    bench.layer("child", "base")
    tree = bench.mounts.acquire(CHILD)
    subprocess.run(["mount", "--bind", outside, tree / "etc"], check=True)
    bench.mounts.release(CHILD)
    try:
        bench.driver.remove(CHILD)
    except LayerInUse:
        unmount(tree / "etc")
        bench.driver.remove(CHILD)
    assert (outside / "precious").read_text() == "p"
    assert bench.driver.cache_ids() == {"base"}


def test_a_mounted_parent_does_not_hinder_its_children(bench: Bench) -> None:
    bench.layer("base", None, *BASE, sealed=True)
    bench.layer("middle", "base", Write("m"), sealed=True)
    with bench.mounts.mounted(CacheId("middle")) as below:
        bench.layer("child", "middle", Write("mine"))
        with bench.mounts.mounted(CHILD) as tree:
            assert {"m", "mine"} < set(os.listdir(tree))
            assert "mine" not in os.listdir(below)
        bench.driver.remove(CHILD)
        assert (below / "m").exists()


def test_mounting_again_what_is_mounted_already_is_seen(bench: Bench) -> None:
    """By hand, behind the engine's back: the first use counts it, so that it goes with the last."""
    bench.layer("base", None, *BASE, sealed=True)
    bench.layer("child", "base")
    wanted = bench.driver.attach(CHILD)
    if not wanted:
        return  # nothing is ever mounted
    for one in wanted:
        carry_out(one)
    bench.reopen()
    assert bench.mounts.count(CHILD) == 1
    bench.mounts.release(CHILD)
    assert not is_mountpoint(bench.driver.mount_point(CHILD))
