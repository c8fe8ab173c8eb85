"""Worker processes for layers: started on demand, used again, gone when nobody needs them (blocking).

A worker ends by itself ten seconds after its last job, so an idle daemon has none; a job that finds its worker just
gone is given to a fresh one. A daemon that dies takes its workers with it: they watch the control socket.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lamina import errors
from lamina.errors import InvalidArgument, LaminaError, ProcessFailed
from lamina.jsonvalue import JsonObject, integer, parse_object, text
from lamina.layers.assemble import Writable
from lamina.layers.unpack import Limits, Unpacked, UnpackTarget
from lamina.layers.worker import ACCEPTED, IDLE_S, MAX_MESSAGE_BYTES
from lamina.oci.digest import DiffId, Digest, parse_digest
from lamina.programs.run import Process, spawn

PIPE_BYTES = 1 << 20
"""The largest pipe an unprivileged process may have by default: pipe(7). Fewer, larger steps on both sides."""


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Part of an open file: from `offset`, `length_bytes` long (None: to its end). Read without moving its position."""

    fd: int
    offset: int = 0
    length_bytes: int | None = None


class WorkerPool:
    """Gives jobs to worker processes. Thread-safe. `size` is how many jobs make sense at once; callers keep to it."""

    def __init__(self, size: int | None = None, *, reap_after_s: float = IDLE_S + 1) -> None:
        self.size = size or (os.cpu_count() or 1) + 1
        self._reap_after_s = reap_after_s
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._closed = False
        self._reaper: threading.Timer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self) -> None:
        """Start a worker now, if none is idle, because a job is about to come."""
        with self._lock:
            needed = not self._idle and not self._closed
        if needed:
            self._put_back(_Worker())

    def unpack(
        self,
        target: UnpackTarget,
        source: FileSlice | None = None,
        *,
        expected_digest: Digest | None = None,
        expected_bytes: int | None = None,
        limits: Limits | None = None,
    ) -> UnpackJob:
        """Start unpacking a layer archive.

        Without `source` the bytes are written into `job.stdin_fd`, which is then closed. The target must exist in this
        process's view of the file system; after a failure it holds rubbish.
        """
        spec = _unpack_spec(target, limits or Limits(), expected_digest)
        if source is not None:
            length = source.length_bytes if source.length_bytes is not None else expected_bytes
            spec |= {"offset": source.offset, "bytes": -1 if length is None else length}
            return UnpackJob(self, self._give(spec, source.fd), -1)
        spec |= {"bytes": -1 if expected_bytes is None else expected_bytes}
        read_fd, write_fd = os.pipe()
        try:
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            os.set_blocking(write_fd, False)
            worker = self._give(spec, read_fd)
        except BaseException:
            os.close(write_fd)
            raise
        finally:
            os.close(read_fd)
        return UnpackJob(self, worker, write_fd)

    def write_tar(self, tar_split: os.PathLike[str], directory: os.PathLike[str], diff_id: DiffId, fd: int) -> TarJob:
        """Start writing a layer's tar into the descriptor `fd` (a pipe, a file); the caller's copy may be closed."""
        spec: JsonObject = {
            "job": "write_tar",
            "tar_split": os.fspath(tar_split),
            "directory": os.fspath(directory),
            "diff_id": diff_id,
        }
        return TarJob(self, self._give(spec, fd), -1)

    def close(self) -> None:
        """End the idle workers; busy ones end with their jobs. Twice is fine."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
            if self._reaper is not None:
                self._reaper.cancel()
        for worker in idle:
            worker.close()

    def _give(self, spec: JsonObject, fd: int) -> _Worker:
        message = json.dumps(spec).encode()
        if len(message) > MAX_MESSAGE_BYTES:
            raise InvalidArgument("a layer's path is too long")
        while True:
            with self._lock:
                idle = self._idle.pop() if self._idle else None
            if idle is None:
                fresh = _Worker()
                fresh.send(message, fd)
                return fresh
            if idle.accepts(message, fd):
                return idle
            idle.close()

    def _put_back(self, worker: _Worker) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(worker)
                self._reap_later()
                return
        worker.close()

    def _reap_later(self) -> None:
        """Look for ended workers once their idle time is over; the lock is held."""
        if self._reaper is None:
            self._reaper = threading.Timer(self._reap_after_s, self._reap)
            self._reaper.daemon = True
            self._reaper.start()

    def _reap(self) -> None:
        """Take the ended workers off the list, so that neither processes nor descriptors stay."""
        with self._lock:
            self._reaper = None
            ended = [worker for worker in self._idle if worker.process.poll() is not None]
            self._idle = [worker for worker in self._idle if worker not in ended]
            if self._idle and not self._closed:
                self._reap_later()
        for worker in ended:
            worker.close()


class _Worker:
    """One process and our end of its control socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control = ours
        with theirs:
            # -P: a module in the daemon's working directory must not be imported.
            argv = [sys.executable, "-P", "-m", "lamina.layers.worker", str(theirs.fileno())]
            self.process: Process = spawn(argv, pass_fds=[theirs.fileno()], stderr=2)

    def send(self, message: bytes, fd: int) -> None:
        socket.send_fds(self.control, [message], [fd])

    def accepts(self, message: bytes, fd: int) -> bool:
        """Give it a job; False when it is just going."""
        try:
            self.send(message, fd)
            return self.control.recv(MAX_MESSAGE_BYTES) == ACCEPTED
        except (BrokenPipeError, ConnectionResetError):
            return False

    def close(self) -> None:
        """Close the control socket, which ends the process."""
        self.control.close()
        self.process.kill()
        self.process.wait()
        self.process.close()


