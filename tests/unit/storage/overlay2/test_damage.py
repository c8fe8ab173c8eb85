"""A damaged home: what can be mended is, the rest is told with the file it is about, and other layers still work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.errors import CorruptRecord, LaminaError
from lamina.ids import CacheId
from lamina.rootfs.remove import remove_tree
from lamina.storage.mounting import Mounts
from lamina.storage.overlay2.driver import Overlay2

pytestmark = pytest.mark.root

BASE, MIDDLE, TOP = CacheId("base"), CacheId("middle"), CacheId("top")
Damage = Callable[[Path], None]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """base ← middle ← top, and beside them other ← its child: each with a file of its name."""
    driver = Overlay2(tmp_path)
    for name, parent in (("base", None), ("middle", "base"), ("top", "middle"), ("other", None), ("child", "other")):
        driver.create(CacheId(name), CacheId(parent) if parent else None)
        (driver.upper(CacheId(name)) / name).write_text(name)
        if name not in {"top", "child"}:
            driver.seal(CacheId(name), durable=False)
    return tmp_path / "overlay2"


def link_of(home: Path, name: str) -> Path:
    return home / "l" / (home / name / "link").read_text()


def names_of(driver: Overlay2, name: str) -> list[str]:
    with Mounts(driver).mounted(CacheId(name)) as tree:
        return sorted(os.listdir(tree))


def no_link_file(home: Path) -> None:
    (home / "middle/link").unlink()


def empty_link_file(home: Path) -> None:
    (home / "middle/link").write_text("")


def no_short_names(home: Path) -> None:
    shutil.rmtree(home / "l")


def no_short_name(home: Path) -> None:
    link_of(home, "base").unlink()


def a_short_name_that_leads_out(home: Path) -> None:
    place = link_of(home, "base")
    place.unlink()
    place.symlink_to("/etc")


def a_short_name_of_another_layer(home: Path) -> None:
    place = link_of(home, "middle")
    place.unlink()
    place.symlink_to("../other/diff")


def no_work_directory(home: Path) -> None:
    remove_tree(home / "top/work")


def stray_things(home: Path) -> None:
    (home / "README").write_text("not a layer")
    (home / "lost+found").mkdir()
    (home / "l/README").write_text("no symlink")
    (home / "l/short").symlink_to("nowhere")
    (home / "top/note").write_text("")
    os.mkfifo(home / "pipe")


def no_committed_mark(home: Path) -> None:
    (home / "middle/committed").unlink()


def modes_that_let_nobody_in(home: Path) -> None:
    for name in ("middle", "middle/diff", "middle/link", "l"):
        (home / name).chmod(0)


MENDED: tuple[Damage, ...] = (
    no_link_file,
    empty_link_file,
    no_short_names,
    no_short_name,
    a_short_name_that_leads_out,
    a_short_name_of_another_layer,
    no_work_directory,
    stray_things,
    no_committed_mark,
    modes_that_let_nobody_in,
)


@pytest.mark.parametrize("damage", MENDED, ids=lambda damage: damage.__name__)
def test_this_is_mended_or_does_not_matter(home: Path, damage: Damage) -> None:
    damage(home)
    driver = Overlay2(home.parent)
    assert driver.cache_ids() == {"base", "middle", "top", "other", "child"}
    assert names_of(driver, "top") == ["base", "middle", "top"]
    assert names_of(driver, "child") == ["child", "other"]
    driver.seal(MIDDLE, durable=False)
    driver.create(CacheId("new"), MIDDLE)
    assert names_of(driver, "new") == ["base", "middle"]
    assert Overlay2(home.parent).warnings == ()


def test_what_was_mended_is_told(home: Path) -> None:
    place = link_of(home, "base")
    place.unlink()
    assert Overlay2(home.parent).warnings == (
        f"the short name {place} of layer base was lost or led elsewhere: it was made again",
    )


def no_lower_layer(home: Path) -> None:
    remove_tree(home / "base")


def a_file_for_diff(home: Path) -> None:
    remove_tree(home / "base/diff")
    (home / "base/diff").write_text("")


def a_symlink_for_diff(home: Path) -> None:
    remove_tree(home / "base/diff")
    (home / "base/diff").symlink_to("/etc")


def no_diff(home: Path) -> None:
    remove_tree(home / "base/diff")


@pytest.mark.parametrize("damage", [no_lower_layer, a_file_for_diff, a_symlink_for_diff, no_diff])
def test_a_broken_layer_is_named_by_all_that_stand_on_it_and_by_nobody_else(home: Path, damage: Damage) -> None:
    damage(home)
    driver = Overlay2(home.parent)
    with pytest.raises(CorruptRecord, match=r"overlay2/(base/diff|l/)"):
        driver.attach(TOP)
    assert names_of(driver, "child") == ["child", "other"]
    driver.remove(TOP)
    driver.remove(MIDDLE)
    driver.remove(BASE)
    assert driver.cache_ids() == {"other", "child"}
    assert len(os.listdir(home / "l")) == 2


@pytest.mark.parametrize("length", [28, 29, 40])
def test_a_lower_that_was_cut_off_is_completed_from_its_parents(home: Path, length: int) -> None:
    """At an entry's end it would look whole, and the layer would quietly have lost what lies below."""
    before = (home / "top/lower").read_text()
    (home / "top/lower").write_text(before[:length])
    driver = Overlay2(home.parent)
    assert driver.warnings == (f"the file {home}/top/lower was cut off: it was completed from its parent's",)
    assert names_of(driver, "top") == ["base", "middle", "top"]
    assert (home / "top/lower").read_text() == before


