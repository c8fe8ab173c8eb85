"""Limits by project quotas: overlay2 and vfs on xfs and on ext4, in the machine whose kernel keeps quotas."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.errors import InvalidArgument
from lamina.ids import CacheId
from lamina.kernel.quota import project_of, usage_of_project
from lamina.layers.store import LayerStore
from lamina.storage.driver import LimitsSize
from lamina.storage.overlay2.driver import Overlay2
from lamina.storage.vfs.driver import Vfs
from tests.conformance.conftest import Bench, benched
from tests.conformance.grounds import ext4_with_project_quotas, xfs_with_project_quotas
from tests.conformance.hosts import Host
from tests.conformance.trees import BASE, MakeDir, Remove, Rename, Write

pytestmark = [pytest.mark.root, pytest.mark.vm_guest("devicemapper")]

HOSTS = {"overlay2": Host("overlay2", Overlay2), "vfs": Host("vfs", Vfs)}
GROUNDS = {"xfs": xfs_with_project_quotas, "ext4": ext4_with_project_quotas}
CHILD = CacheId("child")
LIMIT = 8 << 20


@pytest.fixture(params=[f"{driver} on {ground}" for driver in HOSTS for ground in GROUNDS])
def limited(request: pytest.FixtureRequest, place: Path) -> Iterator[Bench]:
    driver, _, ground = str(request.param).partition(" on ")
    with benched(HOSTS[driver], GROUNDS[ground], place / "ground") as bench:
        bench.layer("base", None, *BASE, sealed=True)
        bench.layer("child", "base")
        limit(bench, "child")
        yield bench


def limit(bench: Bench, name: str, limit_bytes: int = LIMIT) -> None:
    assert isinstance(bench.driver, LimitsSize)
    bench.driver.limit_size(CacheId(name), limit_bytes)


def home(bench: Bench) -> Path:
    return bench.root / ("overlay2" if bench.driver.name == "overlay2" else "vfs/dir")


def fill(place: Path, size: int) -> None:
    """As a container's process, which may not do what root may: ext4 lets root exceed any limit (CAP_SYS_RESOURCE)."""
    less = ["setpriv", "--bounding-set=-sys_resource"]
    copy = ["dd", "if=/dev/urandom", f"of={place}", "bs=1M", f"count={size >> 20}", "conv=fsync"]
    done = subprocess.run([*less, *copy], capture_output=True, text=True, check=False)
    for code in (errno.EDQUOT, errno.ENOSPC):
        if os.strerror(code) in done.stderr:
            raise OSError(code, os.strerror(code), os.fspath(place))
    assert done.returncode == 0, done.stderr


def test_a_layer_takes_what_it_may_and_no_more(limited: Bench) -> None:
    with limited.mounts.mounted(CHILD) as tree:
        fill(tree / "half", LIMIT // 2)
        with pytest.raises(OSError) as told:  # noqa: PT011 - which error is asserted on
            fill(tree / "more", LIMIT)
        assert told.value.errno in {errno.EDQUOT, errno.ENOSPC}
        os.unlink(tree / "more")
        fill(tree / "fits", LIMIT // 4)
    limited.layer("free", "base")
    with limited.mounts.mounted(CacheId("free")) as tree:
        fill(tree / "large", 2 * LIMIT)


def test_everything_works_in_a_limited_layer(limited: Bench) -> None:
    """A file that moved between projects would give EXDEV."""
    before = limited.shows("base")
    edits = (Rename("a file", "etc/moved"), Rename("etc/mtab", "mtab"), Remove("etc/hosts"), MakeDir("d"), Write("d/f"))
    limited.edit("child", *edits)
    limited.reopen()
    assert {"etc/moved", "mtab", "d/f"} <= limited.shows("child").keys()
    with limited.mounts.mounted(CHILD) as tree, pytest.raises(OSError):  # noqa: PT011 - as above
        fill(tree / "d/more", 2 * LIMIT)
    assert limited.shows("base") == before


def test_projects_are_numbered_as_docker_does(limited: Bench) -> None:
    assert project_of(home(limited) / "child") == 1
    limited.layer("second", "base")
    limit(limited, "second")
    assert project_of(home(limited) / "second") == 2
    limited.driver.remove(CHILD)
    limited.reopen()
    limited.layer("third", "base")
    limit(limited, "third")
    assert project_of(home(limited) / "third") == 3


def test_a_limit_can_be_changed_and_goes_with_its_layer(limited: Bench) -> None:
    device = home(limited) / "backingFsBlockDev"
    if limited.driver.name == "vfs":
        device = limited.root / "vfs/backingFsBlockDev"
    assert usage_of_project(device, 1).limit_bytes == LIMIT
    limit(limited, "child", 2 * LIMIT)
    assert usage_of_project(device, 1).limit_bytes == 2 * LIMIT
    with limited.mounts.mounted(CHILD) as tree:
        fill(tree / "f", LIMIT + (1 << 20))
    assert LIMIT < usage_of_project(device, 1).used_bytes < 2 * LIMIT
    limited.driver.remove(CHILD)
    assert limit_left(device) == 0


def limit_left(device: Path) -> int:
    """What the first project may still take; xfs forgets a project without limit and files."""
    try:
        return usage_of_project(device, 1).limit_bytes
    except (FileNotFoundError, ProcessLookupError):
        return 0


@pytest.mark.parametrize(("driver", "option"), [(Overlay2, "overlay2.size"), (Vfs, "size")])
def test_the_drivers_option_limits_every_writable_layer(place: Path, driver: type[Overlay2 | Vfs], option: str) -> None:
    with xfs_with_project_quotas(place / "ground") as ground:
        host = Host("with a default", lambda root: driver(root, {option: "8M"}))
        bench = Bench(host, ground / "root")
        store = LayerStore(ground / "root/layerdb", bench.driver, bench.mounts)
        assert store.load() == []
        store.create_rw("c", None, prepare=None)
        tree = store.mount_rw("c")
        with pytest.raises(OSError):  # noqa: PT011 - as above
            fill(tree / "f", 2 * LIMIT)
        store.unmount_rw("c")
        bench.close()


def test_no_bytes_are_no_limit(limited: Bench) -> None:
    with pytest.raises(InvalidArgument):
        limit(limited, "child", 0)
