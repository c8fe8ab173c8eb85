"""How processes of containers are made, signalled and found again (blocking).

`Runtime` is what the lifecycle needs; `MonitoredRuntime` does it with runc or crun under conmon, so that a container
outlives the daemon. Everything it keeps is below the exec root: `bundles/<id>/` (runtime spec, pid files, sockets),
`runtime/` (the OCI runtime's own state), `exits/<id>` (exit codes), `execs/` (what running execs need).
"""

from __future__ import annotations

import array
import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lamina.errors import (
    CommandNotExecutable,
    CommandNotFound,
    InvalidArgument,
    LaminaError,
    ProcessFailed,
    ProgramFailed,
)
from lamina.ids import ContainerId
from lamina.jsonvalue import JsonObject, from_strings, go_json, mapping, parse_object, strings
from lamina.kernel import durable, libc, pidfd
from lamina.programs import conmon, oci_runtime
from lamina.programs import run as programs

_EXEC_S = 120.0
_MAX_ROOT_BYTES = 80
_MAX_SPEC_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Launch:
    """What one run of a container is made from.

    `journal` None: nothing is recorded, output reaches only who is attached. `stdin_once`: the container's stdin ends
    with the first client that closes it; also when the daemon dies, as for a client that went away.
    """

    container_id: ContainerId
    spec: JsonObject
    journal: Path | None
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False


@dataclass(frozen=True, slots=True)
class Launched:
    """A container whose command runs. The caller owns monitor and stdin."""

    monitor: conmon.Monitor
    attached: socket.socket | None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended."""

    exit_code: int
    at_ns: int
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class ExecLaunch:
    """One more process in a running container. Descriptors are the process's own ends; -1 for none."""

    container_id: ContainerId
    exec_id: str
    process: JsonObject
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class ExecLaunched:
    """A process that was started by exec. The caller owns both; `terminal` is the pty's own side, -1 without one."""

    pid: int
    pidfd: int
    terminal: int = -1


class Runtime(Protocol):
    """What makes containers. Every method may be called from any thread."""

    def launch(self, launch: Launch) -> Launched:
        """Create the container and let its command run. On error nothing of it is left.

        Raises:
            CommandNotFound, CommandNotExecutable, ProcessFailed: with Docker's words.
        """

    def find(self, container_id: ContainerId) -> conmon.Monitor | None:
        """The living monitor of a container that an earlier daemon launched."""

    def ended(self, container_id: ContainerId) -> Ended | None:
        """How the last run ended; None when nobody recorded it."""

    def attach(self, container_id: ContainerId) -> socket.socket:
        """One more connection to the container's streams. Raises Unavailable."""

    def resize(self, container_id: ContainerId, rows: int, columns: int) -> None:
        """Set the terminal's size. A container that has ended is fine."""

    def pause(self, container_id: ContainerId) -> None:
        """Freeze every process of the container."""

    def resume(self, container_id: ContainerId) -> None:
        """Let the frozen processes run again."""

    def delete(self, container_id: ContainerId) -> None:
        """Remove what is kept of an ended container; what still runs is killed. Again is fine."""

    def known(self) -> list[ContainerId]:
        """The containers that something is kept of."""

    def exec(self, launch: ExecLaunch) -> ExecLaunched:
        """Start one more process in a running container; the process is our child from then on."""

    def spec(self, container_id: ContainerId) -> JsonObject:
        """The runtime spec that the container was launched with."""


