"""Stacks deeper than overlay's: merged layers, whom they serve and when they go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.errors import LayerInUse
from lamina.ids import CacheId
from lamina.rootfs.remove import remove_tree
from lamina.storage.mounting import Mounts
from lamina.storage.overlay2.driver import Overlay2

pytestmark = pytest.mark.root

DEPTH = 127


@pytest.fixture
def deep(tmp_path: Path) -> Overlay2:
    """127 sealed layers `l0` to `l126`, each with a file; the next one no longer fits."""
    driver = Overlay2(tmp_path)
    for number in range(DEPTH):
        driver.create(CacheId(f"l{number}"), CacheId(f"l{number - 1}") if number else None)
        driver.upper(CacheId(f"l{number}")).joinpath(f"f{number}").write_text(str(number))
        driver.seal(CacheId(f"l{number}"), durable=False)
    return driver


def merged_in(tmp_path: Path) -> list[str]:
    return [name for name in os.listdir(tmp_path / "overlay2") if name.endswith("-merged")]


def entries(driver: Overlay2, name: str) -> list[str]:
    return [lower.parent.name for lower in driver.lowers(CacheId(name))]


def test_what_docker_can_stack_is_stacked_as_docker_does(deep: Overlay2, tmp_path: Path) -> None:
    assert merged_in(tmp_path) == []
    assert entries(deep, "l126") == [f"l{number}" for number in reversed(range(126))]


def test_a_deeper_stack_ends_with_a_merged_layer(deep: Overlay2, tmp_path: Path) -> None:
    deep.create(CacheId("rw"), CacheId("l126"))
    assert entries(deep, "rw") == [*(f"l{number}" for number in range(126, 63, -1)), "l63-merged"]
    merged = tmp_path / "overlay2/l63-merged"
    assert sorted(os.listdir(merged)) == ["committed", "diff", "link"]
    assert sorted(os.listdir(merged / "diff")) == sorted(f"f{number}" for number in range(64))
    assert (merged / "diff/f0").stat().st_ino == (tmp_path / "overlay2/l0/diff/f0").stat().st_ino
    with Mounts(deep).mounted(CacheId("rw")) as tree:
        assert sorted(os.listdir(tree)) == sorted(f"f{number}" for number in range(DEPTH))


def test_a_merged_layer_is_no_layer_of_its_own_and_takes_no_room(deep: Overlay2) -> None:
    before = deep.usage(CacheId("l63"))
    deep.create(CacheId("rw"), CacheId("l126"))
    assert CacheId("l63-merged") not in deep.cache_ids()
    assert deep.usage(CacheId("l63")) == before
    assert deep.usage(CacheId("rw")).size_bytes == 0


def test_siblings_share_it_and_the_last_one_takes_it_along(deep: Overlay2, tmp_path: Path) -> None:
    for name in ("one", "two"):
        deep.create(CacheId(name), CacheId("l126"))
    assert merged_in(tmp_path) == ["l63-merged"]
    deep.remove(CacheId("one"))
    assert merged_in(tmp_path) == ["l63-merged"]
    deep.remove(CacheId("two"))
    assert merged_in(tmp_path) == []
    assert len(os.listdir(tmp_path / "overlay2/l")) == DEPTH


def test_children_of_a_layer_on_it_keep_it_after_a_restart(deep: Overlay2, tmp_path: Path) -> None:
    deep.create(CacheId("image"), CacheId("l126"))
    deep.seal(CacheId("image"), durable=False)
    deep.create(CacheId("rw"), CacheId("image"))
    again = Overlay2(tmp_path)
    assert merged_in(tmp_path) == ["l63-merged"]
    with pytest.raises(LayerInUse):
        again.remove(CacheId("image"))
    again.remove(CacheId("rw"))
    assert merged_in(tmp_path) == ["l63-merged"]
    again.remove(CacheId("image"))
    assert merged_in(tmp_path) == []


def test_an_unfinished_one_is_thrown_away_and_made_again(deep: Overlay2, tmp_path: Path) -> None:
    (tmp_path / "overlay2/l63-merged/diff").mkdir(parents=True)
    (tmp_path / "overlay2/l63-merged/diff/half").write_text("")
    again = Overlay2(tmp_path)
    assert merged_in(tmp_path) == []
    (tmp_path / "overlay2/l63-merged/diff").mkdir(parents=True)
    again.create(CacheId("rw"), CacheId("l126"))
    assert sorted(os.listdir(tmp_path / "overlay2/l63-merged/diff")) == sorted(f"f{number}" for number in range(64))


def test_one_whose_users_another_engine_removed_goes_at_the_next_start(deep: Overlay2, tmp_path: Path) -> None:
    deep.create(CacheId("rw"), CacheId("l126"))
    remove_tree(tmp_path / "overlay2/rw")
    Overlay2(tmp_path)
    assert merged_in(tmp_path) == []
    assert len(os.listdir(tmp_path / "overlay2/l")) == DEPTH


def test_a_layer_filled_before_its_parents_gets_one_too(deep: Overlay2, tmp_path: Path) -> None:
    deep.create(CacheId("early"), None)
    deep.upper(CacheId("early")).joinpath("mine").write_text("m")
    deep.rebase(CacheId("early"), CacheId("l126"))
    deep.rebase(CacheId("early"), CacheId("l126"))
    assert merged_in(tmp_path) == ["l63-merged"]
    with Mounts(deep).mounted(CacheId("early")) as tree:
        assert len(os.listdir(tree)) == DEPTH + 1


def test_a_creation_that_fails_leaves_none(deep: Overlay2, tmp_path: Path) -> None:
    (tmp_path / "overlay2/rw").write_text("in the way")
    with pytest.raises(Exception, match="layer rw exists"):
        deep.create(CacheId("rw"), CacheId("l126"))
    assert merged_in(tmp_path) == []
