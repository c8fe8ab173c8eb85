"""An init layer that was copied is the one that a mount would have made."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lamina.layers.init import init_layer
from lamina.layers.pattern import pattern_of
from tests.unit.engine.stores import Stores


def _tree(root: Path) -> dict[str, tuple[int, int, int, int, str]]:
    found = {}
    for folder, names, files in os.walk(root):
        for name in [*names, *files]:
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            target = os.readlink(path) if stat.S_ISLNK(facts.st_mode) else ""
            times = facts.st_mtime_ns if stat.S_ISDIR(facts.st_mode) and "etc" in path else 0
            found[os.path.relpath(path, root)] = (facts.st_mode, facts.st_uid, facts.st_gid, times, target)
    return found


@pytest.mark.root
def test_the_second_container_of_an_image_gets_the_same_init_layer_without_a_mount(tmp_path: Path) -> None:
    stores = Stores(tmp_path, "overlay2")
    calls: list[Path] = []

    def prepare(tree: Path) -> None:
        calls.append(tree)
        init_layer(tree)

    names = ("first", "second", "third")
    for name in names:
        stores.layers.create_rw(name, stores.top, prepare=prepare, alike="/")
    assert len(calls) == 1
    uppers = [tmp_path / "overlay2" / str(stores.layers.rw(name).init_id) / "diff" for name in names]
    first = _tree(uppers[0])
    assert {"etc/hosts", "dev/console", "proc", ".dockerenv", "etc/mtab"} <= first.keys()
    assert _tree(uppers[1]) == first
    assert _tree(uppers[2]) == first
    for name in names:
        assert stores.layers.rw_changes(name) == []
        root = stores.layers.mount_rw(name)
        assert (root / "etc" / "passwd").read_bytes().startswith(b"root:")
        stores.layers.unmount_rw(name)
        stores.layers.remove_rw(name)


@pytest.mark.root
def test_another_promise_or_none_is_prepared_anew(tmp_path: Path) -> None:
    stores = Stores(tmp_path, "overlay2")
    calls: list[Path] = []

    def prepare(tree: Path) -> None:
        calls.append(tree)
        init_layer(tree)

    for name, alike in (("a", "/"), ("b", "/other"), ("c", None), ("d", None)):
        stores.layers.create_rw(name, stores.top, prepare=prepare, alike=alike)
    assert len(calls) == 4
    for name in "abcd":
        stores.layers.remove_rw(name)


def test_what_is_not_plain_makes_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert pattern_of(tmp_path) is not None
    (tmp_path / "file").write_text("content")
    assert pattern_of(tmp_path) is None
    (tmp_path / "file").unlink()
    os.mkfifo(tmp_path / "fifo")
    assert pattern_of(tmp_path) is None
