"""conmon, the monitor of one container: it outlives the daemon, keeps the journal and the exit code (blocking).

Facts that were tried on conmon 2.1.6:
- It answers on the descriptor `_OCI_SYNCPIPE` with one JSON line, `{"data": pid}` or `{"data": -1, "message": …}`,
  when the runtime has created the container; the attach socket and the control fifo are there by then.
- `--full-attach` binds `<bundle>/attach` through /proc/self/fd, so the path may be longer than a socket name.
- It writes all output to the journal before it writes the exit file, and the exit file before it ends.
- The attach socket is SOCK_SEQPACKET and takes packets of at most 32 KiB for stdin.
- Without `--leave-stdin-open` it closes the container's stdin when any attached client ends its side.
- Window sizes beyond 1000 are refused.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import CorruptRecord, ProgramFailed, Unavailable
from lamina.jsonvalue import integer, parse_object, text
from lamina.kernel import pidfd
from lamina.programs import run as programs
from lamina.programs.oci_runtime import OciRuntime

STDIN_PACKET_BYTES = 16 << 10
_MAX_WINDOW = 1000
_CREATE_S = 120.0


class CreateFailed(ProgramFailed):
    """The runtime could not create the container; `stderr` is what it said."""


@dataclass(frozen=True, slots=True)
class Monitor:
    """A container that conmon watches. The caller owns both descriptors.

    `pidfd` is conmon's, readable when the container has ended and everything it wrote is in the journal.
    `init_pidfd` is the container's first process, for signals.
    """

    pid: int
    pidfd: int
    init_pid: int
    init_pidfd: int

    def close(self) -> None:
        """Twice is fine only for different monitors: call once."""
        pidfd.close(self.pidfd)
        pidfd.close(self.init_pidfd)


@dataclass(frozen=True, slots=True)
class Order:
    """What conmon is asked to run."""

    container_id: str
    bundle: Path
    exits: Path
    journal: Path | None
    terminal: bool = False
    open_stdin: bool = False
    leave_stdin_open: bool = True


class Conmon:
    """Starts monitors and finds them again."""

    def __init__(self, program: Path, runtime: OciRuntime, *, scratch: Path) -> None:
        self.program = program
        self._runtime = runtime
        self._scratch = scratch

    def create(self, order: Order) -> Monitor:
        """Create the container of `order.bundle`, not yet started, under a new monitor.

        Raises:
            CreateFailed: the runtime refused; nothing runs, the runtime may have left state (`delete` it).
        """
        (order.exits / order.container_id).unlink(missing_ok=True)
        answer, ours = os.pipe()
        try:
            words = self._words(order)
            with programs.spawn(words, pass_fds=(ours,), env=self._env(ours), cwd=order.bundle) as process:
                os.close(ours)
                ours = -1
                line = _read_line(answer, _CREATE_S)
                process.wait(_CREATE_S)
        finally:
            os.close(answer)
            if ours >= 0:
                os.close(ours)
        return self._monitor(order, words, line)

    def _words(self, order: Order) -> tuple[str, ...]:
        bundle = os.fspath(order.bundle)
        runtime_words: list[str] = []
        for word in self._runtime.words(log=order.bundle / "runtime.log")[1:]:
            runtime_words += ["--runtime-arg", word]
        log = "none:" if order.journal is None else f"k8s-file:{os.fspath(order.journal)}"
        return (
            os.fspath(self.program),
            *("--api-version", "1"),
            *("--cid", order.container_id),
            *("--cuuid", order.container_id),
            *("--name", order.container_id[:12]),
            *("--runtime", os.fspath(self._runtime.program)),
            *runtime_words,
            *("--bundle", bundle),
            *("--container-pidfile", f"{bundle}/pid"),
            *("--conmon-pidfile", f"{bundle}/conmon.pid"),
            *("--exit-dir", os.fspath(order.exits)),
            *("--log-path", log),
            "--full-attach",
            "--no-sync-log",
            *(("--terminal",) if order.terminal else ()),
            *(("--stdin",) if order.open_stdin else ()),
            *(("--leave-stdin-open",) if order.open_stdin and order.leave_stdin_open else ()),
        )

    def _env(self, sync_fd: int) -> Mapping[str, str]:
        # conmon makes the terminal's socket in TMPDIR, whose name must fit into 108 bytes.
        scratch = os.fspath(self._scratch)
        return {
            "_OCI_SYNCPIPE": str(sync_fd),
            "PATH": programs.search_path(),
            "TMPDIR": scratch if len(scratch) < 80 else "/tmp",
        }

    @staticmethod
    def _monitor(order: Order, words: tuple[str, ...], line: bytes) -> Monitor:
        if not line:
            raise CreateFailed(words, -1, "conmon ended without a word")
        answer = parse_object(line, what="conmon's answer")
        init_pid = integer(answer, "data", -1)
        if init_pid <= 0:
            _collect(order.bundle)
            raise CreateFailed(words, init_pid, text(answer, "message", "the OCI runtime failed without a message"))
        pid = int((order.bundle / "conmon.pid").read_bytes())
        return _hold(pid, init_pid)

    def find(self, container_id: str, bundle: Path) -> Monitor | None:
        """The living monitor of a container, after a restart of the daemon; None when there is none."""
        try:
            pid = int((bundle / "conmon.pid").read_bytes())
            init_pid = int((bundle / "pid").read_bytes())
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        # A number may have been given to another process since; the command line names bundle and container.
        if container_id.encode() not in words or os.fsencode(bundle) not in words:
            return None
        try:
            return _hold(pid, init_pid)
        except Unavailable:
            return None


def _collect(bundle: Path) -> None:
    """A monitor that has told of a failure ends at once; as a subreaper we are its parent then."""
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        held = pidfd.open_pidfd(int((bundle / "conmon.pid").read_bytes()))
        pidfd.wait_ended(held, 1.0)
        pidfd.reap(held)
        pidfd.close(held)


def _hold(pid: int, init_pid: int) -> Monitor:
    """The monitor stays our child, or init's: its number cannot be reused before its end is noticed."""
    try:
        held = pidfd.open_pidfd(pid)
    except ProcessLookupError as error:
        raise Unavailable(f"conmon {pid} has ended already") from error
    try:
        init = pidfd.open_pidfd(init_pid)
    except ProcessLookupError:
        # Ended and collected by conmon already; signals then find nobody, as they should.
        init = os.dup(held)
        if not pidfd.has_ended(held):
            pidfd.wait_ended(held, 10)
    return Monitor(pid, held, init_pid, init)


