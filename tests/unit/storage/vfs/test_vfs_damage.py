"""A damaged vfs home: every layer is whole by itself, so only the one that was hit suffers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.errors import CorruptRecord, NoSuchLayer
from lamina.ids import CacheId
from lamina.rootfs.remove import remove_tree
from lamina.storage.vfs.driver import Vfs

BASE, CHILD = CacheId("base"), CacheId("child")
Damage = Callable[[Path], None]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    driver = Vfs(tmp_path)
    driver.create(BASE, None)
    (driver.tree(BASE) / "below").write_text("b")
    driver.seal(BASE, durable=False)
    driver.create(CHILD, BASE)
    (driver.tree(CHILD) / "above").write_text("a")
    return tmp_path / "vfs"


def no_parent_record(home: Path) -> None:
    (home / "parents/child").unlink()


def an_empty_parent_record(home: Path) -> None:
    (home / "parents/child").write_text("")


def bytes_in_the_parent_record(home: Path) -> None:
    (home / "parents/child").write_bytes(b"\xff\x00../../etc")


def a_directory_for_the_parent_record(home: Path) -> None:
    (home / "parents/child").unlink()
    (home / "parents/child").mkdir()


def a_pipe_for_the_parent_record(home: Path) -> None:
    (home / "parents/child").unlink()
    os.mkfifo(home / "parents/child")


def a_link_for_the_parent_record(home: Path) -> None:
    (home / "parents/child").unlink()
    (home / "parents/child").symlink_to("/etc/passwd")


def no_sealed_record(home: Path) -> None:
    (home / "sealed/base").unlink()


def no_records_at_all(home: Path) -> None:
    remove_tree(home / "sealed")
    remove_tree(home / "parents")


def stray_things(home: Path) -> None:
    (home / "dir/README").write_text("")
    (home / "dir/lost+found").mkdir()
    (home / "sealed/stray").mkdir()
    (home / "parents/stray").write_text("base")
    (home / "limiting/half").mkdir(parents=True)


def the_parent_gone(home: Path) -> None:
    remove_tree(home / "dir/base")


DAMAGE: tuple[Damage, ...] = (
    no_parent_record,
    an_empty_parent_record,
    bytes_in_the_parent_record,
    a_directory_for_the_parent_record,
    a_pipe_for_the_parent_record,
    a_link_for_the_parent_record,
    no_sealed_record,
    no_records_at_all,
    stray_things,
    the_parent_gone,
)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_layer_is_whole_whatever_becomes_of_its_records(home: Path, damage: Damage) -> None:
    damage(home)
    driver = Vfs(home.parent)
    assert driver.cache_ids() in ({"base", "child"}, {"child"})
    assert sorted(os.listdir(driver.tree(CHILD))) == ["above", "below"]
    assert driver.usage(CHILD).size_bytes in {1, 2}
    driver.seal(CHILD, durable=False)
    driver.create(CacheId("next"), CHILD)
    driver.remove(CacheId("next"))
    driver.remove(CHILD)
    driver.remove(BASE)
    assert driver.cache_ids() == frozenset()
    assert Vfs(home.parent).cache_ids() == frozenset()
    assert not (home / "limiting").exists()


@pytest.mark.parametrize("target", ["/etc", "base"])
def test_a_symlink_in_place_of_a_layer_is_not_followed(home: Path, target: str) -> None:
    remove_tree(home / "dir/child")
    (home / "dir/child").symlink_to(target)
    driver = Vfs(home.parent)
    assert driver.cache_ids() == {"base"}
    with pytest.raises(CorruptRecord, match="dir/child is no directory"):
        driver.tree(CHILD)
    driver.remove(CHILD)
    assert not os.path.lexists(home / "dir/child")
    assert (home / "dir/base/below").exists()


def test_a_file_in_place_of_a_layer_is_told(home: Path) -> None:
    remove_tree(home / "dir/child")
    (home / "dir/child").write_text("")
    with pytest.raises(CorruptRecord, match="dir/child is no directory"):
        Vfs(home.parent).attach(CHILD)
    with pytest.raises(NoSuchLayer):
        Vfs(home.parent).attach(CacheId("nobody"))
