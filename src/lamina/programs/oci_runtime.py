"""The OCI runtime on the command line: runc, or crun where it works (blocking).

Source: runc(8), the OCI runtime command line interface.
"""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import ProgramFailed, Unsupported
from lamina.jsonvalue import JsonObject, go_json, parse_object, text
from lamina.programs import run as programs

CANDIDATES = ("runc", "crun")
_SLOW_S = 120.0


@dataclass(frozen=True, slots=True)
class OciRuntime:
    """One runtime program with its state directory.

    `lets_go_by_fifo`: a created container waits until somebody reads `<root>/<id>/exec.fifo`, so opening that file is
    what `start` does, 4 ms cheaper. That is runc's way; crun's fifo works in the other direction.
    """

    program: Path
    root: Path
    lets_go_by_fifo: bool = False

    @property
    def name(self) -> str:
        return self.program.name

    def words(self, *rest: str | Path, log: Path | None = None) -> tuple[str, ...]:
        """The command line of one operation."""
        logging = () if log is None else ("--log", os.fspath(log))
        return (os.fspath(self.program), "--root", os.fspath(self.root), *logging, *(os.fspath(word) for word in rest))

    def start(self, container_id: str) -> None:
        """Let the created container run its command. Raises ProgramFailed."""
        if self.lets_go_by_fifo and self._open_fifo(container_id):
            return
        programs.run(self.words("start", container_id), timeout=_SLOW_S)

    def _open_fifo(self, container_id: str) -> bool:
        """Source: runc libcontainer/container_linux.go, exec and handleFifoResult: read one byte, remove the file."""
        path = self.root / container_id / "exec.fifo"
        try:
            # Non-blocking: the open never hangs on a container that died; the poll below waits for the writer.
            fifo = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        try:
            os.set_blocking(fifo, True)
            if not _readable(fifo):
                return False
            if not os.read(fifo, 1):
                return False
        finally:
            os.close(fifo)
        path.unlink(missing_ok=True)
        return True

    def pause(self, container_id: str) -> None:
        programs.run(self.words("pause", container_id), timeout=_SLOW_S)

    def resume(self, container_id: str) -> None:
        programs.run(self.words("resume", container_id), timeout=_SLOW_S)

    def update(self, container_id: str, limits: Path) -> None:
        """Set the limits in this file."""
        programs.run(self.words("update", "--resources", limits, container_id), timeout=_SLOW_S)

    def kill(self, container_id: str, number: int) -> None:
        """Signal the first process of the container."""
        programs.run(self.words("kill", container_id, str(number)), timeout=_SLOW_S)

    def delete(self, container_id: str) -> None:
        """Remove what the runtime keeps of the container, processes that are left included. Unknown is fine."""
        if not (self.root / container_id).exists():
            return
        programs.run(self.words("delete", "--force", container_id), timeout=_SLOW_S)

    def state(self, container_id: str) -> JsonObject:
        """`status`, `pid` and more. Raises ProgramFailed for an unknown container."""
        return parse_object(programs.run(self.words("state", container_id)).stdout, what="runtime state")

    def ids(self) -> list[str]:
        """The containers that the runtime keeps state of."""
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if entry.is_dir())

    def version(self) -> str:
        """The first line of `--version`."""
        return programs.run((os.fspath(self.program), "--version")).stdout.decode(errors="replace").split("\n")[0]


def _readable(fifo: int) -> bool:
    poll = select.poll()
    poll.register(fifo, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(2000))


def choose_runtime(root: Path, scratch: Path, candidates: Sequence[str] = CANDIDATES) -> OciRuntime:
    """The first candidate that can make a container on this kernel. `scratch` is a directory for the attempt.

    Raises:
        Unsupported: none works; says why for each.
    """
    reasons: list[str] = []
    for name in candidates:
        found = programs.installed(name)
        if found is None:
            reasons.append(f"{name}: not installed")
            continue
        runtime = OciRuntime(found, root, lets_go_by_fifo=found.name.startswith("runc"))
        reason = probe(runtime, scratch)
        if not reason:
            return runtime
        reasons.append(f"{name}: {reason}")
    raise Unsupported(f"no usable OCI runtime ({'; '.join(reasons)})", hint="apt-get install runc")


def probe(runtime: OciRuntime, scratch: Path) -> str:
    """Why the runtime cannot make containers here; empty when it can.

    A container with an empty root is made: a runtime that works gets as far as not finding the command.
    """
    bundle = scratch / f"probe-{runtime.name}"
    (bundle / "root").mkdir(parents=True, exist_ok=True)
    (bundle / "config.json").write_bytes(go_json(_probe_spec()))
    container_id = f"lamina-probe-{os.getpid()}"
    try:
        done = programs.run(runtime.words("create", "--bundle", bundle, container_id), check=False)
        said = done.stderr.decode(errors="replace").strip()
        if done.status == 0 or _is_missing_command(said):
            return ""
        return said.splitlines()[-1] if said else programs.signal_name(done.status)
    except (ProgramFailed, Unsupported) as error:
        return str(error)
    finally:
        programs.run(runtime.words("delete", "--force", container_id), check=False)
        shutil.rmtree(bundle)


def _is_missing_command(said: str) -> bool:
    return "lamina-probe" in said and ("no such file" in said.lower() or "not found" in said.lower())


def _probe_spec() -> JsonObject:
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/lamina-probe"],
            "env": ["PATH=/"],
            "cwd": "/",
            "capabilities": {},
        },
        "root": {"path": "root", "readonly": False},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {
            "cgroupsPath": f"/lamina/probe-{os.getpid()}",
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        },
    }


def failure_text(message: str) -> str:
    """What the runtime complained about, without its log decoration."""
    line = message.strip().splitlines()[-1] if message.strip() else "no message"
    if line.startswith("{"):
        return text(parse_object(line, what="runtime message"), "msg", line)
    if " msg=" in line:
        said = line.partition(" msg=")[2]
        if said.startswith('"'):
            return said.strip('"').replace('\\"', '"')
        return said
    return line