class MonitoredRuntime:
    """runc or crun under conmon."""

    def __init__(self, exec_root: Path, runtime: oci_runtime.OciRuntime, conmon_program: Path) -> None:
        self._bundles = exec_root / "bundles"
        self._exits = exec_root / "exits"
        self._execs = exec_root / "execs"
        for directory in (exec_root, self._bundles, self._exits, self._execs, runtime.root):
            durable.make_dirs(directory, 0o711 if directory == exec_root else 0o700)
        for left in self._execs.iterdir():  # of execs that a daemon was killed in the middle of
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._runtime = runtime
        self._conmon = conmon.Conmon(conmon_program, runtime, scratch=self._execs)
        # libseccomp needs 5 ms for the x32 half of a filter, on a kernel that never runs x32.
        self._unneeded_abis = frozenset[str]() if libc.runs_x32() else frozenset({"SCMP_ARCH_X32"})
        # Processes of `runc exec --detach` become our children, so their exit codes reach us.
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)

    @property
    def name(self) -> str:
        return self._runtime.name

    def programs(self) -> tuple[tuple[str, str, str], ...]:
        """Name, path and version of the OCI runtime and of the monitor."""
        monitor = self._conmon.program
        found = [(self._runtime.name, os.fspath(self._runtime.program), _version_of(self._runtime.program))]
        found.append((monitor.name, os.fspath(monitor), _version_of(monitor)))
        return tuple(found)

    def bundle(self, container_id: ContainerId) -> Path:
        return self._bundles / container_id

    def launch(self, launch: Launch) -> Launched:
        bundle = self.bundle(launch.container_id)
        self._new_bundle(bundle, without_abis(launch.spec, self._unneeded_abis))
        order = conmon.Order(
            launch.container_id,
            bundle,
            self._exits,
            launch.journal,
            terminal=launch.terminal,
            open_stdin=launch.open_stdin,
            leave_stdin_open=not launch.stdin_once,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self._undo, launch.container_id)
            try:
                monitor = self._conmon.create(order)
            except conmon.CreateFailed as error:
                raise creation_error(error.stderr) from error
            undo.callback(monitor.close)
            undo.callback(pidfd.wait_ended, monitor.pidfd, 10)
            undo.callback(pidfd.send, monitor.init_pidfd, 9)
            attached = None
            # Without a journal, output is seen only by who is connected before the command runs.
            if launch.open_stdin or launch.journal is None:
                attached = conmon.connect_attach(bundle)
                undo.callback(attached.close)
                if launch.journal is not None:
                    # Output is read from the journal: conmon must never wait for us to read it from here too.
                    attached.shutdown(socket.SHUT_RD)
            try:
                self._runtime.start(launch.container_id)
            except ProgramFailed as error:
                raise start_error(error.stderr) from error
            undo.pop_all()
        return Launched(monitor, attached)

    def _new_bundle(self, bundle: Path, spec: JsonObject) -> None:
        # A bundle that is still there is of an earlier run, whose end nobody has cleaned up behind.
        if bundle.exists():
            shutil.rmtree(bundle)
        bundle.mkdir(0o700)
        (bundle / "config.json").write_bytes(go_json(spec))

    def _undo(self, container_id: ContainerId) -> None:
        self.delete(container_id)

    def find(self, container_id: ContainerId) -> conmon.Monitor | None:
        return self._conmon.find(container_id, self.bundle(container_id))

    def ended(self, container_id: ContainerId) -> Ended | None:
        found = conmon.exit_code(self._exits, container_id)
        if found is None:
            return None
        # conmon leaves an empty file `oom` in its directory (and in the bundle) when the kernel killed for memory.
        return Ended(found[0], found[1], (self.bundle(container_id) / "oom").exists())

    def attach(self, container_id: ContainerId) -> socket.socket:
        return conmon.connect_attach(self.bundle(container_id))

    def resize(self, container_id: ContainerId, rows: int, columns: int) -> None:
        conmon.resize(self.bundle(container_id), rows, columns)

    def pause(self, container_id: ContainerId) -> None:
        self._runtime.pause(container_id)

    def resume(self, container_id: ContainerId) -> None:
        self._runtime.resume(container_id)

    def update(self, container_id: ContainerId, limits: JsonObject) -> None:
        """Set limits of a running container: those of `linux.resources` that are given."""
        order = self.bundle(container_id) / "limits.json"
        order.write_bytes(go_json(limits))
        self._runtime.update(container_id, order)

    def delete(self, container_id: ContainerId) -> None:
        self._runtime.delete(container_id)
        (self._exits / container_id).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.bundle(container_id))

    def known(self) -> list[ContainerId]:
        found = {entry.name for entry in self._bundles.iterdir()} | set(self._runtime.ids())
        return [ContainerId(name) for name in sorted(found) if not name.startswith("lamina-probe-")]

    def spec(self, container_id: ContainerId) -> JsonObject:
        raw = (self.bundle(container_id) / "config.json").read_bytes()
        return parse_object(raw, what="runtime spec", max_bytes=_MAX_SPEC_BYTES)

    def exec(self, launch: ExecLaunch) -> ExecLaunched:
        place = self._execs / launch.exec_id[:16]
        place.mkdir(0o700)
        try:
            return self._exec(launch, place)
        finally:
            shutil.rmtree(place)

    def _exec(self, launch: ExecLaunch, place: Path) -> ExecLaunched:
        (place / "process.json").write_bytes(go_json(launch.process))
        words: list[str | Path] = ["exec", "--detach", "--pid-file", place / "pid", "--process", place / "process.json"]
        with contextlib.ExitStack() as undo:
            receiver = None
            if launch.terminal:
                receiver = undo.enter_context(_console(place))
                words += ["--console-socket", place / "tty"]
            self._run_exec(launch, place, words)
            terminal = -1 if receiver is None else _receive_terminal(receiver)
        pid = int((place / "pid").read_bytes())
        return ExecLaunched(pid, pidfd.open_pidfd(pid), terminal)

    def _run_exec(self, launch: ExecLaunch, place: Path, words: list[str | Path]) -> None:
        argv = self._runtime.words(*words, launch.container_id, log=place / "log")
        process = programs.spawn(
            argv,
            stdin=launch.stdin if launch.stdin >= 0 else programs.DISCARD,
            stdout=launch.stdout if launch.stdout >= 0 else programs.DISCARD,
            stderr=launch.stderr if launch.stderr >= 0 else programs.DISCARD,
        )
        with process:
            status = process.wait(_EXEC_S)
        if status != 0:
            raise exec_error(_log_text(place / "log"))