class Job:
    """A job that runs. `fileno()` is readable when the result is there (or the worker has died). End with `result`."""

    def __init__(self, pool: WorkerPool, worker: _Worker, stdin_fd: int) -> None:
        self._pool = pool
        self._worker: _Worker | None = worker
        self._message = b""
        self.stdin_fd = stdin_fd

    def fileno(self) -> int:
        assert self._worker is not None
        return self._worker.control.fileno()

    def ready(self) -> bool:
        """Is the result there? Call it when `fileno()` is readable: the readiness may be that of an earlier message."""
        if self._worker is None or self._message:
            return True
        try:
            message = self._worker.control.recv(MAX_MESSAGE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        if message == ACCEPTED:
            return False
        self._message = message
        return True

    def close_stdin(self) -> None:
        """No more bytes will come. Twice is fine."""
        if self.stdin_fd >= 0:
            os.close(self.stdin_fd)
            self.stdin_fd = -1

    def kill(self) -> None:
        """Stop at once; `result` is not called any more. What was made is rubbish. Again is fine."""
        self.close_stdin()
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _wait(self) -> JsonObject:
        """Wait for the result's message; the worker goes back to the pool. Errors are raised as they were."""
        self.close_stdin()
        worker = self._worker
        assert worker is not None
        message = self._message
        while not message or message == ACCEPTED:
            try:
                message = worker.control.recv(MAX_MESSAGE_BYTES)
            except ConnectionResetError:
                message = b""
            if not message:
                self.kill()
                raise ProcessFailed("the worker process for layers ended in the middle of its work")
        self._worker = None
        self._pool._put_back(worker)  # noqa: SLF001 - one subject
        answer = parse_object(message, what="a worker's answer")
        if "error" in answer:
            raise _revive(answer)
        return answer


class UnpackJob(Job):
    """An unpacking; write the stream into `stdin_fd` (non-blocking), then `close_stdin`."""

    def result(self) -> Unpacked:
        """Wait for the end. Raises what `lamina.layers.unpack.unpack` raises, or ProcessFailed."""
        answer = self._wait()
        return Unpacked(
            diff_id=DiffId(parse_digest(text(answer, "diff_id"))),
            digest=parse_digest(text(answer, "digest")),
            stream_bytes=integer(answer, "stream_bytes"),
            tar_bytes=integer(answer, "tar_bytes"),
            layer_bytes=integer(answer, "layer_bytes"),
            entries=integer(answer, "entries"),
        )


class TarJob(Job):
    """A tar on its way out."""

    def result(self) -> int:
        """Wait for the end; the number of bytes. Raises what `lamina.layers.assemble.write_tar` raises."""
        return integer(self._wait(), "bytes")


def write_tar_through(pool: WorkerPool, tar_split: Path, directory: Path, diff_id: DiffId, out: Writable) -> int:
    """As `assemble.write_tar`, but the work is done by a worker; this thread only passes the bytes on."""
    read_fd, write_fd = os.pipe()
    try:
        try:
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            job = pool.write_tar(tar_split, directory, diff_id, write_fd)
        finally:
            os.close(write_fd)
        try:
            while data := os.read(read_fd, PIPE_BYTES):
                out.write(data)
        except BaseException:
            job.kill()
            raise
    finally:
        os.close(read_fd)
    return job.result()


def _unpack_spec(target: UnpackTarget, limits: Limits, digest: Digest | None) -> JsonObject:
    return {
        "job": "unpack",
        "directory": os.fspath(target.directory),
        "tar_split": os.fspath(target.tar_split),
        "dialect": target.dialect.value,
        "digest": digest,
        "limits": {
            "output_bytes": limits.stream.output_bytes,
            "free_bytes": limits.stream.free_bytes,
            "ratio": limits.stream.ratio,
            "entries": limits.tar.entries,
            "file_bytes": limits.tar.file_bytes,
        },
    }


def _revive(answer: JsonObject) -> Exception:
    """The error of the worker as the same class here."""
    name, message, hint = text(answer, "error"), text(answer, "message"), text(answer, "hint")
    if name == "OSError":
        return OSError(integer(answer, "errno"), message, hint or None)
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, LaminaError) and found is not errors.ProgramFailed:
        return found(message, hint=hint)
    return ProcessFailed(f"the worker process for layers failed: {message}")
