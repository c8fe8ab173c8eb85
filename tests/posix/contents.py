"""read(2), write(2), truncate(2), fallocate(2), lseek(2), mmap(2), fsync(2), and files without a name."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Iterator

from tests.posix.cases import Place, case, link_descriptor, mode_of, opened, past, refused, touched

_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16
_libc = ctypes.CDLL(None, use_errno=True)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


@case
def what_is_written_is_read_again(at: Place) -> Iterator[None]:
    at.file("f", b"old")
    yield
    data = os.urandom(3_000_000)
    (at / "f").write_bytes(data)
    assert (at / "f").read_bytes() == data


@case
def a_write_in_the_middle_leaves_the_rest(at: Place) -> Iterator[None]:
    at.file("f", b"a" * 100_000)
    yield
    with opened(at / "f", os.O_WRONLY) as fd:
        assert os.pwrite(fd, b"XYZ", 50_000) == 3
    assert (at / "f").read_bytes() == b"a" * 50_000 + b"XYZ" + b"a" * 49_997


@case
def a_write_beyond_the_end_leaves_zeros_between(at: Place) -> Iterator[None]:
    at.file("f", b"abc")
    yield
    with opened(at / "f", os.O_WRONLY) as fd:
        os.pwrite(fd, b"z", 10_000)
    assert (at / "f").read_bytes() == b"abc" + bytes(9997) + b"z"


@case
def a_read_at_the_end_gives_nothing(at: Place) -> Iterator[None]:
    at.file("f", b"abc")
    yield
    with opened(at / "f", os.O_RDONLY) as fd:
        assert os.read(fd, 10) == b"abc"
        assert os.read(fd, 10) == b""
        assert os.pread(fd, 10, 1 << 40) == b""


@case
def several_buffers_are_one_write(at: Place) -> Iterator[None]:
    at.file("f", b"")
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        assert os.writev(fd, [b"one", b"", b"two"]) == 6
        room = [bytearray(2), bytearray(10)]
        assert os.preadv(fd, room, 1) == 5
    assert (at / "f").read_bytes() == b"onetwo"


@case
def writing_sets_the_modification_and_change_times(at: Place) -> Iterator[None]:
    past(at.file("f"))
    yield
    before = (at / "f").stat().st_ctime_ns
    with opened(at / "f", os.O_WRONLY) as fd:
        os.write(fd, b"x")
    assert touched(at / "f")
    assert (at / "f").stat().st_ctime_ns >= before
    assert (at / "f").stat().st_ctime_ns > 10**18


@case
def what_one_descriptor_writes_another_reads(at: Place) -> Iterator[None]:
    at.file("f", b"old content")
    yield
    with opened(at / "f", os.O_RDWR) as one, opened(at / "f", os.O_RDWR) as two:
        os.write(one, b"new")
        assert os.read(two, 11) == b"new content"
        os.pwrite(two, b"NEW", 0)
        assert os.pread(one, 3, 0) == b"NEW"


@case
def a_descriptor_that_was_open_for_reading_sees_the_first_write(at: Place) -> Iterator[None]:
    at.file("f", b"old content")
    yield
    with opened(at / "f", os.O_RDONLY) as reader:
        assert os.pread(reader, 3, 0) == b"old"
        with opened(at / "f", os.O_WRONLY) as writer:
            os.write(writer, b"new")
        assert os.pread(reader, 11, 0) == b"new content"


@case
def a_descriptor_that_was_open_for_reading_sees_a_truncation(at: Place) -> Iterator[None]:
    at.file("f", b"old content")
    yield
    with opened(at / "f", os.O_RDONLY) as reader:
        os.truncate(at / "f", 3)
        assert os.fstat(reader).st_size == 3
        assert os.pread(reader, 11, 0) == b"old"


@case
def a_descriptor_that_was_open_for_reading_sees_a_change_of_mode(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_RDONLY) as reader:
        (at / "f").chmod(0o751)
        assert os.fstat(reader).st_mode & 0o777 == 0o751


@case
def appending_goes_to_the_end_whatever_the_offset(at: Place) -> Iterator[None]:
    at.file("f", b"start")
    yield
    with opened(at / "f", os.O_WRONLY | os.O_APPEND) as fd:
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"+1")
        os.truncate(at / "f", 3)
        os.write(fd, b"+2")
    assert (at / "f").read_bytes() == b"sta+2"


@case
def several_appenders_lose_nothing(at: Place) -> Iterator[None]:
    at.file("f", b"")
    yield

    def append(letter: bytes) -> None:
        with opened(at / "f", os.O_WRONLY | os.O_APPEND) as fd:
            for _ in range(100):
                os.write(fd, letter * 99 + b"\n")

    threads = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (at / "f").read_bytes().splitlines()
    assert len(lines) == 400
    assert all(len(set(line)) == 1 and len(line) == 99 for line in lines)


@case
def appending_can_be_switched_on_later(at: Place) -> Iterator[None]:
    import fcntl

    at.file("f", b"start")
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        os.write(fd, b"+")
    assert (at / "f").read_bytes() == b"start+"


@case
def truncating_shortens_and_extends_with_zeros(at: Place) -> Iterator[None]:
    past(at.file("f", b"a" * 10_000))
    yield
    os.truncate(at / "f", 5)
    os.truncate(at / "f", 5000)
    assert (at / "f").read_bytes() == b"aaaaa" + bytes(4995)
    assert touched(at / "f")


@case
def truncating_what_cannot_be_is_refused(at: Place) -> Iterator[None]:
    at.directory("d")
    at.file("f")
    yield
    with refused(errno.EISDIR):
        os.truncate(at / "d", 0)
    with refused(errno.ENOENT):
        os.truncate(at / "missing", 0)
    with refused(errno.EINVAL):
        os.truncate(at / "f", -1)
    with opened(at / "f", os.O_RDONLY) as fd, refused(errno.EINVAL, errno.EBADF):
        os.ftruncate(fd, 0)


@case
def a_file_may_be_larger_than_four_gigabytes(at: Place) -> Iterator[None]:
    at.file("f", b"start")
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        os.pwrite(fd, b"end", 5 << 30)
        assert os.fstat(fd).st_size == (5 << 30) + 3
        assert os.pread(fd, 3, 5 << 30) == b"end"
        assert os.fstat(fd).st_blocks * 512 < 1 << 20


@case
def holes_and_data_are_told_apart(at: Place) -> Iterator[None]:
    with opened(at / "f", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"d" * 4096, 1 << 20)
        os.ftruncate(fd, 2 << 20)
    yield
    with opened(at / "f", os.O_RDONLY) as fd:
        assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20
        assert os.lseek(fd, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 4096
        with refused(errno.ENXIO):
            os.lseek(fd, (1 << 20) + 4096, os.SEEK_DATA)


@case
def seeking_before_the_start_is_refused(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_RDONLY) as fd:
        with refused(errno.EINVAL):
            os.lseek(fd, -1, os.SEEK_SET)
        assert os.lseek(fd, 0, os.SEEK_END) == 7


@case
def allocating_extends_with_zeros(at: Place) -> Iterator[None]:
    at.file("f", b"abc")
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        os.posix_fallocate(fd, 0, 100_000)
        assert os.fstat(fd).st_size == 100_000
        assert os.pread(fd, 5, 0) == b"abc\0\0"
        assert os.fstat(fd).st_blocks * 512 >= 100_000


@case
def allocating_beyond_the_end_can_keep_the_size(at: Place) -> Iterator[None]:
    at.file("f", b"abc")
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        fallocate(fd, _KEEP_SIZE, 0, 100_000)
        assert os.fstat(fd).st_size == 3
        assert os.fstat(fd).st_blocks * 512 >= 100_000


@case
def a_hole_can_be_punched(at: Place) -> Iterator[None]:
    at.file("f", b"a" * 65_536)
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, 4096, 8192)
        assert os.fstat(fd).st_size == 65_536
        assert os.pread(fd, 65_536, 0) == b"a" * 4096 + bytes(8192) + b"a" * 53_248
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 4096


@case
def a_range_can_be_zeroed(at: Place) -> Iterator[None]:
    at.file("f", b"a" * 20_000)
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        fallocate(fd, _ZERO_RANGE, 5000, 10_000)
    assert (at / "f").read_bytes() == b"a" * 5000 + bytes(10_000) + b"a" * 5000


@case
def allocating_on_a_read_only_descriptor_is_refused(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_RDONLY) as fd, refused(errno.EBADF):
        fallocate(fd, 0, 0, 1)


@case
def a_range_is_copied_from_file_to_file(at: Place) -> Iterator[None]:
    at.file("from", b"0123456789" * 1000)
    at.file("to", b"")
    yield
    with opened(at / "from", os.O_RDONLY) as one, opened(at / "to", os.O_WRONLY) as two:
        assert os.copy_file_range(one, two, 5000, 10, 3) == 5000
    assert (at / "to").read_bytes() == bytes(3) + b"0123456789" * 500


@case
def a_file_is_sent_to_a_pipe(at: Place) -> Iterator[None]:
    at.file("f", b"sent")
    yield
    reading, writing = os.pipe()
    try:
        with opened(at / "f", os.O_RDONLY) as fd:
            assert os.sendfile(writing, fd, 0, 4) == 4
        assert os.read(reading, 10) == b"sent"
    finally:
        os.close(reading)
        os.close(writing)


@case
def a_directory_is_not_read_as_a_file(at: Place) -> Iterator[None]:
    at.directory("d")
    yield
    with opened(at / "d", os.O_RDONLY) as fd, refused(errno.EISDIR):
        os.read(fd, 10)


@case
def a_shared_mapping_writes_into_the_file(at: Place) -> Iterator[None]:
    at.file("f", b"a" * 8192)
    yield
    with opened(at / "f", os.O_RDWR) as fd, mmap.mmap(fd, 8192) as view:
        view[4096:4099] = b"XYZ"
        assert os.pread(fd, 3, 4096) == b"XYZ"
        os.pwrite(fd, b"123", 0)
        assert view[:3] == b"123"
        view.flush()
    assert (at / "f").read_bytes() == b"123" + b"a" * 4093 + b"XYZ" + b"a" * 4093


@case
def a_shared_mapping_outlives_its_descriptor(at: Place) -> Iterator[None]:
    at.file("f", b"a" * 4096)
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        view = mmap.mmap(fd, 4096)
    view[:3] = b"XYZ"
    view.close()
    assert (at / "f").read_bytes()[:4] == b"XYZa"


@case
def writing_through_a_mapping_sets_the_time(at: Place) -> Iterator[None]:
    past(at.file("f", b"a" * 4096))
    yield
    with opened(at / "f", os.O_RDWR) as fd, mmap.mmap(fd, 4096) as view:
        view[:1] = b"b"
        view.flush()
        os.fsync(fd)
    assert touched(at / "f")


@case
def a_private_mapping_leaves_the_file_alone(at: Place) -> Iterator[None]:
    past(at.file("f", b"a" * 4096))
    yield
    with opened(at / "f", os.O_RDONLY) as fd, mmap.mmap(fd, 4096, access=mmap.ACCESS_COPY) as view:
        view[:3] = b"XYZ"
        assert view[:4] == b"XYZa"
    assert (at / "f").read_bytes() == b"a" * 4096
    assert not touched(at / "f")


@case
def a_mapping_for_reading_shows_the_file(at: Place) -> Iterator[None]:
    at.file("f", b"mapped" * 2000)
    yield
    with opened(at / "f", os.O_RDONLY) as fd, mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
        assert view[:] == b"mapped" * 2000


@case
def files_and_directories_can_be_synced(at: Place) -> Iterator[None]:
    at.file("f")
    at.directory("d")
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        os.write(fd, b"x")
        os.fdatasync(fd)
        os.fsync(fd)
        assert _libc.syncfs(fd) == 0
    with opened(at / "f", os.O_RDONLY) as fd:
        os.fsync(fd)
    with opened(at / "d", os.O_RDONLY) as fd:
        os.fsync(fd)


@case
def a_removed_file_stays_whole_for_who_has_it_open(at: Place) -> Iterator[None]:
    at.file("f", b"still here")
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        (at / "f").unlink()
        assert at.names() == []
        assert os.fstat(fd).st_nlink == 0
        assert os.pread(fd, 10, 0) == b"still here"
        os.pwrite(fd, b"STILL", 0)
        os.ftruncate(fd, 5)
        os.fchmod(fd, 0o600)
        os.fchown(fd, 1, 2)
        assert os.pread(fd, 10, 0) == b"STILL"
        status = os.fstat(fd)
        assert (status.st_size, status.st_mode & 0o777, status.st_uid, status.st_gid) == (5, 0o600, 1, 2)
    assert at.names() == []


@case
def a_removed_file_that_is_open_for_reading_stays_readable(at: Place) -> Iterator[None]:
    at.file("f", b"x" * 100_000)
    yield
    with opened(at / "f", os.O_RDONLY) as fd:
        (at / "f").unlink()
        (at / "f").write_bytes(b"another")
        assert os.pread(fd, 200_000, 0) == b"x" * 100_000
        assert os.fstat(fd).st_nlink == 0
    assert (at / "f").read_bytes() == b"another"


@case
def a_removed_file_has_no_new_name(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        (at / "f").unlink()
        with refused(errno.ENOENT):
            link_descriptor(fd, at / "g")


@case
def a_file_that_was_replaced_stays_for_who_has_it_open(at: Place) -> Iterator[None]:
    at.file("f", b"old")
    at.file("g", b"new")
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        os.rename(at / "g", at / "f")
        assert os.read(fd, 10) == b"old"
        os.write(fd, b"er")
    assert (at / "f").read_bytes() == b"new"


@case
def a_renamed_file_stays_the_same_for_who_has_it_open(at: Place) -> Iterator[None]:
    at.file("f", b"one")
    yield
    with opened(at / "f", os.O_RDWR | os.O_APPEND) as fd:
        os.rename(at / "f", at / "g")
        os.write(fd, b" two")
        os.fchmod(fd, 0o600)
    assert (at / "g").read_bytes() == b"one two"
    assert mode_of(at / "g") == 0o600


@case
def a_file_in_a_renamed_directory_stays_the_same_for_who_has_it_open(at: Place) -> Iterator[None]:
    at.directory("d")
    at.file("d/f", b"one")
    yield
    with opened(at / "d/f", os.O_RDWR | os.O_APPEND) as fd:
        os.rename(at / "d", at / "e")
        os.write(fd, b" two")
        assert (at / "e/f").read_bytes() == b"one two"


@case
def writing_nothing_changes_nothing(at: Place) -> Iterator[None]:
    past(at.file("f"))
    yield
    with opened(at / "f", os.O_WRONLY) as fd:
        assert os.write(fd, b"") == 0
    assert not touched(at / "f")


@case
def data_passes_through_a_fifo(at: Place) -> Iterator[None]:
    os.mkfifo(at / "p")
    yield
    with opened(at / "p", os.O_RDWR) as fd:
        os.write(fd, b"through")
        assert os.read(fd, 10) == b"through"
    assert at.names() == ["p"]
