import json
import os
import socket
import threading
from pathlib import Path

from lamina.layers import worker
from lamina.oci.digest import digest_of
from tests.unit.changeset.tars import LAYER_1

from .test_unpack import mine


def test_a_worker_accepts_answers_and_ends_with_its_control_socket(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    (tmp_path / "layer").mkdir()
    spec = {
        "job": "unpack",
        "directory": str(tmp_path / "layer"),
        "tar_split": str(tmp_path / "split"),
        "dialect": "none",
        "bytes": -1,
        "limits": {"output_bytes": 1 << 30, "free_bytes": 1 << 30, "ratio": 100, "entries": 99, "file_bytes": 1 << 30},
    }
    tar = mine(LAYER_1)
    read_fd, write_fd = os.pipe()
    os.write(write_fd, tar)
    os.close(write_fd)
    served = threading.Thread(target=serve, args=(theirs.detach(),))
    served.start()
    socket.send_fds(ours, [json.dumps(spec).encode()], [read_fd])
    os.close(read_fd)
    assert ours.recv(1000) == worker.ACCEPTED
    assert json.loads(ours.recv(10_000))["diff_id"] == digest_of(tar)
    ours.shutdown(socket.SHUT_WR)
    served.join(5)
    assert not served.is_alive()
    ours.close()


def serve(fd: int) -> None:
    """`main` without what belongs to a process of its own."""
    with socket.socket(fileno=fd) as control:
        worker.serve(control)


def test_a_job_that_asks_for_too_much_memory_is_an_unsafe_archive() -> None:

    answer = json.loads(worker.failure_of(MemoryError()))
    assert answer["error"] == "UnsafeArchive"
