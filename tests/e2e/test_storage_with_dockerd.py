"""The drivers' directories against those of a dockerd that we did not write: files, modes, contents, changes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.ids import CacheId
from lamina.layers.init import init_layer
from lamina.rootfs.diff import changes, upper_changes
from lamina.storage.driver import TellsChanges
from lamina.storage.mounting import Mounts
from lamina.storage.overlay2.driver import Overlay2
from lamina.storage.select import choose_driver
from tests.conformance.trees import shown
from tests.e2e import images
from tests.e2e.engines import Engine
from tests.e2e.grounds import data_root_for

LAYERS_IN = {"overlay2": ".", "vfs": "dir", "btrfs": "subvolumes"}
EDIT = "echo x > /new; rm -rf /etc; mkdir /etc; echo y > /etc/only; chmod 700 /bin; ln /new /linked; rm -f /tmp/none"


@pytest.fixture
def dockerd(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A dockerd with an image of several layers and one container that ran and changed things."""
    with data_root_for(request.param) as data_root:
        engine = Engine(
            kind="dockerd",
            storage_driver=request.param,
            data_root=data_root,
            arguments=("--bridge=none", "--iptables=false", "--ip-masq=false"),
        )
        try:
            engine.start()
            engine.docker("load", stdin=images.busybox())
            engine.docker(
                "run", "--name", "base", "--net", "none", "busybox", "sh", "-c", "echo 1 > /one; rm -f /etc/group"
            )
            engine.docker("commit", "base", "two-layers")
            engine.docker("rm", "base")
            engine.docker("run", "--name", "edited", "--net", "none", "two-layers", "sh", "-c", EDIT)
            yield engine
        finally:
            engine.destroy()


def rw_ids(engine: Engine) -> tuple[CacheId, CacheId]:
    """(mount id, init id) of the one container."""
    assert engine.data_root is not None
    (record,) = (engine.data_root / "image" / engine.storage_driver / "layerdb/mounts").iterdir()
    return CacheId((record / "mount-id").read_text()), CacheId((record / "init-id").read_text())


def shape(layer: Path) -> dict[str, str]:
    """Names, types and modes of what a driver keeps for one layer; the layer's own content is not part of it."""
    found = {".": stat.filemode(layer.lstat().st_mode)}
    for name in sorted(os.listdir(layer)):
        found[name] = stat.filemode((layer / name).lstat().st_mode)
    if (layer / "work").exists():
        found.update(
            {
                f"work/{name}": stat.filemode((layer / "work" / name).lstat().st_mode)
                for name in os.listdir(layer / "work")
            }
        )
    return found


def our_stack(root: Path, depth: int) -> Path:
    """As many image layers, an init layer and a writable layer, made and mounted as a container's are."""
    driver = Overlay2(root)
    mounts = Mounts(driver)
    parent: CacheId | None = None
    for number in range(depth):
        driver.create(CacheId(f"layer-{number}"), parent)
        parent = CacheId(f"layer-{number}")
        driver.seal(parent)
    for name, prepare in (("rw-init", True), ("rw", False)):
        driver.create(CacheId(name), parent)
        with mounts.mounted(CacheId(name)) as tree:
            if prepare:
                init_layer(tree)
        if prepare:
            driver.seal(CacheId(name), durable=False)
        parent = CacheId(name)
    return root / "overlay2"


@pytest.mark.parametrize("dockerd", ["overlay2"], indirect=True)
def test_overlay2_keeps_for_every_layer_what_dockerd_keeps(dockerd: Engine, tmp_path: Path) -> None:
    dockerd.stop()
    assert dockerd.data_root is not None
    theirs = dockerd.data_root / "overlay2"
    stack = [name for name in os.listdir(theirs) if name != "l"]
    stack.sort(key=lambda name: (theirs / name / "lower").stat().st_size if (theirs / name / "lower").exists() else 0)
    ours = our_stack(tmp_path, len(stack) - 2)
    mine = [*(f"layer-{number}" for number in range(len(stack) - 2)), "rw-init", "rw"]
    top_theirs, base_mine = shape(theirs / stack[-3]), shape(ours / mine[0])
    # work/work is made by the kernel at the first mount, which an image layer need not have had.
    assert {name: mode for name, mode in top_theirs.items() if name != "work/work"} == shape(ours / mine[-3])
    assert shape(theirs / stack[0]) == base_mine
    assert [shape(theirs / name) for name in stack[-2:]] == [shape(ours / name) for name in mine[-2:]]
    for names, home in ((stack, theirs), (mine, ours)):
        links = [(home / name / "link").read_text() for name in names]
        for number, name in enumerate(names[1:], 1):
            assert (home / name / "lower").read_text() == ":".join(f"l/{link}" for link in reversed(links[:number]))
            assert os.readlink(home / "l" / links[number]) == f"../{name}/diff"
    assert stat.filemode((ours / "l").stat().st_mode) == stat.filemode((theirs / "l").stat().st_mode)
    assert stat.filemode(ours.stat().st_mode) == stat.filemode(theirs.stat().st_mode)


@pytest.mark.parametrize("dockerd", ["overlay2", "vfs", "btrfs"], indirect=True)
def test_what_dockerd_wrote_opens_here_and_dockerd_goes_on(dockerd: Engine) -> None:
    """Ids, changes and trees are dockerd's; a layer of ours comes and goes; the container is as it was."""
    told = sorted(dockerd.out("diff", "edited").splitlines())
    assert "A /new" in told
    described = dockerd.out("inspect", "-f", "{{json .GraphDriver.Data}}", "edited")
    dockerd.stop()
    assert dockerd.data_root is not None
    home = dockerd.data_root / dockerd.storage_driver
    directory = home / LAYERS_IN[dockerd.storage_driver]
    expected = {entry.name for entry in directory.iterdir() if entry.is_dir() and entry.name != "l"}
    driver = choose_driver(dockerd.data_root, dockerd.storage_driver, {})
    assert driver.cache_ids() == expected
    rw, init = rw_ids(dockerd)
    mounts = Mounts(driver)
    with mounts.mounted(rw) as new, mounts.mounted(init) as old:
        found = changes(new, old)
        content = shown(new)
    assert sorted(f"{change.kind.letter} {change.path}" for change in found) == told
    if isinstance(driver, TellsChanges):
        assert changes(driver.tree(rw), driver.tree(init), driver.touched(rw, init)) == found
    if isinstance(driver, Overlay2):
        assert upper_changes(driver.upper(rw), driver.features.opaque_xattr, driver.lowers(rw)) == found
        assert all(value in described for value in driver.describe(rw).values())
    driver.seal(init, durable=False)
    driver.create(CacheId("of-ours"), init)
    driver.remove(CacheId("of-ours"))
    assert driver.cache_ids() == expected
    driver.close()
    dockerd.start()
    assert sorted(dockerd.out("diff", "edited").splitlines()) == told
    assert dockerd.out("run", "--rm", "--net", "none", "two-layers", "cat", "/one") == "1"
    assert content["etc/only"].content == b"y\n"
    assert content["new"].links == ("linked", "new")
