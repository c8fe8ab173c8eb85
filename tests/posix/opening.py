"""open(2), creat(2), O_TMPFILE, and what names may look like."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator

from tests.posix.cases import OTHER, Place, as_user, case, link_descriptor, mode_of, opened, past, refused, touched

CREATE = os.O_CREAT | os.O_WRONLY


@case
def creating_gives_a_regular_file_with_the_mode_less_the_umask(at: Place) -> Iterator[None]:
    yield
    old = os.umask(0o027)
    try:
        os.close(os.open(at / "f", CREATE, 0o666))
    finally:
        os.umask(old)
    assert stat.S_ISREG(os.lstat(at / "f").st_mode)
    assert mode_of(at / "f") == 0o640


@case
def creating_a_file_that_is_there_keeps_its_mode_and_content(at: Place) -> Iterator[None]:
    at.file("f", b"old", 0o600)
    yield
    os.close(os.open(at / "f", CREATE, 0o777))
    assert mode_of(at / "f") == 0o600
    assert (at / "f").read_bytes() == b"old"


@case
def exclusive_creation_refuses_a_file_that_is_there(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with refused(errno.EEXIST):
        os.open(at / "f", CREATE | os.O_EXCL)


@case
def exclusive_creation_does_not_follow_a_symlink(at: Place) -> Iterator[None]:
    (at / "l").symlink_to("nowhere")
    yield
    with refused(errno.EEXIST):
        os.open(at / "l", CREATE | os.O_EXCL)
    assert at.names() == ["l"]


@case
def creation_through_a_dangling_symlink_makes_its_target(at: Place) -> Iterator[None]:
    (at / "l").symlink_to("target")
    yield
    os.close(os.open(at / "l", CREATE))
    assert at.names() == ["l", "target"]


@case
def a_missing_file_is_not_opened(at: Place) -> Iterator[None]:
    yield
    with refused(errno.ENOENT):
        os.open(at / "f", os.O_RDONLY)


@case
def a_removed_file_is_not_opened(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    (at / "f").unlink()
    with refused(errno.ENOENT):
        os.open(at / "f", os.O_RDONLY)
    with refused(errno.ENOENT):
        os.open(at / "f", os.O_RDWR)


@case
def truncating_open_empties_the_file_and_sets_its_time(at: Place) -> Iterator[None]:
    past(at.file("f", b"x" * 10_000))
    yield
    os.close(os.open(at / "f", os.O_WRONLY | os.O_TRUNC))
    assert (at / "f").stat().st_size == 0
    assert touched(at / "f")


@case
def opening_for_reading_changes_nothing(at: Place) -> Iterator[None]:
    past(at.file("f"))
    yield
    assert (at / "f").read_bytes() == b"content"
    assert not touched(at / "f")


@case
def opening_for_writing_without_writing_keeps_content_and_time(at: Place) -> Iterator[None]:
    past(at.file("f"))
    yield
    os.close(os.open(at / "f", os.O_RDWR))
    assert (at / "f").read_bytes() == b"content"
    assert not touched(at / "f")


@case
def a_file_is_no_directory(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with refused(errno.ENOTDIR):
        os.open(at / "f", os.O_RDONLY | os.O_DIRECTORY)


@case
def a_file_has_nothing_below_it(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    for act in (os.lstat, os.listdir, os.mkdir, os.unlink):
        with refused(errno.ENOTDIR):
            act(at / "f/x")
    with refused(errno.ENOTDIR):
        os.open(at / "f/x", CREATE)


@case
def a_symlink_is_not_followed_when_asked(at: Place) -> Iterator[None]:
    at.file("f")
    (at / "l").symlink_to("f")
    yield
    with refused(errno.ELOOP):
        os.open(at / "l", os.O_RDONLY | os.O_NOFOLLOW)


@case
def a_directory_is_not_opened_for_writing(at: Place) -> Iterator[None]:
    at.directory("d")
    yield
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        with refused(errno.EISDIR):
            os.open(at / "d", flags)


@case
def a_directory_is_not_made_by_open(at: Place) -> Iterator[None]:
    at.directory("d")
    yield
    with refused(errno.EISDIR):
        os.open(at / "d", CREATE)


@case
def a_path_descriptor_tells_of_its_file_and_reads_nothing(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_PATH) as fd:
        assert os.fstat(fd).st_size == 7
        with refused(errno.EBADF):
            os.read(fd, 1)


@case
def a_fifo_without_reader_is_not_opened_for_writing_without_waiting(at: Place) -> Iterator[None]:
    os.mkfifo(at / "p")
    yield
    with refused(errno.ENXIO):
        os.open(at / "p", os.O_WRONLY | os.O_NONBLOCK)


@case
def a_name_may_have_255_bytes(at: Place) -> Iterator[None]:
    at.file("n" * 255)
    yield
    assert (at / ("n" * 255)).read_bytes() == b"content"
    (at / ("n" * 255)).write_bytes(b"new")
    (at / ("m" * 255)).mkdir()
    os.rename(at / ("n" * 255), at / ("o" * 255))
    assert at.names() == ["m" * 255, "o" * 255]
    (at / ("o" * 255)).unlink()


@case
def a_name_of_256_bytes_is_too_long(at: Place) -> Iterator[None]:
    yield
    for act in (os.mkdir, os.lstat, os.unlink, os.rmdir):
        with refused(errno.ENAMETOOLONG):
            act(at / ("n" * 256))
    with refused(errno.ENAMETOOLONG):
        os.open(at / ("n" * 256), CREATE)


@case
def a_path_of_more_than_4095_bytes_is_too_long(at: Place) -> Iterator[None]:
    yield
    with refused(errno.ENAMETOOLONG):
        os.lstat(f"{at.root}/{'./' * 2048}f")


@case
def a_name_may_hold_any_bytes_but_slash_and_zero(at: Place) -> Iterator[None]:
    names = [os.fsdecode(bytes([byte]) * 2) for byte in range(1, 256) if byte not in b"./"]
    for name in names:
        at.file(name, b"")
    yield
    assert at.names() == sorted(names)
    for name in names:
        os.rename(at / name, at / (name + "+"))
    assert at.names() == sorted(name + "+" for name in names)


@case
def symlinks_that_point_to_each_other_are_told(at: Place) -> Iterator[None]:
    (at / "a").symlink_to("b")
    (at / "b").symlink_to("a")
    yield
    for act in (os.stat, os.listdir):
        with refused(errno.ELOOP):
            act(at / "a")
    with refused(errno.ELOOP):
        os.open(at / "a", CREATE)


@case
def a_chain_of_41_symlinks_is_too_long(at: Place) -> Iterator[None]:
    at.file("0")
    for number in range(1, 42):
        (at / str(number)).symlink_to(str(number - 1))
    yield
    assert (at / "40").read_bytes() == b"content"
    with refused(errno.ELOOP):
        os.stat(at / "41")


@case
def a_read_only_descriptor_does_not_write(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_RDONLY) as fd, refused(errno.EBADF):
        os.write(fd, b"x")


@case
def a_write_only_descriptor_does_not_read(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_WRONLY) as fd, refused(errno.EBADF):
        os.read(fd, 1)


@case
def a_new_file_belongs_to_who_makes_it(at: Place) -> Iterator[None]:
    at.directory("d", 0o777)
    yield
    as_user(OTHER, lambda: (at / "d/f").write_bytes(b"mine"), gid=OTHER + 1)
    found = (at / "d/f").stat()
    assert (found.st_uid, found.st_gid) == (OTHER, OTHER + 1)


@case
def a_new_file_takes_the_group_of_a_set_group_id_directory(at: Place) -> Iterator[None]:
    at.directory("d")
    os.chown(at / "d", 0, OTHER)
    (at / "d").chmod(0o2755)
    yield
    (at / "d/f").write_bytes(b"")
    (at / "d/e").mkdir()
    os.mkfifo(at / "d/p")
    assert {(at / "d" / name).stat().st_gid for name in ("f", "e", "p")} == {OTHER}
    assert mode_of(at / "d/e") & 0o2000
    assert not mode_of(at / "d/f") & 0o2000


@case
def a_new_file_in_a_removed_directory_is_refused(at: Place) -> Iterator[None]:
    at.directory("d")
    yield
    with opened(at / "d", os.O_RDONLY) as fd:
        (at / "d").rmdir()
        with refused(errno.ENOENT):
            os.open("f", CREATE, dir_fd=fd)
        with refused(errno.ENOENT):
            os.mkdir("e", dir_fd=fd)
        assert os.listdir(fd) == []


@case
def creating_sets_the_times_of_file_and_directory(at: Place) -> Iterator[None]:
    past(at.directory("d"))
    yield
    (at / "d/f").write_bytes(b"")
    assert touched(at / "d")
    status = (at / "d/f").stat()
    assert (
        max(status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
        - min(status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
        < 2 * 10**9
    )


@case
def a_temporary_file_has_no_name_until_it_is_linked(at: Place) -> Iterator[None]:
    at.directory("d")
    yield
    with opened(at / "d", os.O_TMPFILE | os.O_RDWR, 0o640) as fd:
        os.write(fd, b"data")
        assert at.names("d") == []
        assert os.fstat(fd).st_nlink == 0
        link_descriptor(fd, at / "d/f")
        assert os.fstat(fd).st_nlink == 1
    assert (at / "d/f").read_bytes() == b"data"
    assert mode_of(at / "d/f") == 0o640


@case
def a_temporary_file_made_exclusive_cannot_be_linked(at: Place) -> Iterator[None]:
    at.directory("d")
    yield
    with opened(at / "d", os.O_TMPFILE | os.O_RDWR | os.O_EXCL) as fd, refused(errno.ENOENT):
        link_descriptor(fd, at / "d/f")


@case
def a_file_can_be_read_and_written_around_the_page_cache(at: Place) -> Iterator[None]:
    at.file("f", b"a" * 8192)
    yield
    room = mmap.mmap(-1, 4096)
    with opened(at / "f", os.O_RDWR | os.O_DIRECT) as fd:
        assert os.readv(fd, [room]) == 4096
        assert room[:4] == b"aaaa"
        room[:4] = b"bbbb"
        assert os.pwritev(fd, [room], 4096) == 4096
    assert (at / "f").read_bytes()[4096:4100] == b"bbbb"


@case
def a_running_program_is_not_opened_for_writing(at: Place) -> Iterator[None]:
    at.file("program", open("/bin/sleep", "rb").read(), 0o755)  # noqa: SIM115 - three bytes of a test
    yield
    import subprocess

    with subprocess.Popen([at / "program", "60"]) as child:
        try:
            os.waitid(os.P_PID, child.pid, os.WNOHANG | os.WEXITED | os.WNOWAIT)
            with refused(errno.ETXTBSY):
                os.open(at / "program", os.O_WRONLY)
        finally:
            child.kill()


@case
def a_program_runs(at: Place) -> Iterator[None]:
    at.file("program", open("/bin/true", "rb").read(), 0o755)  # noqa: SIM115
    yield
    import subprocess

    assert subprocess.run([at / "program"], check=False).returncode == 0


@case
def a_file_that_is_open_for_writing_does_not_run(at: Place) -> Iterator[None]:
    at.file("program", open("/bin/true", "rb").read(), 0o755)  # noqa: SIM115
    yield
    import subprocess

    with opened(at / "program", os.O_RDWR), refused(errno.ETXTBSY):
        subprocess.run([at / "program"], check=False)


@case
def a_path_may_be_a_hundred_directories_deep(at: Place) -> Iterator[None]:
    deep = "/".join(["d"] * 100)
    at.directory(deep)
    at.file(deep + "/f")
    yield
    assert (at / deep / "f").read_bytes() == b"content"
    (at / deep / "f").write_bytes(b"new")
    (at / deep / "g").write_bytes(b"g")
    assert sorted(os.listdir(at / deep)) == ["f", "g"]
