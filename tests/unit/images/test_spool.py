"""A file that one thread writes and another follows."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lamina.errors import DataLoss
from lamina.images.spool import Spool, SpoolReader


def test_a_reader_gets_everything_while_it_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(SpoolReader(spool).read()))
    reader.start()
    parts = [bytes([number]) * 5000 for number in range(50)]
    for part in parts:
        spool.write(memoryview(part))
    spool.done()
    reader.join(20)
    assert found == [b"".join(parts)]
    with spool.from_start() as again:
        assert again.read() == b"".join(parts)
    spool.close()


def test_it_has_no_name_on_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write(memoryview(b"x"))
    assert list(tmp_path.iterdir()) == []
    spool.close()
    spool.close()


def test_whoever_follows_is_told_when_the_rest_will_not_come(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write(memoryview(b"half"))
    spool.abandon()
    with pytest.raises(DataLoss):
        SpoolReader(spool).read()
    spool.close()


def test_abandoning_what_is_complete_changes_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write(memoryview(b"all"))
    spool.done()
    spool.abandon()
    assert SpoolReader(spool).read() == b"all"
    spool.close()
