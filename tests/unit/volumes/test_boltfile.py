"""The database file of one process."""

import os
import resource
import signal
from pathlib import Path

import pytest

from lamina.errors import Conflict
from lamina.volumes.bolt import Bucket
from lamina.volumes.boltfile import BoltFile


def test_a_commit_is_there_after_opening_again(tmp_path: Path) -> None:
    file = BoltFile(tmp_path / "db")
    file.commit(Bucket({b"k": b"v"}))
    file.close()
    file.close()
    again = BoltFile(tmp_path / "db")
    assert again.root.items == {b"k": b"v"}
    again.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    file = BoltFile(tmp_path / "db")
    with pytest.raises(Conflict):
        BoltFile(tmp_path / "db")
    file.close()


def test_a_symlink_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "db").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        BoltFile(tmp_path / "db")


def test_no_room_leaves_the_old_state(tmp_path: Path) -> None:
    """The commit runs in a child whose files may not grow, as on a full disk."""
    path = tmp_path / "db"
    file = BoltFile(path)
    file.commit(Bucket({b"k": b"old"}))
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (32768, 32768))
        try:
            file.commit(Bucket({b"k": b"n" * 100_000}))
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    file.close()
    again = BoltFile(path)
    assert again.root.items == {b"k": b"old"}
    again.commit(Bucket({b"k": b"new"}))
    again.close()
