"""On file systems that share blocks between files, a copy of a layer or of a file costs next to no room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.ids import CacheId
from lamina.storage.overlay2.driver import Overlay2
from lamina.storage.vfs.driver import Vfs
from tests.conformance.conftest import Bench
from tests.conformance.grounds import MountRefusedError, image_file
from tests.conformance.hosts import Host
from tests.conformance.trees import Append, Write

pytestmark = pytest.mark.root

MAKE = {"btrfs": ("mkfs.btrfs", "-q"), "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1")}
SIZE = 40 << 20


@pytest.fixture(params=MAKE)
def ground(request: pytest.FixtureRequest, place: Path) -> Iterator[Path]:
    try:
        with image_file(place / "g", MAKE[request.param], size_bytes=1 << 30) as found:
            yield found
    except MountRefusedError as error:
        pytest.skip(f"{request.param} cannot be mounted here: {error}")


def used(bench: Bench) -> int:
    os.sync()
    status = os.statvfs(bench.root)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.mark.parametrize("driver", [Vfs, Overlay2], ids=["vfs", "overlay2"])
def test_a_copy_shares_its_blocks(ground: Path, driver: type[Vfs | Overlay2]) -> None:
    """vfs copies the layer when it is created, overlay the file when it is first written to."""
    bench = Bench(Host(driver.name, driver), ground / "root")
    content = os.urandom(SIZE)
    bench.layer("base", None, Write("big", content), sealed=True)
    before = used(bench)
    bench.layer("child", "base", Append("big", b"more"))
    assert used(bench) - before < SIZE // 4
    assert bench.shows("child")["big"].content == content + b"more"
    assert bench.shows("base")["big"].content == content
    bench.driver.remove(CacheId("child"))
    bench.close()
