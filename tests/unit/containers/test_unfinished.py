from pathlib import Path

from lamina.containers.unfinished import Interrupted, Unfinished
from lamina.ids import ContainerId

ID_A = ContainerId("a" * 64)
ID_B = ContainerId("b" * 64)
VOLUME = "c" * 64


def test_what_was_begun_and_not_ended_is_told_with_its_volumes(tmp_path: Path) -> None:
    notes = Unfinished(tmp_path)
    notes.begin(ID_A)
    notes.add_volume(ID_A, VOLUME)
    notes.begin(ID_B)
    notes.end(ID_B)
    assert list(Unfinished(tmp_path).interrupted()) == [Interrupted(ID_A, (VOLUME,))]
    notes.end(ID_A)
    notes.end(ID_A)
    assert list(tmp_path.iterdir()) == []


def test_a_container_with_its_record_was_not_interrupted(tmp_path: Path) -> None:
    notes = Unfinished(tmp_path)
    notes.begin(ID_A)
    notes.add_volume(ID_A, VOLUME)
    (tmp_path / ID_A).mkdir()
    assert list(notes.interrupted()) == []
    assert [path.name for path in tmp_path.iterdir()] == [ID_A]


def test_other_files_are_left_alone_and_half_a_name_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / ".making-x").touch()
    (tmp_path / ID_B).mkdir()
    (tmp_path / f".making-{ID_A}").write_text(f"{VOLUME}\n{VOLUME[:20]}")
    assert list(Unfinished(tmp_path).interrupted()) == [Interrupted(ID_A, (VOLUME,))]
    assert (tmp_path / ".making-x").exists()