def _version_of(program: Path) -> str:
    """What stands after the word `version` in the first line of `--version`."""
    said = programs.run((os.fspath(program), "--version")).stdout.decode(errors="replace").partition("\n")[0]
    return said.rpartition("version")[2].strip(" :") or said


@contextlib.contextmanager
def _console(place: Path) -> Iterator[socket.socket]:
    """A socket on which the runtime hands us the terminal it made."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(os.fspath(place / "tty"))
        listener.listen(1)
        listener.settimeout(_EXEC_S)
        yield listener
    finally:
        listener.close()


def _receive_terminal(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    with connection:
        _, ancillary, _, _ = connection.recvmsg(
            4096, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found = array.array("i")
            found.frombytes(payload[: len(payload) - len(payload) % found.itemsize])
            return found[0]
    raise ProcessFailed("the OCI runtime handed over no terminal")


def _log_text(path: Path) -> str:
    try:
        return oci_runtime.failure_text(path.read_text(errors="replace"))
    except FileNotFoundError:
        return "no message"


def creation_error(said: str) -> LaminaError:
    """Docker's words for a container that could not be created; the client finds its exit code in them."""
    where = "failed to create task for container: failed to create shim task: OCI runtime create failed"
    return _classified(f"{where}: {_clean(said)}: unknown")


def start_error(said: str) -> LaminaError:
    """Docker's words for a container that could not be started after it was created."""
    return _classified(f"failed to start task for container: OCI runtime start failed: {_clean(said)}: unknown")


def exec_error(said: str) -> LaminaError:
    """Docker's words for an exec that could not be started."""
    return _classified(f"OCI runtime exec failed: {_clean(said)}: unknown")


def _clean(said: str) -> str:
    return oci_runtime.failure_text(said)


def _classified(message: str) -> LaminaError:
    """Source: moby daemon/errors.go, setExitCodeFromError and isInvalidCommand."""
    lowered = message.lower()
    if any(
        words in lowered
        for words in ("executable file not found", "no such file or directory", "system cannot find the file specified")
    ):
        return CommandNotFound(message)
    if "permission denied" in lowered or "is a directory" in lowered:
        return CommandNotExecutable(message)
    if "not a directory" in lowered:
        return CommandNotFound(
            f"{message}: Are you trying to mount a directory onto a file (or vice-versa)? "
            "Check if the specified host path exists and is the expected type"
        )
    return ProcessFailed(message)


def without_abis(spec: JsonObject, unneeded: frozenset[str]) -> JsonObject:
    """The spec with a system call filter for the architectures that this kernel runs. The given one is not changed."""
    linux = mapping(spec, "linux")
    filtering = mapping(linux, "seccomp")
    architectures = strings(filtering, "architectures")
    kept = [one for one in architectures if one not in unneeded]
    if kept == architectures:
        return spec
    return {**spec, "linux": {**linux, "seccomp": {**filtering, "architectures": from_strings(kept)}}}


def prepare_runtime(exec_root: Path, candidates: tuple[str, ...] = oci_runtime.CANDIDATES) -> MonitoredRuntime:
    """Choose the OCI runtime that works here and make the directories.

    Raises:
        Unsupported: no runtime works, or conmon is not installed; names the package.
        InvalidArgument: the path is too long for the sockets below it.
    """
    if len(os.fsencode(exec_root)) > _MAX_ROOT_BYTES:
        raise InvalidArgument(
            f"the exec root {exec_root} is too long: sockets below it would not fit into 108 bytes",
            hint=f"choose an --exec-root of at most {_MAX_ROOT_BYTES} bytes",
        )
    program = programs.require("conmon")
    durable.make_dirs(exec_root, 0o711)
    chosen = oci_runtime.choose_runtime(exec_root / "runtime", exec_root, candidates)
    return MonitoredRuntime(exec_root, chosen, program)
