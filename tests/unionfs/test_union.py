"""What a union promises: branches as AUFS has them, copies made whole, a mount that outlives mistakes."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.unionfs.unions import RESERVED, union

pytestmark = pytest.mark.root


def test_the_topmost_branch_that_has_a_name_shows_it(tmp_path: Path) -> None:
    with union(tmp_path / "u", lowers=3) as u:
        for number in (1, 2, 3):
            (u.lower(number) / "all").write_text(str(number))
        (u.lower(2) / "two").write_text("2")
        (u.lower(3) / "two").write_text("3")
        u.mount()
        assert (u.mnt / "all").read_text() == "1"
        assert (u.mnt / "two").read_text() == "2"


def test_a_removed_name_of_a_lower_branch_is_an_aufs_whiteout(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        (u.lower() / "gone").write_text("x")
        u.mount()
        (u.mnt / "gone").unlink()
        assert not (u.mnt / "gone").exists()
        assert (u.rw / ".wh.gone").read_bytes() == b""
        assert (u.rw / ".wh.gone").stat().st_ino == (u.rw / ".wh..wh.aufs").stat().st_ino
        (u.mnt / "gone").write_text("again")
        assert not (u.rw / ".wh.gone").exists()


def test_a_directory_made_again_is_opaque(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        (u.lower() / "d").mkdir()
        (u.lower() / "d" / "old").touch()
        u.mount()
        (u.mnt / "d" / "old").unlink()
        (u.mnt / "d").rmdir()
        (u.mnt / "d").mkdir()
        assert (u.rw / "d" / ".wh..wh..opq").exists()
        u.remount()
        assert os.listdir(u.mnt / "d") == []


def test_names_of_aufs_do_not_show_and_cannot_be_made(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        u.mount()
        assert {entry.name for entry in u.rw.iterdir()} == RESERVED
        assert os.listdir(u.mnt) == []
        for name in (".wh.x", ".wh..wh..opq"):
            with pytest.raises(PermissionError):
                (u.mnt / name).touch()
            with pytest.raises(PermissionError):
                (u.mnt / name).mkdir()


def test_a_copy_keeps_owner_mode_times_attributes_and_holes(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        low = u.lower() / "f"
        with low.open("wb") as file:
            file.truncate(8 << 20)
            file.seek(4 << 20)
            file.write(b"middle")
        os.chown(low, 12, 34)
        low.chmod(0o2750)
        os.setxattr(low, "user.a", b"1")
        os.setxattr(low, "trusted.b", b"2")
        os.utime(low, ns=(1_000_000_001, 2_000_000_003))
        before = low.stat()
        u.mount()
        ino = (u.mnt / "f").stat().st_ino
        os.setxattr(u.mnt / "f", "user.c", b"3")
        copy = u.rw / "f"
        after = copy.stat()
        for field in ("st_uid", "st_gid", "st_mode", "st_size", "st_mtime_ns"):
            assert getattr(after, field) == getattr(before, field)
        assert after.st_blocks <= before.st_blocks + 8
        assert copy.read_bytes() == low.read_bytes()
        assert os.getxattr(copy, "trusted.b") == b"2"
        assert (u.mnt / "f").stat().st_ino == ino
        assert low.stat().st_ctime_ns == before.st_ctime_ns


def test_a_file_open_for_reading_sees_what_is_written_after_its_copy(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        (u.lower() / "f").write_bytes(b"old" + bytes(5000))
        u.mount()
        with (u.mnt / "f").open("rb") as reader, mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:3] == b"old"
            with (u.mnt / "f").open("r+b") as writer:
                writer.write(b"new")
            assert os.pread(reader.fileno(), 3, 0) == b"new"
            assert mapped[:3] == b"new"


def test_hard_links_stay_together_over_copy_up_and_remount(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        (u.lower() / "d").mkdir()
        (u.lower() / "a").write_text("x")
        os.link(u.lower() / "a", u.lower() / "d" / "b")
        u.mount()
        (u.mnt / "a").open("a").write("y")
        for _ in range(2):
            one, two = (u.mnt / "a").stat(), (u.mnt / "d" / "b").stat()
            assert (one.st_ino, one.st_nlink) == (two.st_ino, two.st_nlink)
            assert one.st_nlink == 2
            assert (u.mnt / "d" / "b").read_text() == "xy"
            u.remount()
        assert os.listdir(u.rw / ".wh..wh.plnk") == []


def test_two_threads_that_write_one_lower_file_make_one_copy(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        for number in range(20):
            (u.lower() / f"f{number}").write_bytes(b"." * (1 << 20))
        u.mount()
        failed: list[BaseException] = []

        def write(offset: int) -> None:
            try:
                for number in range(20):
                    with (u.mnt / f"f{number}").open("r+b") as file:
                        file.seek(offset)
                        file.write(b"#")
            except BaseException as error:  # noqa: BLE001
                failed.append(error)

        workers = [threading.Thread(target=write, args=(offset,)) for offset in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not failed
        for number in range(20):
            assert (u.mnt / f"f{number}").read_bytes()[:6] == b"####.."
        assert os.listdir(u.rw / ".wh..wh.orph") == []


def test_a_server_killed_in_a_copy_leaves_the_file_whole(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        for number in range(30):
            (u.lower() / f"f{number}").write_bytes(b"z" * (1 << 20))
        u.mount()
        started = threading.Event()

        def chmod_all() -> None:
            for number in range(30):
                try:
                    (u.mnt / f"f{number}").chmod(0o600)
                except OSError:
                    return
                if number == 3:
                    started.set()

        worker = threading.Thread(target=chmod_all)
        worker.start()
        started.wait(20)
        u.kill()
        worker.join()
        u.mount()
        assert os.listdir(u.rw / ".wh..wh.orph") == []
        for number in range(30):
            assert (u.mnt / f"f{number}").read_bytes() == b"z" * (1 << 20)


def test_a_listing_stays_whole_while_its_names_are_removed(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        for number in range(600):
            (u.lower() / f"low{number}").touch()
        u.mount()
        for number in range(600):
            (u.mnt / f"top{number}").touch()
        seen = 0
        with os.scandir(u.mnt) as entries:
            for entry in entries:
                os.unlink(entry.path)
                seen += 1
        assert seen == 1200
        assert os.listdir(u.mnt) == []


def test_a_directory_of_a_read_only_branch_moves_by_copying(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        (u.lower() / "d").mkdir()
        (u.lower() / "d" / "f").write_text("x")
        u.mount()
        with pytest.raises(OSError, match="Invalid cross-device link"):
            os.rename(u.mnt / "d", u.mnt / "e")
        subprocess.run(["mv", u.mnt / "d", u.mnt / "e"], check=True)
        assert (u.mnt / "e" / "f").read_text() == "x"
        assert not (u.mnt / "d").exists()


def test_without_a_writable_branch_nothing_can_be_changed(tmp_path: Path) -> None:
    with union(tmp_path / "u", writable=False, lowers=2) as u:
        (u.lower(1) / "f").write_text("1")
        (u.lower(2) / "g").write_text("2")
        u.mount()
        assert sorted(os.listdir(u.mnt)) == ["f", "g"]
        for act in (lambda: (u.mnt / "f").open("a"), (u.mnt / "g").unlink, (u.mnt / "n").touch):
            with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
                act()
        assert os.listdir(u.lower(1)) == ["f"]


def test_a_branch_that_vanishes_gives_errors_and_the_mount_lives_on(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        (u.lower() / "d").mkdir()
        u.mount()
        (u.mnt / "f").touch()
        u.rw.rename(tmp_path / "away")
        with pytest.raises(OSError, match="No such file"):
            (u.mnt / "new").touch()
        (tmp_path / "away").rename(u.rw)
        (u.mnt / "new").touch()


def test_the_terminals_signals_do_not_end_it(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        (u.lower() / "f").write_text("x")
        u.mount()
        assert u.process is not None
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            u.process.send_signal(number)
        assert (u.mnt / "f").read_text() == "x"


def test_in_the_background_the_program_ends_when_the_mount_works(tmp_path: Path) -> None:
    with union(tmp_path / "u") as u:
        (u.lower() / "f").write_text("x")
        done = subprocess.run(
            [sys.executable, "-m", "lamina", "unionfs", "-o", u.option_string(), u.mnt],
            check=False,
            capture_output=True,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert (u.mnt / "f").read_text() == "x"
        subprocess.run(["umount", u.mnt], check=True)


@pytest.mark.parametrize(
    "words", [["-o", "br:/nowhere=rw", "/tmp"], ["-o", "br:/tmp=rw,colour=red", "/mnt"], ["-o", ""]]
)
def test_what_cannot_be_mounted_is_said_at_once(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lamina", "unionfs", *words], check=False, capture_output=True, text=True
    )
    assert done.returncode in {1, 125}
    assert done.stderr.startswith("lamina: ")
    assert "Traceback" not in done.stderr