def _read_line(fd: int, timeout_s: float) -> bytes:
    """The answer: one line, or empty when it closed its end without one."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    found = b""
    while not found.endswith(b"\n"):
        if not poll.poll(int(timeout_s * 1000)):
            raise ProgramFailed(("conmon",), -1, f"no answer from the OCI runtime within {timeout_s:g} s")
        piece = os.read(fd, 65536)
        if not piece:
            break
        found += piece
    return found


def exit_code(exits: Path, container_id: str) -> tuple[int, int] | None:
    """The exit code that conmon recorded and when (nanoseconds since the epoch); None before the end.

    Raises:
        CorruptRecord: the file holds no number.
    """
    path = exits / container_id
    try:
        with path.open("rb") as file:
            raw = file.read(32)
            ended_ns = os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        return int(raw), ended_ns
    except ValueError as error:
        raise CorruptRecord(f"{path} holds no exit code: {raw!r}") from error


def resize(bundle: Path, rows: int, columns: int) -> None:
    """Set the size of the container's terminal. A container that has ended is fine."""
    size = f"1 {min(max(rows, 0), _MAX_WINDOW)} {min(max(columns, 0), _MAX_WINDOW)}\n"
    try:
        fifo = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # ENOENT: never started; ENXIO: nobody reads any more
        return
    try:
        os.write(fifo, size.encode())
    finally:
        os.close(fifo)


def connect_attach(bundle: Path) -> socket.socket:
    """A connection to conmon's attach socket, non-blocking.

    Raises:
        Unavailable: the container has ended.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Any length of path: a socket name holds 108 bytes only.
            connection.connect(f"/proc/self/fd/{directory}/attach")
        finally:
            os.close(directory)
        connection.settimeout(0)
    except OSError as error:
        connection.close()
        raise Unavailable(f"the container's monitor does not answer on {bundle}/attach: {error.strerror}") from error
    return connection
