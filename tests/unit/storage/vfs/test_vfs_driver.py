"""What only vfs has: dockerd's directories, and the records of our own beside them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lamina.errors import LayerInUse
from lamina.ids import CacheId
from lamina.storage.vfs.driver import Vfs

BASE, CHILD = CacheId("base"), CacheId("child")


@pytest.fixture
def driver(tmp_path: Path) -> Vfs:
    found = Vfs(tmp_path)
    found.create(BASE, None)
    found.seal(BASE, durable=False)
    found.create(CHILD, BASE)
    return found


def test_layers_lie_where_dockerd_has_them(driver: Vfs, tmp_path: Path) -> None:
    assert driver.tree(CHILD) == tmp_path / "vfs/dir/child"
    modes = {name: stat.filemode((tmp_path / name).stat().st_mode) for name in ("vfs", "vfs/dir", "vfs/dir/child")}
    assert modes == {"vfs": "drwx--x---", "vfs/dir": "drwx--x---", "vfs/dir/child": "drwxr-xr-x"}
    assert driver.describe(CHILD) == {}


def test_records_of_layers_that_dockerd_removed_go(driver: Vfs, tmp_path: Path) -> None:
    (tmp_path / "vfs/dir/base").rmdir()
    again = Vfs(tmp_path)
    assert os.listdir(tmp_path / "vfs/sealed") == []
    again.remove(CHILD)
    assert os.listdir(tmp_path / "vfs/parents") == []


def test_layers_that_dockerd_made_are_open_until_sealed_again(driver: Vfs, tmp_path: Path) -> None:
    (tmp_path / "vfs/dir/foreign").mkdir()
    again = Vfs(tmp_path)
    assert CacheId("foreign") in again.cache_ids()
    with pytest.raises(LayerInUse):
        again.create(CacheId("on-it"), CacheId("foreign"))
    again.seal(CacheId("foreign"), durable=False)
    again.create(CacheId("on-it"), CacheId("foreign"))
