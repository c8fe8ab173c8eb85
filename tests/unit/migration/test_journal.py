from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lamina.errors import CorruptRecord
from lamina.migration.journal import Journal, Stage, end, read_journal
from lamina.migration.settle import settle, settle_for_daemon
from lamina.storage.choice import PLACE, Choice, read_choice, write_choice
from lamina.storage.select import choose_driver

ID = "ab" * 32


def container(root: Path, driver: str) -> Path:
    place = root / "containers" / ID / "config.v2.json"
    place.parent.mkdir(parents=True)
    place.write_text(f'{{"ID":"{ID}","Driver":"{driver}","Foreign":{{"kept":"<&>"}}}}\n')
    place.chmod(0o640)
    return place


@pytest.mark.parametrize("stage", Stage)
def test_each_stage_names_the_driver_that_has_the_data_root(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "overlay2/x").mkdir(parents=True)
    (tmp_path / "btrfs/x").mkdir(parents=True)
    journal = Journal("overlay2", "vfs", stage, frozenset({"a"}), (ID,), 7, stale=True)
    journal.write(tmp_path)
    assert read_journal(tmp_path) == journal
    expected = "overlay2" if stage in {Stage.COPYING, Stage.RETURNING} else "vfs"
    assert choose_driver(tmp_path, None, {}).name == expected == journal.driver


def test_records_follow_the_journal_however_often(tmp_path: Path) -> None:
    place = container(tmp_path, "overlay2")
    journal = Journal("overlay2", "vfs", containers=(ID, "cd" * 32))
    journal.write(tmp_path)
    assert settle(tmp_path) == journal
    assert '"Driver":"overlay2"' in place.read_text()
    for stage, driver in ((Stage.SWITCHED, "vfs"), (Stage.CONFIRMING, "vfs"), (Stage.RETURNING, "overlay2")):
        replace(journal, stage=stage).write(tmp_path)
        settle(tmp_path)
        settle(tmp_path)
        assert (
            place.read_text() == f'{{"ID":"{ID}","Driver":"{driver}","Foreign":{{"kept":"\\u003c\\u0026\\u003e"}}}}\n'
        )
        assert place.stat().st_mode & 0o777 == 0o640


def test_a_daemon_makes_copies_of_writable_layers_stale_and_says_what_to_do(tmp_path: Path) -> None:
    journal = Journal("overlay2", "vfs", filled=frozenset({"a"}))
    journal.write(tmp_path)
    (line,) = settle_for_daemon(tmp_path)
    assert "--to vfs" in line
    assert "--rollback" in line
    assert read_journal(tmp_path) == replace(journal, stale=True)
    for stage, word in (
        (Stage.SWITCHED, "--confirm"),
        (Stage.CONFIRMING, "--confirm"),
        (Stage.RETURNING, "--rollback"),
    ):
        replace(journal, stage=stage).write(tmp_path)
        (line,) = settle_for_daemon(tmp_path)
        assert word in line
    assert settle_for_daemon(tmp_path / "elsewhere") == []


def test_at_its_end_only_what_cannot_be_guessed_is_kept(tmp_path: Path) -> None:
    Journal("vfs", "overlay2").write(tmp_path)
    (tmp_path / "overlay2/x").mkdir(parents=True)
    end(tmp_path, "overlay2")
    assert read_choice(tmp_path) is None
    end(tmp_path, "vfs")
    assert read_choice(tmp_path) == Choice("vfs")
    assert read_journal(tmp_path) is None


@pytest.mark.parametrize(
    "choice",
    [
        Choice("vfs", "overlay2"),
        Choice("vfs", "overlay2", {"stage": "flying", "source": "overlay2", "target": "vfs"}),
        Choice("vfs", "overlay2", {"stage": "copying", "source": "overlay2", "target": "vfs"}),
        Choice("vfs", "btrfs", {"stage": "switched", "source": "overlay2", "target": "vfs"}),
        Choice("vfs", "overlay2", {"stage": "switched", "source": "overlay2", "target": "vfs", "filled": 1}),
    ],
    ids=str,
)
def test_a_journal_that_contradicts_itself_is_refused(tmp_path: Path, choice: Choice) -> None:
    write_choice(tmp_path, choice)
    with pytest.raises(CorruptRecord, match="the journal of the migration in"):
        read_journal(tmp_path)
    assert (tmp_path / PLACE).exists()