def half_of_an_entry(home: Path) -> None:
    text = (home / "top/lower").read_text()
    (home / "top/lower").write_text(text[:14])


def bytes_for_lower(home: Path) -> None:
    (home / "top/lower").write_bytes(b"\xff\x00l/")


def a_way_out_for_lower(home: Path) -> None:
    (home / "top/lower").write_text("l/../../../etc")


def a_directory_for_lower(home: Path) -> None:
    (home / "top/lower").unlink()
    (home / "top/lower").mkdir()


def a_symlink_for_lower(home: Path) -> None:
    (home / "top/lower").unlink()
    (home / "top/lower").symlink_to("/etc/passwd")


def a_pipe_for_lower(home: Path) -> None:
    (home / "top/lower").unlink()
    os.mkfifo(home / "top/lower")


LOWERS: tuple[Damage, ...] = (
    half_of_an_entry,
    bytes_for_lower,
    a_way_out_for_lower,
    a_directory_for_lower,
    a_symlink_for_lower,
    a_pipe_for_lower,
)


@pytest.mark.parametrize("damage", LOWERS, ids=lambda damage: damage.__name__)
def test_a_layer_that_does_not_know_its_parents_can_only_be_removed(home: Path, damage: Damage) -> None:
    damage(home)
    driver = Overlay2(home.parent)
    assert driver.warnings == (f"the file {home}/top/lower is damaged: the layer can only be removed",)
    for touch in (driver.attach, driver.tree, driver.upper, driver.describe):
        with pytest.raises(CorruptRecord, match="top/lower is damaged"):
            touch(TOP)
    assert names_of(driver, "middle") == ["base", "middle"]
    driver.remove(TOP)
    assert TOP not in driver.cache_ids()


def test_a_link_that_is_a_directory_is_found_again(home: Path) -> None:
    (home / "middle/link").unlink()
    (home / "middle/link").mkdir()
    driver = Overlay2(home.parent)
    assert names_of(driver, "top") == ["base", "middle", "top"]


def test_a_layer_that_is_a_file_is_none(home: Path) -> None:
    remove_tree(home / "top")
    (home / "top").write_text("")
    driver = Overlay2(home.parent)
    assert TOP not in driver.cache_ids()
    with pytest.raises(LaminaError):
        driver.attach(TOP)
