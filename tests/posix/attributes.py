"""chmod(2), chown(2), utimensat(2), stat(2), statvfs(3), setxattr(2), acl(5)."""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
from collections.abc import Iterator

from tests.posix.cases import OTHER, THIRD, Place, as_user, case, mode_of, opened, past, refused, touched

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ACL_ACCESS, ACL_DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Tag, permissions, id each; -1 where the tag needs none."""
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, who & 0xFFFFFFFF) for tag, bits, who in entries
    )


# --- mode -----------------------------------------------------------------------------------------------------------


@case
def a_mode_is_kept_to_the_bit(at: Place) -> Iterator[None]:
    at.file("f")
    at.directory("d")
    yield
    for mode in (0o0, 0o7777, 0o4711, 0o2070, 0o1000, 0o644):
        (at / "f").chmod(mode)
        (at / "d").chmod(mode)
        assert (mode_of(at / "f"), mode_of(at / "d")) == (mode, mode)


@case
def a_change_of_mode_leaves_content_and_time_of_writing(at: Place) -> Iterator[None]:
    past(at.file("f", b"content"))
    yield
    (at / "f").chmod(0o600)
    assert (at / "f").read_bytes() == b"content"
    assert not touched(at / "f")
    assert (at / "f").stat().st_ctime_ns > 10**18


@case
def a_change_of_mode_follows_a_symlink(at: Place) -> Iterator[None]:
    at.file("f", mode=0o644)
    (at / "l").symlink_to("f")
    yield
    os.chmod(at / "l", 0o600)
    assert mode_of(at / "f") == 0o600


@case
def a_mode_is_changed_through_a_descriptor(at: Place) -> Iterator[None]:
    at.file("f")
    at.directory("d")
    yield
    for name in ("f", "d"):
        with opened(at / name, os.O_RDONLY) as fd:
            os.fchmod(fd, 0o701)
        assert mode_of(at / name) == 0o701


@case
def only_the_owner_changes_a_mode(at: Place) -> Iterator[None]:
    at.file("f")
    os.chown(at / "f", OTHER, OTHER)
    yield

    def refuse() -> None:
        with refused(errno.EPERM):
            (at / "f").chmod(0o777)

    as_user(THIRD, refuse)
    as_user(OTHER, lambda: (at / "f").chmod(0o600))
    assert mode_of(at / "f") == 0o600


@case
def set_group_id_is_dropped_when_the_group_is_not_the_owners(at: Place) -> Iterator[None]:
    at.file("f")
    os.chown(at / "f", OTHER, THIRD)
    yield
    as_user(OTHER, lambda: (at / "f").chmod(0o2755))
    assert mode_of(at / "f") == 0o755


# --- owner ----------------------------------------------------------------------------------------------------------


@case
def root_gives_a_file_away(at: Place) -> Iterator[None]:
    past(at.file("f", b"content", 0o640))
    at.directory("d")
    (at / "l").symlink_to("f")
    yield
    for name in ("f", "d", "l"):
        os.chown(at / name, OTHER, THIRD, follow_symlinks=False)
        status = os.lstat(at / name)
        assert (status.st_uid, status.st_gid) == (OTHER, THIRD), name
    assert (at / "f").read_bytes() == b"content"
    assert mode_of(at / "f") == 0o640
    assert not touched(at / "f")


@case
def an_owner_of_minus_one_stays(at: Place) -> Iterator[None]:
    at.file("f")
    os.chown(at / "f", OTHER, THIRD)
    yield
    os.chown(at / "f", -1, 7)
    os.chown(at / "f", 8, -1)
    status = (at / "f").stat()
    assert (status.st_uid, status.st_gid) == (8, 7)


@case
def a_change_of_owner_follows_a_symlink_unless_told_not_to(at: Place) -> Iterator[None]:
    at.file("f")
    (at / "l").symlink_to("f")
    yield
    os.chown(at / "l", OTHER, OTHER)
    assert os.lstat(at / "f").st_uid == OTHER
    assert os.lstat(at / "l").st_uid == 0


@case
def a_change_of_owner_drops_set_id_bits_of_a_program(at: Place) -> Iterator[None]:
    at.file("f", mode=0o6755)
    yield
    os.chown(at / "f", OTHER, OTHER)
    assert mode_of(at / "f") == 0o755


@case
def a_change_of_owner_keeps_set_id_bits_of_a_directory(at: Place) -> Iterator[None]:
    at.directory("d", 0o6755)
    yield
    os.chown(at / "d", OTHER, OTHER)
    assert mode_of(at / "d") == 0o6755


@case
def a_change_of_owner_drops_capabilities(at: Place) -> Iterator[None]:
    at.file("f", mode=0o755)
    os.setxattr(at / "f", "security.capability", CAPABILITY)
    yield
    os.chown(at / "f", OTHER, OTHER)
    assert "security.capability" not in os.listxattr(at / "f")


@case
def nobody_else_gives_a_file_away(at: Place) -> Iterator[None]:
    at.file("f")
    os.chown(at / "f", OTHER, OTHER)
    yield

    def refuse() -> None:
        for uid, gid in ((THIRD, -1), (-1, THIRD), (0, 0)):
            with refused(errno.EPERM):
                os.chown(at / "f", uid, gid)

    as_user(OTHER, refuse)
    as_user(THIRD, refuse)


@case
def an_owner_gives_a_file_to_a_group_of_its_own(at: Place) -> Iterator[None]:
    at.file("f")
    os.chown(at / "f", OTHER, OTHER)
    yield
    as_user(OTHER, lambda: os.chown(at / "f", -1, THIRD), groups=(THIRD,))
    assert (at / "f").stat().st_gid == THIRD


# --- times ----------------------------------------------------------------------------------------------------------


@case
def times_are_kept_to_the_nanosecond(at: Place) -> Iterator[None]:
    at.file("f")
    at.directory("d")
    (at / "l").symlink_to("f")
    yield
    for name in ("f", "d", "l"):
        os.utime(at / name, ns=(1_111_111_111_111_111_111, 1_222_222_222_222_222_222), follow_symlinks=False)
        status = os.lstat(at / name)
        assert (status.st_atime_ns, status.st_mtime_ns) == (1_111_111_111_111_111_111, 1_222_222_222_222_222_222)


@case
def times_may_lie_before_1970_and_after_2038(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    for seconds in (-1, -(10**9), 2**31 + 7, 2**32 + 7):
        os.utime(at / "f", ns=(seconds * 10**9, seconds * 10**9 + 5))
        assert (at / "f").stat().st_mtime_ns == seconds * 10**9 + 5


@case
def times_can_be_set_to_now(at: Place) -> Iterator[None]:
    past(at.file("f"))
    yield
    os.utime(at / "f")
    assert abs((at / "f").stat().st_mtime - time.time()) < 60


@case
def setting_times_keeps_the_content_and_sets_the_change_time(at: Place) -> Iterator[None]:
    at.file("f", b"content")
    yield
    before = time.time_ns() - 60 * 10**9
    past(at / "f")
    assert (at / "f").stat().st_ctime_ns > before
    assert (at / "f").read_bytes() == b"content"


@case
def times_are_set_by_the_owner_and_to_now_by_a_writer(at: Place) -> Iterator[None]:
    at.file("f", mode=0o666)
    at.file("g", mode=0o644)
    yield

    def work() -> None:
        os.utime(at / "f")
        with refused(errno.EPERM):
            past(at / "f")
        with refused(errno.EACCES, errno.EPERM):
            os.utime(at / "g")

    as_user(OTHER, work)


# --- stat -----------------------------------------------------------------------------------------------------------


@case
def an_inode_number_stays_over_the_first_write(at: Place) -> Iterator[None]:
    at.file("f")
    at.directory("d")
    yield
    before = [(at / name).stat().st_ino for name in ("f", "d")]
    (at / "f").write_bytes(b"changed")
    (at / "d/new").write_bytes(b"")
    (at / "d").chmod(0o700)
    assert [(at / name).stat().st_ino for name in ("f", "d")] == before


@case
def an_inode_number_stays_over_chmod_and_rename(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    before = (at / "f").stat().st_ino
    (at / "f").chmod(0o600)
    os.rename(at / "f", at / "g")
    assert (at / "g").stat().st_ino == before


@case
def inode_numbers_are_different_for_different_files(at: Place) -> Iterator[None]:
    for number in range(50):
        at.file(f"below-{number}")
    yield
    for number in range(50):
        (at / f"above-{number}").write_bytes(b"")
    assert len({(at / name).stat().st_ino for name in at.names()}) == 100


@case
def a_tree_is_one_device(at: Place) -> Iterator[None]:
    at.directory("d")
    at.file("d/below")
    yield
    (at / "d/above").write_bytes(b"")
    assert {os.lstat(at / name).st_dev for name in (".", "d", "d/below", "d/above")} == {os.lstat(at.root).st_dev}


@case
def a_descriptor_and_its_name_tell_the_same(at: Place) -> Iterator[None]:
    at.file("f", b"x" * 5000)
    yield
    with opened(at / "f", os.O_RDWR) as fd:
        os.write(fd, b"y" * 6000)
        one, other = os.fstat(fd), (at / "f").stat()
    for name in ("st_ino", "st_dev", "st_size", "st_mode", "st_mtime_ns", "st_nlink", "st_uid"):
        assert getattr(one, name) == getattr(other, name), name


@case
def a_file_takes_blocks(at: Place) -> Iterator[None]:
    at.file("f", b"x" * 100_000)
    yield
    status = (at / "f").stat()
    assert status.st_size == 100_000
    assert status.st_blocks * 512 >= 100_000


@case
def the_file_system_tells_its_room(at: Place) -> Iterator[None]:
    yield
    found = os.statvfs(at.root)
    assert found.f_namemax == 255
    assert 0 < found.f_bavail <= found.f_bfree <= found.f_blocks
    assert found.f_bsize > 0


@case
def a_change_is_seen_at_once(at: Place) -> Iterator[None]:
    at.file("f", b"1")
    yield
    for size in range(2, 50):
        with opened(at / "f", os.O_WRONLY | os.O_APPEND) as fd:
            os.write(fd, b"x")
        assert (at / "f").stat().st_size == size


# --- extended attributes --------------------------------------------------------------------------------------------


@case
def an_attribute_is_kept_to_the_byte(at: Place) -> Iterator[None]:
    at.file("f")
    at.directory("d")
    yield
    for name in ("f", "d"):
        os.setxattr(at / name, "user.note", bytes(range(256)))
        os.setxattr(at / name, "user.empty", b"")
        os.setxattr(at / name, "trusted.note", b"t")
        assert os.getxattr(at / name, "user.note") == bytes(range(256))
        assert os.getxattr(at / name, "user.empty") == b""
        assert {"user.note", "user.empty", "trusted.note"} <= set(os.listxattr(at / name))


@case
def an_attribute_that_was_there_can_be_changed_and_removed(at: Place) -> Iterator[None]:
    past(at.file("f"))
    os.setxattr(at / "f", "user.one", b"1")
    os.setxattr(at / "f", "user.two", b"2")
    yield
    assert os.getxattr(at / "f", "user.one") == b"1"
    os.setxattr(at / "f", "user.one", b"changed")
    os.removexattr(at / "f", "user.two")
    assert os.listxattr(at / "f") == ["user.one"]
    assert os.getxattr(at / "f", "user.one") == b"changed"
    assert (at / "f").read_bytes() == b"content"
    assert not touched(at / "f")


@case
def attributes_go_with_a_file_that_is_written_to_or_renamed(at: Place) -> Iterator[None]:
    at.file("f", mode=0o755)
    os.setxattr(at / "f", "user.note", b"1")
    os.setxattr(at / "f", "trusted.note", b"2")
    yield
    with opened(at / "f", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"+")
    os.rename(at / "f", at / "g")
    assert os.getxattr(at / "g", "user.note") == b"1"
    assert os.getxattr(at / "g", "trusted.note") == b"2"


@case
def creating_and_replacing_an_attribute_are_told_apart(at: Place) -> Iterator[None]:
    at.file("f")
    os.setxattr(at / "f", "user.there", b"1")
    yield
    with refused(errno.EEXIST):
        os.setxattr(at / "f", "user.there", b"2", os.XATTR_CREATE)
    with refused(errno.ENODATA):
        os.setxattr(at / "f", "user.missing", b"2", os.XATTR_REPLACE)
    os.setxattr(at / "f", "user.there", b"3", os.XATTR_REPLACE)
    assert os.getxattr(at / "f", "user.there") == b"3"


@case
def a_missing_attribute_is_told(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with refused(errno.ENODATA):
        os.getxattr(at / "f", "user.missing")
    with refused(errno.ENODATA):
        os.removexattr(at / "f", "user.missing")


@case
def a_symlink_has_no_user_attributes(at: Place) -> Iterator[None]:
    (at / "l").symlink_to("target")
    yield
    with refused(errno.EPERM):
        os.setxattr(at / "l", "user.note", b"1", follow_symlinks=False)
    os.setxattr(at / "l", "trusted.note", b"1", follow_symlinks=False)
    assert os.getxattr(at / "l", "trusted.note", follow_symlinks=False) == b"1"


@case
def attributes_are_reached_through_a_descriptor(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_RDONLY) as fd:
        os.setxattr(fd, "user.note", b"1")
        assert os.getxattr(fd, "user.note") == b"1"
        os.removexattr(fd, "user.note")
        assert os.listxattr(fd) == []


@case
def user_attributes_follow_the_files_permissions(at: Place) -> Iterator[None]:
    at.file("f", mode=0o644)
    os.setxattr(at / "f", "user.note", b"1")
    yield

    def work() -> None:
        assert os.getxattr(at / "f", "user.note") == b"1"
        with refused(errno.EACCES, errno.EPERM):
            os.setxattr(at / "f", "user.note", b"2")

    as_user(OTHER, work)


@case
def trusted_attributes_are_for_root_alone(at: Place) -> Iterator[None]:
    at.file("f", mode=0o666)
    os.setxattr(at / "f", "trusted.note", b"1")
    yield

    def work() -> None:
        with refused(errno.ENODATA, errno.EPERM):
            os.getxattr(at / "f", "trusted.note")
        with refused(errno.EPERM):
            os.setxattr(at / "f", "trusted.note", b"2")

    as_user(OTHER, work)


@case
def capabilities_are_kept_over_a_change_of_mode(at: Place) -> Iterator[None]:
    at.file("f", mode=0o755)
    os.setxattr(at / "f", "security.capability", CAPABILITY)
    yield
    (at / "f").chmod(0o700)
    assert os.getxattr(at / "f", "security.capability") == CAPABILITY


@case
def capabilities_are_dropped_by_a_write(at: Place) -> Iterator[None]:
    at.file("f", mode=0o755)
    os.setxattr(at / "f", "security.capability", CAPABILITY)
    yield
    with opened(at / "f", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"+")
    assert "security.capability" not in os.listxattr(at / "f")


@case
def an_access_list_lets_one_more_user_in(at: Place) -> Iterator[None]:
    at.file("f", mode=0o600)
    yield

    def refuse() -> None:
        with refused(errno.EACCES):
            (at / "f").read_bytes()

    as_user(OTHER, refuse)
    entries = ((0x01, 6, -1), (0x02, 4, OTHER), (0x04, 0, -1), (0x10, 4, -1), (0x20, 0, -1))
    os.setxattr(at / "f", ACL_ACCESS, acl(*entries))
    assert as_user(OTHER, (at / "f").read_bytes) == b"content"
    as_user(THIRD, refuse)
    assert mode_of(at / "f") == 0o640


@case
def an_access_list_that_was_there_is_kept(at: Place) -> Iterator[None]:
    at.file("f", mode=0o600)
    entries = ((0x01, 6, -1), (0x02, 4, OTHER), (0x04, 0, -1), (0x10, 4, -1), (0x20, 0, -1))
    os.setxattr(at / "f", ACL_ACCESS, acl(*entries))
    yield
    assert as_user(OTHER, (at / "f").read_bytes) == b"content"
    with opened(at / "f", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"+")
    assert as_user(OTHER, (at / "f").read_bytes) == b"content+"
    assert os.getxattr(at / "f", ACL_ACCESS) == acl(*entries)


@case
def a_default_access_list_is_inherited(at: Place) -> Iterator[None]:
    at.directory("d")
    entries = ((0x01, 7, -1), (0x02, 6, OTHER), (0x04, 0, -1), (0x10, 7, -1), (0x20, 0, -1))
    os.setxattr(at / "d", ACL_DEFAULT, acl(*entries))
    (at / "d").chmod(0o755)
    yield
    (at / "d/f").write_bytes(b"content")
    (at / "d/e").mkdir()
    assert as_user(OTHER, (at / "d/f").read_bytes) == b"content"
    assert ACL_DEFAULT in os.listxattr(at / "d/e")
    assert mode_of(at / "d/f") & 0o007 == 0


# --- what others may do ---------------------------------------------------------------------------------------------


@case
def a_file_is_read_and_written_by_whom_its_mode_lets(at: Place) -> Iterator[None]:
    at.file("private", mode=0o600)
    at.file("shown", mode=0o644)
    at.file("shared", mode=0o666)
    yield

    def work() -> None:
        with refused(errno.EACCES):
            os.open(at / "private", os.O_RDONLY)
        assert (at / "shown").read_bytes() == b"content"
        with refused(errno.EACCES):
            os.open(at / "shown", os.O_WRONLY)
        with refused(errno.EACCES):
            os.truncate(at / "shown", 0)
        (at / "shared").write_bytes(b"by another")

    as_user(OTHER, work)
    assert (at / "shared").read_bytes() == b"by another"
    assert (at / "shared").stat().st_uid == 0


@case
def a_group_may_what_the_others_may_not(at: Place) -> Iterator[None]:
    at.file("f", mode=0o660)
    os.chown(at / "f", 0, THIRD)
    yield

    def refuse() -> None:
        with refused(errno.EACCES):
            os.open(at / "f", os.O_RDONLY)

    as_user(OTHER, refuse)
    as_user(OTHER, lambda: (at / "f").write_bytes(b"group"), groups=(THIRD,))
    assert (at / "f").read_bytes() == b"group"


@case
def the_owner_is_judged_by_the_owners_bits(at: Place) -> Iterator[None]:
    at.file("f", mode=0o077)
    os.chown(at / "f", OTHER, OTHER)
    yield

    def refuse() -> None:
        with refused(errno.EACCES):
            os.open(at / "f", os.O_RDONLY)

    as_user(OTHER, refuse)
    assert as_user(THIRD, (at / "f").read_bytes) == b"content"


@case
def root_reads_and_writes_without_any_bit(at: Place) -> Iterator[None]:
    at.file("f", mode=0)
    at.directory("d", 0)
    yield
    (at / "f").write_bytes(b"root")
    (at / "d/f").write_bytes(b"root")
    assert (at / "f").read_bytes() == b"root"
    with refused(errno.EACCES):
        os.execv(at / "f", ["f"])


@case
def a_directory_is_searched_and_listed_by_whom_its_mode_lets(at: Place) -> Iterator[None]:
    for name, mode in (("closed", 0o700), ("listed", 0o744), ("passed", 0o711)):
        at.directory(name, 0o755)
        at.file(f"{name}/f")
        (at / name).chmod(mode)
    yield

    def work() -> None:
        for name in ("closed", "listed"):
            with refused(errno.EACCES):
                os.stat(at / name / "f")
        for name in ("closed", "passed"):
            with refused(errno.EACCES):
                os.listdir(at / name)
        assert os.listdir(at / "listed") == ["f"]
        assert (at / "passed/f").read_bytes() == b"content"

    as_user(OTHER, work)


@case
def names_are_made_and_removed_by_who_may_write_the_directory(at: Place) -> Iterator[None]:
    at.directory("d", 0o755)
    at.file("d/f", mode=0o666)
    at.directory("open", 0o777)
    at.file("open/roots", mode=0o600)
    yield

    def work() -> None:
        with refused(errno.EACCES):
            (at / "d/f").unlink()
        with refused(errno.EACCES):
            (at / "d/new").mkdir()
        with refused(errno.EACCES):
            os.rename(at / "d/f", at / "open/f")
        (at / "open/roots").unlink()
        (at / "open/mine").mkdir()

    as_user(OTHER, work)
    assert at.names("open") == ["mine"]


@case
def in_a_sticky_directory_only_the_owner_removes(at: Place) -> Iterator[None]:
    at.directory("tmp", 0o1777)
    at.file("tmp/f", mode=0o666)
    os.chown(at / "tmp/f", THIRD, THIRD)
    yield

    def work() -> None:
        with refused(errno.EPERM, errno.EACCES):
            (at / "tmp/f").unlink()
        with refused(errno.EPERM, errno.EACCES):
            os.rename(at / "tmp/f", at / "tmp/g")
        (at / "tmp/mine").write_bytes(b"")
        (at / "tmp/mine").unlink()

    as_user(OTHER, work)
    as_user(THIRD, (at / "tmp/f").unlink)


@case
def a_file_without_execute_bits_does_not_run(at: Place) -> Iterator[None]:
    at.file("program", b"#!/bin/sh\n", 0o644)
    yield
    import subprocess

    with refused(errno.EACCES):
        subprocess.run([at / "program"], check=False)


@case
def a_write_by_another_user_drops_set_id_bits(at: Place) -> Iterator[None]:
    at.file("f", mode=0o6777)
    yield

    def work() -> None:
        with opened(at / "f", os.O_WRONLY) as fd:
            os.write(fd, b"x")

    as_user(OTHER, work)
    assert mode_of(at / "f") == 0o777


@case
def a_truncation_by_another_user_drops_set_id_bits(at: Place) -> Iterator[None]:
    at.file("f", mode=0o6777)
    at.file("g", mode=0o6777)
    yield

    def work() -> None:
        os.truncate(at / "f", 1)
        os.close(os.open(at / "g", os.O_WRONLY | os.O_TRUNC))

    as_user(OTHER, work)
    assert mode_of(at / "f") == 0o777
    assert mode_of(at / "g") == 0o777


@case
def set_user_id_works_at_execution(at: Place) -> Iterator[None]:
    at.file("id", open("/usr/bin/id", "rb").read(), 0o755)  # noqa: SIM115 - three bytes of a test
    os.chown(at / "id", OTHER, OTHER)
    (at / "id").chmod(0o4755)
    yield
    import subprocess

    assert subprocess.run([at / "id", "-u"], check=True, capture_output=True).stdout == b"%d\n" % OTHER


@case
def who_may_what_is_told_without_trying(at: Place) -> Iterator[None]:
    at.file("f", mode=0o640)
    yield
    assert os.access(at / "f", os.R_OK | os.W_OK)
    assert not os.access(at / "f", os.X_OK)
    assert not as_user(OTHER, lambda: os.access(at / "f", os.R_OK))
    assert as_user(OTHER, lambda: os.access(at / "f", os.F_OK))


@case
def threads_see_one_file(at: Place) -> Iterator[None]:
    at.file("f", bytes(64 * 1024))
    yield
    failures: list[str] = []

    def work(number: int) -> None:
        mine = bytes([number]) * 1024
        with opened(at / "f", os.O_RDWR) as fd:
            for turn in range(8):
                offset = (turn * 8 + number) * 1024
                os.pwrite(fd, mine, offset)
                if os.pread(fd, 1024, offset) != mine:
                    failures.append(f"{number} in turn {turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (at / "f").read_bytes() == b"".join(bytes([number]) * 1024 for _ in range(8) for number in range(8))
