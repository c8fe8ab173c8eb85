from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lamina.errors import Conflict, CorruptRecord
from lamina.storage.choice import PLACE, Choice, drop_choice, read_choice, write_choice
from lamina.storage.select import choose_driver


def test_what_is_put_down_is_read_again_with_its_story(tmp_path: Path) -> None:
    assert read_choice(tmp_path) is None
    choice = Choice("vfs", "overlay2", {"state": "copying", "filled": ["a", "b"]})
    write_choice(tmp_path, choice)
    assert read_choice(tmp_path) == choice
    assert stat.S_IMODE((tmp_path / PLACE).stat().st_mode) == 0o600
    drop_choice(tmp_path)
    drop_choice(tmp_path)
    assert read_choice(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_it_outweighs_what_lies_in_the_data_root(tmp_path: Path) -> None:
    (tmp_path / "overlay2/something").mkdir(parents=True)
    (tmp_path / "btrfs/something").mkdir(parents=True)
    write_choice(tmp_path, Choice("vfs", "overlay2"))
    assert choose_driver(tmp_path, None, {}).name == "vfs"
    assert choose_driver(tmp_path, "vfs", {}).name == "vfs"


def test_the_store_that_is_kept_aside_cannot_be_asked_for(tmp_path: Path) -> None:
    write_choice(tmp_path, Choice("overlay2", "vfs"))
    with pytest.raises(Conflict, match="storage driver overlay2; what it has for vfs") as caught:
        choose_driver(tmp_path, "vfs", {})
    assert "--rollback" in caught.value.hint


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"driver":""}', '{"driver":7}', '{"driver":"vfs","details":[]}'])
def test_a_damaged_file_is_never_passed_over_in_silence(tmp_path: Path, damage: str) -> None:
    write_choice(tmp_path, Choice("vfs"))
    (tmp_path / PLACE).write_text(damage)
    with pytest.raises(CorruptRecord):
        choose_driver(tmp_path, None, {})
    assert choose_driver(tmp_path, "vfs", {}).name == "vfs"
