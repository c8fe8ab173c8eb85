"""Growth of files is told once per look."""

from pathlib import Path

from lamina.kernel.inotify import Inotify


def test_a_write_is_told_with_the_number_of_its_watch(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()
    told = Inotify()
    first, second = told.watch(one), told.watch(two)
    assert told.changed() == set()
    with two.open("ab") as file:
        file.write(b"x")
    assert told.changed() == {second}
    assert told.changed() == set()
    with one.open("ab") as file:
        file.write(b"x")
    assert told.changed() == {first}
    told.close()
    told.close()


def test_an_unwatched_file_and_a_removed_file_are_silent(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.touch()
    told = Inotify()
    watch = told.watch(path)
    told.unwatch(watch)
    told.unwatch(watch)
    with path.open("ab") as file:
        file.write(b"x")
    told.changed()
    assert told.changed() == set()
    told.close()
