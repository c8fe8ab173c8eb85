"""A union to test with: branches in a directory of its own, the real program, the mount and its end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lamina.kernel import libc

RESERVED = {".wh..wh.aufs", ".wh..wh.orph", ".wh..wh.plnk"}


@dataclass
class Union:
    """Branches `rw` (when there is one) and `lowers`, from the top, and where they are mounted together."""

    home: Path
    lowers: int = 1
    writable: bool = True
    options: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def rw(self) -> Path:
        return self.home / "rw"

    @property
    def mnt(self) -> Path:
        return self.home / "mnt"

    @property
    def log(self) -> Path:
        return self.home / "log"

    def lower(self, number: int = 1) -> Path:
        return self.home / f"ro{number}"

    def prepare(self) -> None:
        self.mnt.mkdir()
        if self.writable:
            self.rw.mkdir()
        for number in range(1, self.lowers + 1):
            self.lower(number).mkdir()

    def option_string(self) -> str:
        branches = [f"{self.rw}=rw"] if self.writable else []
        branches += [f"{self.lower(number)}=ro+wh" for number in range(1, self.lowers + 1)]
        return "br:" + ":".join(branches) + ("," + self.options if self.options else "")

    def mount(self) -> None:
        """Mount it, the server a child of this process, so that a test can end it."""
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lamina", "unionfs", "-o", self.option_string(), "--foreground", "--log", self.log,
             "--ready-fd", str(writing), self.mnt],
            pass_fds=[writing], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(writing)
        with os.fdopen(reading, "rb") as ready:
            if ready.read() != b"ready\n":
                _, complaint = self.process.communicate()
                self.process = None
                raise AssertionError(f"no mount: {complaint.decode()}")

    def unmount(self) -> None:
        libc.umount2(self.mnt)
        self._ended()

    def kill(self) -> None:
        """End the server as a lack of memory would, and clear the dead mount away."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        libc.umount2(self.mnt, libc.MNT_DETACH)
        self._ended()

    def remount(self) -> None:
        self.unmount()
        self.mount()

    def complaints(self) -> str:
        """What the server wrote about requests that failed in a way they should not."""
        return self.log.read_text() if self.log.exists() else ""

    def end(self) -> None:
        if self.process is not None:
            with contextlib.suppress(OSError):
                libc.umount2(self.mnt, libc.MNT_DETACH)
            self.process.kill()
            self._ended()

    def _ended(self) -> None:
        assert self.process is not None
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.process.wait(timeout=20)
        self.process = None


@contextlib.contextmanager
def union(home: Path, *, lowers: int = 1, writable: bool = True, options: str = "") -> Iterator[Union]:
    """A union whose branches are still empty; mount it when they are filled."""
    home.mkdir(exist_ok=True)
    made = Union(home, lowers, writable, options)
    made.prepare()
    try:
        yield made
    finally:
        made.end()
    assert made.complaints() == ""
