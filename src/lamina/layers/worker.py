"""A worker process: byte and tree work that would hold the daemon's interpreter lock (blocking).

`python -m lamina.layers.worker FD` serves jobs from a control socket until it closes, nobody has asked for ten
seconds, or the daemon dies. One message is one job: a JSON object with one descriptor; one or two messages come back.
It imports little, so that starting takes a tenth of a second.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Self

from lamina import errors
from lamina.changeset.compression import StreamLimits
from lamina.changeset.tarcodec import TarLimits
from lamina.changeset.whiteout import WhiteoutDialect
from lamina.jsonvalue import JsonObject, integer, mapping, text
from lamina.layers.assemble import write_tar
from lamina.layers.unpack import Limits, UnpackTarget, unpack
from lamina.oci.digest import DiffId, Digest

IDLE_S = 10.0
MAX_MESSAGE_BYTES = 1 << 16
ACCEPTED = b'{"accepted":true}'


def main(control_fd: int) -> None:
    """Serve until there is nothing left to serve."""
    os.umask(0)  # this process makes nothing but layers: their modes are exact without a second call
    with socket.socket(fileno=control_fd) as control:
        threading.Thread(target=_die_with_daemon, args=(control,), daemon=True).start()
        serve(control)


def serve(control: socket.socket) -> None:
    """Take jobs from the control socket, one after the other, until it closes or stays quiet."""
    with suppress(ConnectionError):  # the daemon was killed: there is nobody to answer, and no next job
        while _wait(control):
            message, fds, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
            if not message:
                return
            control.send(ACCEPTED)
            control.send(_answer(message, fds[0]))


def _wait(control: socket.socket) -> bool:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    return bool(poll.poll(IDLE_S * 1000))


def _die_with_daemon(control: socket.socket) -> None:
    """End at once when the other end is closed, in the middle of a job too: its result would have no reader."""
    poll = select.poll()
    poll.register(control, select.POLLRDHUP)
    while True:
        if any(events & (select.POLLRDHUP | select.POLLHUP) for _, events in poll.poll()):
            os._exit(1)


def _answer(message: bytes, fd: int) -> bytes:
    try:
        job: JsonObject = json.loads(message)
        return json.dumps(_JOBS[text(job, "job")](job, fd)).encode()
    except Exception as error:  # noqa: BLE001 - the request boundary of this process
        return failure_of(error)


def failure_of(error: Exception) -> bytes:
    """The message that lets the daemon raise the same error."""
    if isinstance(error, errors.LaminaError):
        return _failure(type(error).__name__, error.message, hint=error.hint)
    if isinstance(error, OSError):
        where = error.filename if isinstance(error.filename, str) else ""
        return _failure("OSError", error.strerror or str(error), number=error.errno or 0, hint=where)
    if isinstance(error, MemoryError | RecursionError):
        return _failure("UnsafeArchive", f"the archive asks for too much: {type(error).__name__}")
    traceback.print_exception(error)  # a fault of ours; the daemon's log gets our stderr
    return _failure("ProcessFailed", f"the worker process for layers failed: {type(error).__name__}: {error}")


def _unpack(job: JsonObject, fd: int) -> JsonObject:
    target = UnpackTarget(
        Path(text(job, "directory")), Path(text(job, "tar_split")), WhiteoutDialect(text(job, "dialect"))
    )
    limits = mapping(job, "limits")
    bounds = Limits(
        StreamLimits(integer(limits, "output_bytes"), integer(limits, "free_bytes"), integer(limits, "ratio")),
        TarLimits(integer(limits, "entries"), integer(limits, "file_bytes")),
    )
    digest = text(job, "digest")
    size = integer(job, "bytes", -1)
    with _Source(fd, integer(job, "offset", -1), size) as source:
        done = unpack(
            source,
            target,
            expected_digest=Digest(digest) if digest else None,
            expected_bytes=size if size >= 0 else None,
            limits=bounds,
        )
    return {
        "diff_id": done.diff_id,
        "digest": done.digest,
        "stream_bytes": done.stream_bytes,
        "tar_bytes": done.tar_bytes,
        "layer_bytes": done.layer_bytes,
        "entries": done.entries,
    }


class _Source:
    """A pipe read to its end, or a slice of a file that others may be reading too (`offset` -1: a pipe)."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._left = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, size: int, /) -> bytes:
        if self._offset < 0:
            return os.read(self._fd, size)
        wanted = size if self._left < 0 else min(size, self._left)
        data = os.pread(self._fd, wanted, self._offset)
        self._offset += len(data)
        if self._left >= 0:
            self._left -= len(data)
        return data


def _write_tar(job: JsonObject, fd: int) -> JsonObject:
    with open(fd, "wb", buffering=0) as raw:
        size = write_tar(
            Path(text(job, "tar_split")),
            Path(text(job, "directory")),
            DiffId(Digest(text(job, "diff_id"))),
            _All(raw.fileno()),
        )
    return {"bytes": size}


class _All:
    """A raw pipe's `write` may take less than it is given."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


def _failure(name: str, message: str, *, hint: str = "", number: int = 0) -> bytes:
    return json.dumps({"error": name, "message": message[:4000], "hint": hint[:4000], "errno": number}).encode()


_JOBS = {"unpack": _unpack, "write_tar": _write_tar}

if __name__ == "__main__":
    main(int(sys.argv[1]))
