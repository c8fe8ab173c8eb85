from __future__ import annotations

from pathlib import Path

import pytest

from lamina.errors import InvalidArgument, Unsupported
from lamina.storage.zfs.driver import Zfs
from lamina.storage.zfs.probe import probe


def test_where_it_cannot_work_the_reason_and_the_remedy_are_told(tmp_path: Path) -> None:
    """Without the kernel part, or on another file system: the tests' directory is never on zfs."""
    with pytest.raises(Unsupported, match=r"kernel part of zfs|not on zfs") as caught:
        probe(tmp_path)
    assert "modprobe zfs" in caught.value.hint or "put the data root on zfs" in caught.value.hint


def test_an_attempt_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unsupported):
        Zfs(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["zfs.mountopt", "zfs.nope", "size", "dm.fs"])
def test_unknown_options_are_refused_by_name(tmp_path: Path, option: str) -> None:
    with pytest.raises(InvalidArgument, match=f"unknown option {option}"):
        Zfs(tmp_path, {option: "1"})
    assert list(tmp_path.iterdir()) == []
