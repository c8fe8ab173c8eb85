"""The only place that starts a process (blocking).

Arguments are lists and never pass through a shell. Nothing is inherited but what is named. Starting is by vfork, so it
costs the same in a daemon of any size (CPython does so while no code has to run between fork and exec).
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lamina.errors import ProgramFailed, Unsupported
from lamina.kernel import pidfd

DISCARD = subprocess.DEVNULL
"""For `stdin`, `stdout`, `stderr` of `spawn`: /dev/null."""
PIPE = subprocess.PIPE
"""For `stdin`, `stdout`, `stderr` of `spawn`: a pipe whose other end is a field of the Process."""

MAX_OUTPUT_BYTES = 64 << 20

_DEBIAN_PACKAGES = {
    "conmon": "conmon",
    "runc": "runc",
    "crun": "crun",
    "nft": "nftables",
    "ps": "procps",
    "xz": "xz-utils",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "btrfs": "btrfs-progs",
    "zfs": "zfsutils-linux",
    "zpool": "zfsutils-linux",
    "dmsetup": "dmsetup",
}
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended. `status` is the exit code, or minus the signal number."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes


class Process:
    """A started program. Use it in `with`: leaving kills what still runs and closes every descriptor.

    `stdin`, `stdout`, `stderr` are descriptors of our ends of pipes that were asked for, else -1.
    `fileno()` becomes readable when the process has ended, for poll and event loops alike.
    """

    def __init__(self, child: subprocess.Popen[bytes], argv: tuple[str, ...]) -> None:
        self.argv = argv
        self.pid = child.pid
        self._child = child
        self.stdin = child.stdin.fileno() if child.stdin else -1
        self.stdout = child.stdout.fileno() if child.stdout else -1
        self.stderr = child.stderr.fileno() if child.stderr else -1
        self._pidfd = pidfd.open_pidfd(child.pid)

    def fileno(self) -> int:
        return self._pidfd

    def poll(self) -> int | None:
        """The status if the process has ended, else None. Never waits."""
        return self._child.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end. Raises ProgramFailed when it takes longer than `timeout_s` (it goes on running)."""
        # Not Popen.wait(timeout): that looks, sleeps and looks again, up to 50 ms late.
        if self._pidfd >= 0 and not pidfd.wait_ended(self._pidfd, timeout_s):
            raise ProgramFailed(self.argv, -1, f"still running after {timeout_s} s")
        return self._child.wait()

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when the process has ended."""
        self._child.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; nothing happens when the process has ended."""
        self._child.kill()

    def close_stdin(self) -> None:
        """Close our end of the pipe to its standard input. Twice is fine."""
        if self._child.stdin:
            self._child.stdin.close()
        self.stdin = -1

    def close(self) -> None:
        """Close our descriptors; the process goes on. Twice is fine."""
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            if stream:
                stream.close()
        self.stdin = self.stdout = self.stderr = -1
        if self._pidfd >= 0:
            pidfd.close(self._pidfd)
            self._pidfd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.poll() is None:
            self.kill()
            self.wait()
        self.close()


def spawn(
    argv: Sequence[str | Path],
    *,
    stdin: int = DISCARD,
    stdout: int = DISCARD,
    stderr: int = DISCARD,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    new_session: bool = False,
) -> Process:
    """Start a program and return at once.

    `stdin`, `stdout`, `stderr` are descriptors, `PIPE` or `DISCARD`. Descriptors of `pass_fds` keep their numbers.
    `env` None means the daemon's own environment. `new_session` detaches it from our terminal and process group.

    Raises:
        Unsupported: the program is not installed; names the package.
    """
    words = _words(argv)
    try:
        child = subprocess.Popen(
            words,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=new_session,
            bufsize=0,
        )
    except FileNotFoundError as error:
        raise _missing(words, cwd, error) from error
    except PermissionError as error:
        raise Unsupported(f"{words[0]} may not be executed: {error.strerror}") from error
    return Process(child, words)


