"""One data root on ZFS, two engines: images, containers and writable layers of each open in the other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lamina.ids import CacheId
from lamina.storage.zfs.driver import Zfs
from tests.conformance.grounds_zfs import command, zfs_dataset
from tests.e2e import images
from tests.e2e.engines import Engine

pytestmark = [pytest.mark.root, pytest.mark.e2e, pytest.mark.vm_guest("zfs"), pytest.mark.timeout(900)]

ALONE = ("--bridge=none", "--iptables=false", "--ip-masq=false")
EDIT = "cat /edit 2>/dev/null; echo {0} >> /edit; rm -rf /etc/group /home; mkdir /home; ln /edit /home/linked"


@pytest.fixture
def pair() -> Iterator[tuple[Engine, Engine]]:
    """Both on the same dataset, as Docker sets one up: the data root is its mount point."""
    place = Path(tempfile.mkdtemp(prefix="lam"))
    with ExitStack() as stack:
        stack.callback(place.rmdir)
        root = place / "r"
        stack.callback(root.rmdir)
        stack.enter_context(zfs_dataset(root))
        ours = Engine(kind="lamina", storage_driver="zfs", data_root=root)
        theirs = Engine(kind="dockerd", storage_driver="zfs", data_root=root, arguments=ALONE)
        stack.callback(ours.destroy)
        stack.callback(theirs.destroy)
        yield ours, theirs


def fill(engine: Engine, name: str) -> None:
    """A container that ran and changed things, and an image of its changes."""
    engine.docker("run", "--name", name, "--net", "none", "busybox", "sh", "-c", EDIT.format(name))
    engine.docker("commit", "-c", 'CMD ["cat", "/home/linked"]', name, f"{name}/committed")


def told(engine: Engine) -> dict[str, str]:
    """What there is, as both engines say it."""
    found = {"images": engine.out("images", "-a", "--no-trunc", "--format", "{{.Repository}} {{.ID}}")}
    for name in engine.out("ps", "-a", "--format", "{{.Names}}").splitlines():
        found[f"diff {name}"] = "\n".join(sorted(engine.out("diff", name).splitlines()))
        found[f"layer {name}"] = engine.out("inspect", "-f", "{{.Id}} {{.Image}} {{json .GraphDriver}}", name)
    return found


def datasets(parent: str) -> set[str]:
    names = command("zfs", "list", "-rHo", "name", "-t", "all", parent).split()
    return {name.removeprefix(f"{parent}/") for name in names} - {parent}


def test_each_opens_what_the_other_made(pair: tuple[Engine, Engine]) -> None:
    ours, theirs = pair
    root = Path(ours.data_root or "")
    parent = command("zfs", "list", "-Ho", "name", os.fspath(root)).strip()
    theirs.start(60)
    theirs.docker("load", stdin=images.busybox())
    fill(theirs, "theirs")
    made = told(theirs)
    assert "D /etc/group" in made["diff theirs"].splitlines()
    theirs.stop()

    ours.start(60)
    assert told(ours) == made
    assert ours.out("start", "-a", "theirs") == "theirs"
    assert ours.out("run", "--rm", "--net", "none", "theirs/committed") == "theirs"
    fill(ours, "ours")
    made = told(ours)
    ours.stop()

    theirs.start(60)
    assert told(theirs) == made
    assert theirs.out("start", "-a", "theirs") == "theirs\ntheirs"
    assert theirs.out("start", "-a", "ours") == "ours"
    assert theirs.out("run", "--rm", "--net", "none", "ours/committed") == "ours"
    theirs.docker("rm", "theirs", "ours")
    theirs.docker("rmi", "ours/committed")
    theirs.stop()

    ours.start(60)
    ours.docker("rmi", "theirs/committed", "busybox")
    assert ours.out("images", "-aq") == ""
    ours.stop()
    assert datasets(parent) == set(), "neither leaves a dataset or a snapshot behind"


def test_a_layer_between_dockerds_layers_leaves_no_trace(pair: tuple[Engine, Engine]) -> None:
    """The driver alone, on what dockerd made: it knows which layers are there, and adds one without changing any."""
    _, theirs = pair
    root = Path(theirs.data_root or "")
    theirs.start(60)
    theirs.docker("load", stdin=images.busybox())
    theirs.docker("create", "--name", "made", "--net", "none", "busybox", "true")
    theirs.stop()
    parent = command("zfs", "list", "-Ho", "name", os.fspath(root)).strip()
    before = datasets(parent)
    driver = Zfs(root)
    assert driver.cache_ids() == {name for name in before if "@" not in name}
    (init,) = (name for name in driver.cache_ids() if name.endswith("-init"))
    driver.seal(init, durable=False)
    driver.create(CacheId("of-ours"), init)
    driver.remove(CacheId("of-ours"))
    driver.close()
    assert datasets(parent) == before
    theirs.start(60)
    theirs.docker("start", "-a", "made")
