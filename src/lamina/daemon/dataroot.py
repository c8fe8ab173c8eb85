"""The top of the data root, the exec root, and the pid file (a blocking module).

Source: docker-store layout: modes and names are dockerd's, see docs/on-disk.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from lamina.errors import Conflict, StorageFull
from lamina.kernel import durable

_DIRECTORIES = {"image": 0o700, "containers": 0o710, "tmp": 0o700, "plugins": 0o700}
_LEAST_FREE_BYTES = 1 << 20


def prepare(data_root: Path, exec_root: Path) -> None:
    """Make the directories that every part relies on. Again is fine.

    Raises:
        StorageFull: not even a record would fit.
        OSError: it cannot be made.
    """
    durable.make_dirs(data_root, 0o710)
    # Nobody but root and the daemon's group may walk into layers, where set-user-id programs of images lie.
    os.chmod(data_root, 0o710)  # noqa: S103 - stricter than what it may have been
    free = os.statvfs(data_root)
    if free.f_bavail * free.f_frsize < _LEAST_FREE_BYTES:
        raise StorageFull(f"the file system of {data_root} is full", hint="free some space: nothing could be recorded")
    for name, mode in _DIRECTORIES.items():
        durable.make_dirs(data_root / name, mode)
    durable.make_dirs(exec_root, 0o711)


def sweep_scratch(data_root: Path) -> None:
    """Throw away what an earlier daemon left in `tmp`, in the background."""
    scratch, old = data_root / "tmp", data_root / "tmp-old"
    if old.exists():
        shutil.rmtree(old)
    if scratch.exists() and any(scratch.iterdir()):
        scratch.rename(old)
        scratch.mkdir(0o700)
        threading.Thread(target=shutil.rmtree, args=(old,), kwargs={"ignore_errors": True}, daemon=True).start()


@contextlib.contextmanager
def claimed(exec_root: Path) -> Iterator[None]:
    """Inside, the exec root is this process's: another daemon would take the containers in it for leftovers.

    Raises:
        Conflict: another daemon has it.
    """
    with (exec_root / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"exec root {exec_root} is in use by another daemon", hint="give this one an --exec-root of its own"
            ) from error
        yield


@contextlib.contextmanager
def pidfile(path: Path) -> Iterator[None]:
    """Hold a pid file.

    Raises:
        Conflict: a living process holds it.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid = int(path.read_text())
        if pid != os.getpid() and _is_engine(pid):
            raise Conflict(
                f"pid file {path} is held by process {pid}: another daemon runs",
                hint="give this one its own --pidfile, --exec-root, --data-root and --host",
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(os.getpid()))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _is_engine(pid: int) -> bool:
    """Whether a process is a daemon, as far as its command line tells: pids are used again after a reboot."""
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"lamina" in argv or b"dockerd" in argv
