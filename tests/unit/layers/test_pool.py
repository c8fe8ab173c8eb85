import gzip
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.changeset.whiteout import WhiteoutDialect
from lamina.errors import DataLoss, DigestMismatch, ProcessFailed, SizeMismatch, StorageFull, UnsafeArchive
from lamina.layers.pool import FileSlice, UnpackJob, WorkerPool, _revive
from lamina.layers.unpack import UnpackTarget
from lamina.oci.digest import DiffId, Digest, digest_of
from tests.unit.changeset.tars import FILE, LAYER_1, make

from .test_unpack import mine

TAR = mine(LAYER_1)


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as made:
        yield made


@pytest.fixture
def target(tmp_path: Path) -> UnpackTarget:
    (tmp_path / "layer").mkdir()
    return UnpackTarget(tmp_path / "layer", tmp_path / "split", WhiteoutDialect.NONE)


def feed(job: UnpackJob, data: bytes) -> None:
    view = memoryview(data)
    while view:
        select.select([], [job.stdin_fd], [], 10)
        try:
            view = view[os.write(job.stdin_fd, view) :]
        except BrokenPipeError:
            break
    job.close_stdin()


def test_a_worker_unpacks_what_is_written_into_its_pipe(pool: WorkerPool, target: UnpackTarget) -> None:
    packed = gzip.compress(TAR)
    job = pool.unpack(target, expected_digest=digest_of(packed), expected_bytes=len(packed))
    feed(job, packed)
    select.select([job], [], [], 10)
    done = job.result()
    assert (done.diff_id, done.digest, done.stream_bytes) == (digest_of(TAR), digest_of(packed), len(packed))
    assert (target.directory / "etc/hello").read_bytes() == b"hello\n"


def test_a_worker_reads_a_slice_of_a_file_itself(pool: WorkerPool, target: UnpackTarget, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"before" + TAR + b"after")
    with open(tmp_path / "archive", "rb") as file:
        job = pool.unpack(target, FileSlice(file.fileno(), 6, len(TAR)), expected_digest=digest_of(TAR))
        assert job.result().diff_id == digest_of(TAR)
        assert file.tell() == 0


def test_a_worker_is_used_again_and_modes_are_exact(pool: WorkerPool, tmp_path: Path) -> None:
    seen = set()
    tar = mine(make([("f", FILE, 0o666, b"1")]))
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        job = pool.unpack(UnpackTarget(tmp_path / str(number), tmp_path / f"split{number}", WhiteoutDialect.NONE))
        seen.add(job._worker.process.pid if job._worker else None)
        feed(job, tar)
        job.result()
        assert (tmp_path / str(number) / "f").stat().st_mode & 0o777 == 0o666
    assert len(seen) == 1


def test_errors_come_back_as_what_they_were(pool: WorkerPool, target: UnpackTarget) -> None:
    cases = [
        (DigestMismatch, TAR, {"expected_digest": Digest("sha256:" + "0" * 64)}),
        (SizeMismatch, TAR, {"expected_bytes": 3}),
        (DataLoss, TAR[:700], {}),
        (UnsafeArchive, mine(make([("../x", FILE, 0o644, b"")])), {}),
    ]
    for error, data, announced in cases:
        target.tar_split.unlink(missing_ok=True)
        job = pool.unpack(target, **announced)
        feed(job, data)
        with pytest.raises(error):
            job.result()


def test_an_error_of_the_system_keeps_its_number(pool: WorkerPool, tmp_path: Path) -> None:
    job = pool.unpack(UnpackTarget(tmp_path / "absent", tmp_path / "split", WhiteoutDialect.NONE))
    feed(job, TAR)
    with pytest.raises(FileNotFoundError):
        job.result()


def test_a_tar_goes_out_through_a_worker(pool: WorkerPool, target: UnpackTarget) -> None:
    job = pool.unpack(target)
    feed(job, TAR)
    diff_id = job.result().diff_id
    read_fd, write_fd = os.pipe()
    out = pool.write_tar(target.tar_split, target.directory, diff_id, write_fd)
    os.close(write_fd)
    with open(read_fd, "rb") as stream:
        assert stream.read() == TAR
    assert out.result() == len(TAR)
    (target.directory / "etc/hello").write_bytes(b"jello\n")
    with open("/dev/null", "wb") as sink:
        damaged = pool.write_tar(target.tar_split, target.directory, DiffId(diff_id), sink.fileno())
        with pytest.raises(DataLoss, match="'etc/hello'"):
            damaged.result()


def test_a_worker_that_dies_is_told_and_replaced(pool: WorkerPool, target: UnpackTarget) -> None:
    job = pool.unpack(target)
    assert job._worker is not None
    os.kill(job._worker.process.pid, 9)
    with pytest.raises(ProcessFailed, match="ended in the middle"):
        job.result()
    target.tar_split.unlink(missing_ok=True)
    job = pool.unpack(target)
    feed(job, TAR)
    assert job.result().diff_id == digest_of(TAR)


def test_a_killed_job_ends_its_worker(pool: WorkerPool, target: UnpackTarget) -> None:
    job = pool.unpack(target)
    assert job._worker is not None
    pid = job._worker.process.pid
    job.kill()
    job.kill()
    assert not Path(f"/proc/{pid}").exists()


def test_a_job_finds_a_new_worker_when_the_idle_one_has_gone(target: UnpackTarget) -> None:
    with WorkerPool(1) as pool:
        pool.warm()
        (idle,) = pool._idle
        idle.process.kill()
        idle.process.wait()
        job = pool.unpack(target)
        feed(job, TAR)
        assert job.result().diff_id == digest_of(TAR)


def test_ended_workers_leave_no_zombie_and_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with WorkerPool(1, reap_after_s=0.05) as pool:
        pool.warm()
        (idle,) = pool._idle
        pid = idle.process.pid
        os.kill(pid, 9)
        end = time.monotonic() + 10
        while pool._idle and time.monotonic() < end:
            time.sleep(0.01)
        assert pool._idle == []
        assert not Path(f"/proc/{pid}").exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_workers_end_when_their_daemon_closes_or_dies(target: UnpackTarget) -> None:
    with WorkerPool(1) as pool:
        job = pool.unpack(target)
        assert job._worker is not None
        process = job._worker.process
        job._worker.control.close()  # what the kernel does when the daemon is killed
        assert process.wait(5.0) in {0, 1}  # by itself, between two steps or in the middle of one
        job.kill()
    pool.warm()
    assert pool._idle == []


def test_progress_is_ready_only_when_the_result_is_there(pool: WorkerPool, target: UnpackTarget) -> None:
    job = pool.unpack(target)
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        select.select([job], [], [], 0.05)
        assert not job.ready()
    feed(job, TAR)
    while not job.ready():
        select.select([job], [], [], 5)
    assert job.result().entries == 7


def test_unknown_errors_of_a_worker_are_still_errors() -> None:
    assert isinstance(_revive({"error": "StorageFull", "message": "m"}), StorageFull)
    assert isinstance(_revive({"error": "__import__", "message": "m"}), ProcessFailed)
