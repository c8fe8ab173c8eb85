"""Where an upper directory does not tell everything, layers are filled and told through their mounts."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from lamina.layers.store import LayerStore
from lamina.rootfs.diff import Change, ChangeKind
from lamina.rootfs.remove import remove_tree
from lamina.storage.driver import WhiteoutDialect
from lamina.storage.mounting import Mounts
from lamina.storage.overlay2.driver import Overlay2, dialect_of
from tests.unit.changeset.tars import DIRECTORY, FILE, make

pytestmark = pytest.mark.root

LOWER = make([("d", DIRECTORY, 0o755, ""), ("d/old", FILE, 0o644, b"o"), ("gone", FILE, 0o644, b"g")])
UPPER = make([(".wh.gone", FILE, 0, b""), ("d", DIRECTORY, 0o755, ""), ("d/.wh..wh..opq", FILE, 0, b""),
              ("d/new", FILE, 0o644, b"n")])  # fmt: skip


def test_the_dialect_follows_the_probe(tmp_path: Path) -> None:
    found = Overlay2(tmp_path).features
    assert dialect_of(found) is WhiteoutDialect.OVERLAY
    assert dialect_of(replace(found, user_xattr=True)) is WhiteoutDialect.OVERLAY_USERXATTR
    assert dialect_of(replace(found, native_diff=False)) is WhiteoutDialect.NONE


def test_layers_go_in_and_out_through_their_mounts(tmp_path: Path) -> None:
    driver = Overlay2(tmp_path)
    driver.dialect = WhiteoutDialect.NONE  # as on a kernel whose overlay redirects directories
    mounts = Mounts(driver)
    store = LayerStore(tmp_path / "layerdb", driver, mounts)
    assert store.load() == []
    assert not store.can_stage_early
    base = store.register(io.BytesIO(LOWER), None).chain_id
    layer = store.register(io.BytesIO(UPPER), base)
    with mounts.mounted(layer.cache_id) as tree:
        assert os.listdir(tree) == ["d"]
        assert os.listdir(tree / "d") == ["new"]
    for chain, tar in ((base, LOWER), (layer.chain_id, UPPER)):
        out = io.BytesIO()
        store.write_tar(chain, out)
        assert out.getvalue() == tar
    store.create_rw("c", layer.chain_id, prepare=None)
    tree = store.mount_rw("c")
    remove_tree(tree / "d")
    (tree / "d").mkdir()
    (tree / "d/newer").touch()
    store.unmount_rw("c")
    assert store.rw_changes("c") == [
        Change(ChangeKind.MODIFY, "/d"), Change(ChangeKind.DELETE, "/d/new"), Change(ChangeKind.ADD, "/d/newer"),
    ]  # fmt: skip
    out = io.BytesIO()
    store.rw_tar("c", out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert sorted(tar.getnames()) == ["d", "d/.wh.new", "d/newer"]
