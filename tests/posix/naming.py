"""mkdir(2), rmdir(2), unlink(2), link(2), symlink(2), rename(2), mknod(2), and what a directory lists."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from lamina.kernel.libc import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2
from tests.posix.cases import OTHER, Place, as_user, case, mode_of, opened, past, refused, touched

ELSEWHERE = Path("/dev/shm")


# --- directories ----------------------------------------------------------------------------------------------------


@case
def a_directory_has_the_mode_less_the_umask(at: Place) -> Iterator[None]:
    yield
    old = os.umask(0o027)
    try:
        (at / "d").mkdir(0o777)
    finally:
        os.umask(old)
    assert mode_of(at / "d") == 0o750
    assert at.names("d") == []


@case
def a_directory_is_not_made_over_a_name_that_is_there(at: Place) -> Iterator[None]:
    at.file("f")
    at.directory("d")
    (at / "l").symlink_to("nowhere")
    yield
    for name in ("f", "d", "l"):
        with refused(errno.EEXIST):
            (at / name).mkdir()


@case
def a_directory_needs_its_parent(at: Place) -> Iterator[None]:
    yield
    with refused(errno.ENOENT):
        (at / "missing/d").mkdir()


@case
def making_and_removing_a_directory_sets_the_parents_time(at: Place) -> Iterator[None]:
    at.directory("p")
    at.directory("p/old")
    past(at / "p")
    yield
    (at / "p/new").mkdir()
    assert touched(at / "p")
    past(at / "p")
    (at / "p/old").rmdir()
    assert touched(at / "p")


@case
def an_empty_directory_is_removed(at: Place) -> Iterator[None]:
    at.directory("d")
    yield
    (at / "d").rmdir()
    assert at.names() == []
    with refused(errno.ENOENT):
        (at / "d").rmdir()


@case
def a_directory_with_a_name_in_it_is_not_removed(at: Place) -> Iterator[None]:
    at.directory("d")
    at.file("d/f")
    yield
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        (at / "d").rmdir()
    assert at.names("d") == ["f"]


@case
def a_directory_is_removed_once_its_names_are(at: Place) -> Iterator[None]:
    at.directory("d")
    for name in ("a", "b", "c"):
        at.file(f"d/{name}")
    at.directory("d/e/f")
    yield
    for name in ("a", "b", "c"):
        (at / "d" / name).unlink()
    (at / "d/e/f").rmdir()
    (at / "d/e").rmdir()
    (at / "d").rmdir()
    assert at.names() == []


@case
def a_directory_made_again_is_empty(at: Place) -> Iterator[None]:
    at.directory("d/e")
    at.file("d/f", b"old")
    at.file("d/e/g")
    yield
    (at / "d/f").unlink()
    (at / "d/e/g").unlink()
    (at / "d/e").rmdir()
    (at / "d").rmdir()
    (at / "d").mkdir(0o700)
    assert at.names("d") == []
    assert mode_of(at / "d") == 0o700
    (at / "d/e").mkdir()
    assert at.names("d/e") == []


@case
def a_directory_in_the_place_of_a_file_is_empty_and_the_other_way_round(at: Place) -> Iterator[None]:
    at.file("f", b"file")
    at.directory("d")
    yield
    (at / "f").unlink()
    (at / "f").mkdir()
    assert at.names("f") == []
    (at / "d").rmdir()
    (at / "d").write_bytes(b"now a file")
    assert (at / "d").read_bytes() == b"now a file"


@case
def only_directories_are_removed_as_directories(at: Place) -> Iterator[None]:
    at.file("f")
    at.directory("d")
    (at / "l").symlink_to("d")
    yield
    for name in ("f", "l"):
        with refused(errno.ENOTDIR):
            (at / name).rmdir()


@case
def a_directory_is_not_removed_by_dot_or_by_its_child(at: Place) -> Iterator[None]:
    at.directory("d/e")
    yield
    with refused(errno.EINVAL):
        os.rmdir(f"{at / 'd'}/.")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        os.rmdir(f"{at / 'd'}/e/..")


@case
def a_directory_lists_every_name_once(at: Place) -> Iterator[None]:
    for number in range(300):
        at.file(f"below-{number}", b"")
    yield
    for number in range(300):
        (at / f"above-{number}").write_bytes(b"")
    for number in range(0, 300, 3):
        (at / f"below-{number}").unlink()
    for number in range(1, 300, 3):
        (at / f"below-{number}").write_bytes(b"changed")
    found = os.listdir(at.root)
    assert len(found) == len(set(found))
    expected = {f"above-{number}" for number in range(300)} | {f"below-{number}" for number in range(300) if number % 3}
    assert set(found) == expected


@case
def a_listing_tells_kinds_and_inode_numbers(at: Place) -> Iterator[None]:
    at.file("f")
    at.directory("d")
    (at / "l").symlink_to("f")
    os.mkfifo(at / "p")
    yield
    (at / "f").write_bytes(b"changed")
    with os.scandir(at.root) as listing:
        for entry in listing:
            status = os.lstat(entry.path)
            assert entry.inode() == status.st_ino, entry.name
            assert entry.is_symlink() == stat.S_ISLNK(status.st_mode)
            assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(status.st_mode)


@case
def names_can_be_removed_while_a_directory_is_read(at: Place) -> Iterator[None]:
    for number in range(500):
        at.file(f"some-longer-name-for-a-file-{number}", b"")
    yield
    with os.scandir(at.root) as listing:
        for entry in listing:
            os.unlink(entry.path)
    assert at.names() == []


@case
def an_open_directory_shows_new_names_when_it_is_read_again(at: Place) -> Iterator[None]:
    at.directory("d")
    at.file("d/old")
    yield
    with opened(at / "d", os.O_RDONLY) as fd:
        assert os.listdir(fd) == ["old"]
        (at / "d/new").write_bytes(b"")
        (at / "d/old").unlink()
        assert os.listdir(fd) == ["new"]


@case
def an_open_directory_stays_the_same_after_a_rename(at: Place) -> Iterator[None]:
    at.directory("d")
    at.file("d/f")
    yield
    with opened(at / "d", os.O_RDONLY) as fd:
        os.rename(at / "d", at / "e")
        os.close(os.open("g", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        assert sorted(os.listdir(fd)) == ["f", "g"]
    assert at.names("e") == ["f", "g"]


@case
def the_parent_of_a_moved_directory_is_the_new_one(at: Place) -> Iterator[None]:
    at.directory("a/d")
    at.directory("b")
    yield
    os.rename(at / "a/d", at / "b/d")
    assert (at / "b/d/..").stat().st_ino == (at / "b").stat().st_ino


# --- unlink ---------------------------------------------------------------------------------------------------------


@case
def a_removed_name_is_gone_and_the_parents_time_set(at: Place) -> Iterator[None]:
    at.directory("d")
    at.file("d/f")
    past(at / "d")
    yield
    (at / "d/f").unlink()
    assert at.names("d") == []
    assert touched(at / "d")
    with refused(errno.ENOENT):
        (at / "d/f").unlink()


@case
def a_directory_is_not_unlinked(at: Place) -> Iterator[None]:
    at.directory("d")
    yield
    with refused(errno.EISDIR, errno.EPERM):
        (at / "d").unlink()


@case
def unlinking_a_symlink_leaves_its_target(at: Place) -> Iterator[None]:
    at.file("f")
    (at / "l").symlink_to("f")
    yield
    (at / "l").unlink()
    assert at.names() == ["f"]


@case
def a_name_made_again_is_a_new_empty_file(at: Place) -> Iterator[None]:
    at.file("f", b"old", 0o4755)
    os.setxattr(at / "f", "user.note", b"old")
    yield
    (at / "f").unlink()
    os.close(os.open(at / "f", os.O_CREAT | os.O_WRONLY, 0o600))
    assert (at / "f").read_bytes() == b""
    assert mode_of(at / "f") == 0o600
    assert os.listxattr(at / "f") == []


@case
def every_kind_of_file_can_be_unlinked(at: Place) -> Iterator[None]:
    os.mkfifo(at / "p")
    os.mknod(at / "c", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(at / "s", stat.S_IFSOCK | 0o600)
    (at / "l").symlink_to("nowhere")
    yield
    for name in ("p", "c", "s", "l"):
        (at / name).unlink()
    assert at.names() == []


@case
def a_tree_is_removed_with_everything_in_it(at: Place) -> Iterator[None]:
    import shutil

    for number in range(5):
        at.directory(f"t/{number}/{number}")
        for inner in range(10):
            at.file(f"t/{number}/{number}/{inner}")
    yield
    shutil.rmtree(at / "t")
    assert at.names() == []


# --- hard links -----------------------------------------------------------------------------------------------------


@case
def a_hard_link_is_the_same_file(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    yield
    os.link(at / "f", at / "g")
    assert (at / "f").stat().st_ino == (at / "g").stat().st_ino
    assert (at / "f").stat().st_nlink == 2
    (at / "g").write_bytes(b"both")
    (at / "f").chmod(0o600)
    assert (at / "f").read_bytes() == b"both"
    assert mode_of(at / "g") == 0o600


@case
def hard_links_that_are_there_stay_one_file_after_a_write(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    os.link(at / "f", at / "g")
    yield
    with opened(at / "f", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b" two")
    assert (at / "g").read_bytes() == b"one two"
    assert (at / "f").stat().st_ino == (at / "g").stat().st_ino
    assert (at / "f").stat().st_nlink == 2


@case
def removing_one_hard_link_leaves_the_other(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    os.link(at / "f", at / "g")
    yield
    (at / "f").unlink()
    assert at.names() == ["g"]
    assert (at / "g").stat().st_nlink == 1
    (at / "g").write_bytes(b"two")
    assert (at / "g").read_bytes() == b"two"


@case
def a_hard_link_over_a_name_that_is_there_is_refused(at: Place) -> Iterator[None]:
    at.file("f")
    at.file("g")
    at.directory("d")
    yield
    for name in ("f", "g", "d"):
        with refused(errno.EEXIST):
            os.link(at / "f", at / name)


@case
def a_hard_link_takes_a_removed_name(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    at.file("g", b"two")
    yield
    (at / "g").unlink()
    os.link(at / "f", at / "g")
    assert (at / "g").read_bytes() == b"one"


@case
def directories_and_missing_files_have_no_hard_links(at: Place) -> Iterator[None]:
    at.directory("d")
    yield
    with refused(errno.EPERM):
        os.link(at / "d", at / "e")
    with refused(errno.ENOENT):
        os.link(at / "missing", at / "e")


@case
def a_symlink_itself_can_be_hard_linked(at: Place) -> Iterator[None]:
    (at / "l").symlink_to("target")
    yield
    os.link(at / "l", at / "m", follow_symlinks=False)
    assert os.readlink(at / "m") == "target"
    assert os.lstat(at / "l").st_nlink == 2


@case
def hard_links_do_not_reach_another_file_system(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with refused(errno.EXDEV):
        os.link(at / "f", ELSEWHERE / f"lamina-posix-{os.getpid()}")


@case
def hard_links_may_lie_in_different_directories(at: Place) -> Iterator[None]:
    at.directory("a")
    at.directory("b")
    at.file("a/f", b"one")
    yield
    os.link(at / "a/f", at / "b/g")
    os.rename(at / "a", at / "c")
    (at / "b/g").write_bytes(b"two")
    assert (at / "c/f").read_bytes() == b"two"
    (at / "c/f").unlink()
    assert (at / "b/g").read_bytes() == b"two"


# --- symlinks -------------------------------------------------------------------------------------------------------


@case
def a_symlink_gives_back_its_target_to_the_byte(at: Place) -> Iterator[None]:
    targets = [b"/", b"../..", b"x" * 4095, b"\xff\xfe \n\t"]
    for number, target in enumerate(targets[:2]):
        os.symlink(target, os.fsencode(at / f"below{number}"))
    yield
    assert [os.readlink(os.fsencode(at / f"below{number}")) for number in range(2)] == targets[:2]
    for number, target in enumerate(targets):
        os.symlink(target, os.fsencode(at / str(number)))
        assert os.readlink(os.fsencode(at / str(number))) == target
        assert os.lstat(at / str(number)).st_size == len(target)


@case
def a_symlink_needs_a_target_and_a_free_name(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with refused(errno.ENOENT):
        os.symlink("", at / "l")
    with refused(errno.EEXIST):
        os.symlink("target", at / "f")


@case
def only_symlinks_are_read_as_symlinks(at: Place) -> Iterator[None]:
    at.file("f")
    at.directory("d")
    yield
    for name in ("f", "d"):
        with refused(errno.EINVAL):
            os.readlink(at / name)


@case
def a_symlink_to_a_directory_leads_into_it(at: Place) -> Iterator[None]:
    at.directory("d")
    at.file("d/f")
    (at / "l").symlink_to("d")
    yield
    assert (at / "l/f").read_bytes() == b"content"
    (at / "l/g").write_bytes(b"")
    assert at.names("d") == ["f", "g"]
    assert stat.S_ISLNK(os.lstat(at / "l").st_mode)


@case
def a_symlink_can_be_replaced(at: Place) -> Iterator[None]:
    (at / "l").symlink_to("old")
    yield
    (at / "new").symlink_to("target")
    os.rename(at / "new", at / "l")
    assert os.readlink(at / "l") == "target"


# --- rename ---------------------------------------------------------------------------------------------------------


@case
def a_renamed_file_is_the_same_file(at: Place) -> Iterator[None]:
    at.directory("d")
    past(at.file("f", b"one", 0o640))
    yield
    before = (at / "f").stat()
    os.rename(at / "f", at / "d/g")
    after = (at / "d/g").stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert at.names() == ["d"]
    assert (at / "d/g").read_bytes() == b"one"


@case
def a_rename_replaces_a_file(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    at.file("g", b"two")
    yield
    os.rename(at / "f", at / "g")
    assert at.names() == ["g"]
    assert (at / "g").read_bytes() == b"one"


@case
def a_new_file_renamed_over_an_old_one_replaces_it(at: Place) -> Iterator[None]:
    at.file("f", b"old")
    yield
    (at / ".f.new").write_bytes(b"new")
    os.rename(at / ".f.new", at / "f")
    assert at.names() == ["f"]
    assert (at / "f").read_bytes() == b"new"


@case
def an_old_file_renamed_over_a_new_one_replaces_it(at: Place) -> Iterator[None]:
    at.file("f", b"old")
    yield
    (at / "g").write_bytes(b"new")
    os.rename(at / "f", at / "g")
    assert at.names() == ["g"]
    assert (at / "g").read_bytes() == b"old"


@case
def a_rename_sets_the_times_of_both_directories(at: Place) -> Iterator[None]:
    at.directory("a")
    at.directory("b")
    at.file("a/f")
    past(at / "a")
    past(at / "b")
    yield
    os.rename(at / "a/f", at / "b/f")
    assert touched(at / "a")
    assert touched(at / "b")


@case
def a_rename_to_itself_does_nothing(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    at.directory("d")
    yield
    os.rename(at / "f", at / "f")
    os.rename(at / "d", at / "d")
    assert at.names() == ["d", "f"]


@case
def a_rename_between_two_links_of_one_file_does_nothing(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    os.link(at / "f", at / "g")
    yield
    os.rename(at / "f", at / "g")
    assert at.names() == ["f", "g"]


@case
def a_directory_is_renamed_with_all_that_is_in_it(at: Place) -> Iterator[None]:
    at.directory("d/e")
    at.file("d/f", b"one")
    at.file("d/e/g", b"two")
    yield
    os.rename(at / "d", at / "n")
    assert at.names() == ["n"]
    assert (at / "n/f").read_bytes() == b"one"
    assert (at / "n/e/g").read_bytes() == b"two"
    (at / "n/e/g").write_bytes(b"three")
    (at / "d").mkdir()
    assert at.names("d") == []


@case
def a_renamed_directory_can_be_renamed_back(at: Place) -> Iterator[None]:
    at.directory("d")
    at.file("d/f", b"one")
    yield
    os.rename(at / "d", at / "n")
    (at / "n/g").write_bytes(b"two")
    os.rename(at / "n", at / "d")
    assert at.names() == ["d"]
    assert at.names("d") == ["f", "g"]


@case
def a_directory_replaces_an_empty_directory(at: Place) -> Iterator[None]:
    at.directory("a")
    at.file("a/f")
    at.directory("b")
    yield
    os.rename(at / "a", at / "b")
    assert at.names() == ["b"]
    assert at.names("b") == ["f"]


@case
def a_new_directory_takes_the_name_of_one_that_was_emptied(at: Place) -> Iterator[None]:
    at.directory("b")
    at.file("b/old")
    yield
    (at / "a").mkdir()
    (at / "a/new").write_bytes(b"")
    (at / "b/old").unlink()
    os.rename(at / "a", at / "b")
    assert at.names() == ["b"]
    assert at.names("b") == ["new"]


@case
def a_directory_does_not_replace_one_with_names_in_it(at: Place) -> Iterator[None]:
    at.directory("a")
    at.directory("b")
    at.file("b/f")
    yield
    (at / "c").mkdir()
    for name in ("a", "c"):
        with refused(errno.ENOTEMPTY, errno.EEXIST, errno.EXDEV):
            os.rename(at / name, at / "b")
    assert at.names() == ["a", "b", "c"]


@case
def a_directory_does_not_go_below_itself(at: Place) -> Iterator[None]:
    at.directory("d/e")
    yield
    with refused(errno.EINVAL):
        os.rename(at / "d", at / "d/e/f")


@case
def files_and_directories_do_not_replace_each_other(at: Place) -> Iterator[None]:
    at.file("f")
    at.directory("d")
    yield
    (at / "e").mkdir()
    with refused(errno.EISDIR):
        os.rename(at / "f", at / "d")
    with refused(errno.ENOTDIR):
        os.rename(at / "e", at / "f")


@case
def a_missing_name_is_not_renamed(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with refused(errno.ENOENT):
        os.rename(at / "missing", at / "g")
    with refused(errno.ENOENT):
        os.rename(at / "f", at / "missing/g")
    (at / "f").unlink()
    with refused(errno.ENOENT):
        os.rename(at / "f", at / "g")


@case
def every_kind_of_file_can_be_renamed(at: Place) -> Iterator[None]:
    os.mkfifo(at / "p")
    os.mknod(at / "c", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (at / "l").symlink_to("target")
    yield
    for name in ("p", "c", "l"):
        os.rename(at / name, at / f"{name}2")
    assert at.names() == ["c2", "l2", "p2"]
    assert stat.S_ISFIFO(os.lstat(at / "p2").st_mode)
    assert os.lstat(at / "c2").st_rdev == os.makedev(1, 3)
    assert os.readlink(at / "l2") == "target"


@case
def a_rename_that_must_not_replace_does_not(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    at.file("g", b"two")
    yield
    with refused(errno.EEXIST):
        renameat2(at / "f", at / "g", RENAME_NOREPLACE)
    assert (at / "g").read_bytes() == b"two"
    (at / "g").unlink()
    renameat2(at / "f", at / "g", RENAME_NOREPLACE)
    assert (at / "g").read_bytes() == b"one"


@case
def two_files_are_exchanged(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    at.file("g", b"two")
    yield
    renameat2(at / "f", at / "g", RENAME_EXCHANGE)
    assert (at / "f").read_bytes() == b"two"
    assert (at / "g").read_bytes() == b"one"


@case
def a_file_and_a_new_directory_are_exchanged(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    yield
    (at / "d").mkdir()
    (at / "d/in").write_bytes(b"two")
    renameat2(at / "f", at / "d", RENAME_EXCHANGE)
    assert (at / "d").read_bytes() == b"one"
    assert (at / "f/in").read_bytes() == b"two"


@case
def two_directories_are_exchanged(at: Place) -> Iterator[None]:
    at.directory("a")
    at.file("a/1")
    at.directory("b")
    at.file("b/2")
    yield
    renameat2(at / "a", at / "b", RENAME_EXCHANGE)
    assert at.names("a") == ["2"]
    assert at.names("b") == ["1"]


@case
def an_exchange_needs_both_names(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with refused(errno.ENOENT):
        renameat2(at / "f", at / "missing", RENAME_EXCHANGE)
    with refused(errno.EINVAL):
        renameat2(at / "f", at / "f2", RENAME_EXCHANGE | RENAME_NOREPLACE)


@case
def renames_do_not_reach_another_file_system(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with refused(errno.EXDEV):
        os.rename(at / "f", ELSEWHERE / f"lamina-posix-{os.getpid()}")


@case
def a_name_renamed_away_can_be_made_again(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    yield
    os.rename(at / "f", at / "g")
    (at / "f").write_bytes(b"two")
    os.rename(at / "g", at / "h")
    assert (at / "f").read_bytes() == b"two"
    assert (at / "h").read_bytes() == b"one"


@case
def a_file_renamed_round_in_a_circle_is_the_same(at: Place) -> Iterator[None]:
    at.file("a", b"one")
    at.file("b", b"two")
    yield
    for _ in range(3):
        os.rename(at / "a", at / "c")
        os.rename(at / "b", at / "a")
        os.rename(at / "c", at / "b")
    assert (at / "a").read_bytes() == b"two"
    assert (at / "b").read_bytes() == b"one"


# --- special files --------------------------------------------------------------------------------------------------


@case
def special_files_have_their_kind_mode_and_number(at: Place) -> Iterator[None]:
    yield
    os.mknod(at / "c", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    os.mknod(at / "b", stat.S_IFBLK | 0o640, os.makedev(7, 200))
    os.mknod(at / "p", stat.S_IFIFO | 0o640)
    os.mknod(at / "s", stat.S_IFSOCK | 0o640)
    os.mknod(at / "f", stat.S_IFREG | 0o640)
    kinds = {name: stat.filemode(os.lstat(at / name).st_mode)[0] for name in "cbpsf"}
    assert kinds == {"c": "c", "b": "b", "p": "p", "s": "s", "f": "-"}
    assert os.lstat(at / "c").st_rdev == os.makedev(1, 3)
    assert os.lstat(at / "b").st_rdev == os.makedev(7, 200)
    assert {mode_of(at / name) for name in "cbpsf"} == {0o640}


@case
def a_device_leads_to_its_driver(at: Place) -> Iterator[None]:
    os.mknod(at / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(at / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    yield
    (at / "null").open("wb").write(b"gone")
    with opened(at / "zero", os.O_RDONLY) as fd:
        assert os.read(fd, 4) == bytes(4)


@case
def a_device_numbered_0_0_is_a_device(at: Place) -> Iterator[None]:
    yield
    os.mknod(at / "c", stat.S_IFCHR | 0o600, 0)
    assert stat.S_ISCHR(os.lstat(at / "c").st_mode)


@case
def devices_are_made_by_root_alone(at: Place) -> Iterator[None]:
    at.directory("d", 0o777)
    yield

    def make() -> None:
        os.mkfifo(at / "d/p")
        with refused(errno.EPERM):
            os.mknod(at / "d/c", stat.S_IFCHR | 0o600, os.makedev(1, 3))

    as_user(OTHER, make)
    assert os.lstat(at / "d/p").st_uid == OTHER


@case
def a_special_file_is_not_made_over_a_name_that_is_there(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with refused(errno.EEXIST):
        os.mkfifo(at / "f")
    (at / "f").unlink()
    os.mkfifo(at / "f")


@case
def a_socket_is_bound_and_reached_by_name(at: Place) -> Iterator[None]:
    yield
    with opened(at.root, os.O_RDONLY) as fd, socket.socket(socket.AF_UNIX) as server:
        name = f"/proc/self/fd/{fd}/s"
        server.bind(name)
        server.listen(1)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name)
            accepted, _ = server.accept()
            with accepted:
                client.sendall(b"hello")
                assert accepted.recv(10) == b"hello"
        with refused(errno.ENXIO):
            os.open(at / "s", os.O_RDWR)
    assert stat.S_ISSOCK(os.lstat(at / "s").st_mode)
