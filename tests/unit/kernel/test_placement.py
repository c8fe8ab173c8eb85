from pathlib import Path

import pytest

from lamina.kernel.placement import spread_directories


def test_a_directory_can_be_marked_again_and_stays_one(tmp_path: Path) -> None:
    first = spread_directories(tmp_path)
    assert spread_directories(tmp_path) is first
    (tmp_path / "inside").mkdir()
    assert (tmp_path / "inside").is_dir()


def test_a_file_system_without_block_groups_is_fine() -> None:
    assert spread_directories(Path("/proc")) is False


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spread_directories(tmp_path / "absent")