def run(
    argv: Sequence[str | Path],
    *,
    input: bytes | None = None,  # noqa: A002 - the word everybody knows from subprocess.run
    timeout: float = 60.0,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    new_session: bool = False,
    check: bool = True,
) -> Completed:
    """Run a program to its end; both outputs are collected. `new_session` is for one that leaves a process behind.

    Raises:
        ProgramFailed: a status other than 0 (unless `check` is false), or not ended after `timeout` seconds (killed).
        Unsupported: the program is not installed.
    """
    words = _words(argv)
    process = spawn(
        words,
        stdin=DISCARD if input is None else PIPE,
        stdout=PIPE,
        stderr=PIPE,
        pass_fds=pass_fds,
        env=env,
        cwd=cwd,
        new_session=new_session,
    )
    with process:
        stdout, stderr = _communicate(process, input, timeout)
        status = process.wait()
    if check and status != 0:
        raise ProgramFailed(words, status, stderr.decode(errors="replace"))
    return Completed(words, status, stdout, stderr)


def installed(program: str) -> Path | None:
    """Where the program is, or None."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":" + _SEARCH)
    return Path(found) if found else None


def search_path() -> str:
    """Where programs are looked for: the PATH of what we start with an environment of its own."""
    return os.environ.get("PATH", _SEARCH)


def require(program: str) -> Path:
    """Where the program is. Raises Unsupported, naming the package, when it is not installed."""
    found = installed(program)
    if found is None:
        raise _not_installed(program)
    return found


def signal_name(status: int) -> str:
    """`signal SIGKILL` or `status 3`, for messages."""
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"status {status}"


def _communicate(process: Process, given: bytes | None, timeout: float) -> tuple[bytes, bytes]:
    """Feed and read until both outputs have ended and the process too."""
    found: dict[int, list[bytes]] = {process.stdout: [], process.stderr: []}
    left = memoryview(given or b"")
    poll = select.poll()
    for fd in found:
        poll.register(fd, select.POLLIN)
    if process.stdin >= 0:
        os.set_blocking(process.stdin, False)
        poll.register(process.stdin, select.POLLOUT)
    deadline = time.monotonic() + timeout
    reading = set(found)
    while reading or process.stdin >= 0:
        ready = poll.poll(max(0, int((deadline - time.monotonic()) * 1000)))
        if not ready:
            break
        for fd, _ in ready:
            if fd == process.stdin:
                left = _feed(process, poll, left)
            elif not (piece := os.read(fd, 1 << 16)):
                poll.unregister(fd)
                reading.discard(fd)
            else:
                found[fd].append(piece)
    if reading or not pidfd.wait_ended(process.fileno(), max(0.0, deadline - time.monotonic())):
        process.kill()
        process.wait()
        raise ProgramFailed(process.argv, -signal.SIGKILL, f"killed after {timeout:g} s without an end")
    stdout, stderr = (b"".join(parts) for parts in found.values())
    return stdout, stderr


def _feed(process: Process, poll: select.poll, left: memoryview) -> memoryview:
    """Write what the process takes now; close its input at the end, or when it reads no more."""
    try:
        left = left[os.write(process.stdin, left) :] if left else left
    except BrokenPipeError:
        left = left[:0]
    if not left:
        poll.unregister(process.stdin)
        process.close_stdin()
    return left


def _words(argv: Sequence[str | Path]) -> tuple[str, ...]:
    return tuple(os.fspath(word) for word in argv)


def _missing(words: tuple[str, ...], cwd: Path | None, error: FileNotFoundError) -> Unsupported:
    if cwd is not None and not cwd.is_dir():
        return Unsupported(f"cannot start {words[0]}: its working directory {cwd} does not exist")
    missing = _not_installed(words[0])
    missing.__cause__ = error
    return missing


def _not_installed(program: str) -> Unsupported:
    name = Path(program).name
    package = _DEBIAN_PACKAGES.get(name)
    if package is None:
        return Unsupported(f"the program {name} is not installed")
    return Unsupported(
        f"the program {name} is not installed: it comes with the package {package}", hint=f"apt-get install {package}"
    )
