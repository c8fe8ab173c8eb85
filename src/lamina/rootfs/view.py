"""A container's root with its volumes and binds in place, seen from a mount namespace of its own (blocking).

The same view serves running and stopped containers. A running container's own `/proc/<pid>/root` would show more (its
tmpfs mounts), but what is mounted there is the container's choice: a file system of its own making could stall us, and
a privileged process can move its root. Here every mount is one that we made, in a namespace that only the copying
thread is in, so nothing the container does to its mounts can change where a name leads.

Names inside are resolved by openat2 from the view's root; mount points are opened first and mounted on by descriptor.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from lamina.kernel import libc
from lamina.kernel.mounts import bind, set_propagation
from lamina.kernel.namespaces import in_own_thread
from lamina.kernel.openat import make_dirs_in_root, open_in_root

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bind:
    """Something of the host seen at `target` inside the container."""

    source: Path
    target: str
    read_only: bool


@dataclass(slots=True)
class View:
    """The root, open for the length of one piece of work; `root` is its path in the work's mount namespace."""

    root: Path
    root_fd: int
    _mounts: dict[int, Bind] = field(default_factory=dict)

    def open(self, name: str, flags: int) -> int:
        """Open a name inside the root, symlinks followed inside it."""
        return open_in_root(self.root_fd, name, flags)

    def bind_of(self, fd: int) -> Bind | None:
        """The bind that an open file lies on; None for the container's own root."""
        return self._mounts.get(_mount_id(fd))

    def is_mounted_on(self, at: int, base: bytes) -> bool:
        """Is the entry `base` of the open directory `at` a mount point?"""
        fd = open_in_root(at, base, os.O_PATH, nofollow_last=True)
        try:
            return _mount_id(fd) != _mount_id(at)
        finally:
            os.close(fd)

    def inside(self, fd: int) -> str:
        """The absolute name, inside the container, of an open file."""
        found = os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")
        return found.removeprefix(os.fspath(self.root)) or "/"

    def place(self, wanted: Bind) -> None:
        """Mount one bind at its target, which is made if it is missing, as the runtime would at a start."""
        try:
            is_directory = wanted.source.is_dir()
            if not is_directory and not wanted.source.exists():
                return
            fd = self._target(wanted.target, is_directory=is_directory)
        except (NotADirectoryError, FileNotFoundError, FileExistsError):
            return  # the container put something else there; its start would fail as well
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode) != is_directory:
                return
            bind(wanted.source, Path(f"/proc/self/fd/{fd}"), recursive=True)
        finally:
            os.close(fd)
        fd = self.open(wanted.target, os.O_PATH)
        try:
            if wanted.read_only:
                libc.mount("", f"/proc/self/fd/{fd}", "", libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY)
            self._mounts[_mount_id(fd)] = wanted
        finally:
            os.close(fd)

    def _target(self, name: str, *, is_directory: bool) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.open(name, os.O_PATH)
        if is_directory:
            return make_dirs_in_root(self.root_fd, name)
        parent = make_dirs_in_root(self.root_fd, str(PurePosixPath(name).parent))
        try:
            base = PurePosixPath(name).name
            os.close(os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o755, dir_fd=parent))
            return open_in_root(parent, base, os.O_PATH, nofollow_last=True)
        finally:
            os.close(parent)


def in_view(root: Path, binds: Sequence[Bind], work: Callable[[View], T], *, read_only: bool = False) -> T:
    """Run `work` in a thread that sees the view; its result or error comes back.

    `root` is the mounted root. With `read_only` only writable binds can be written to.
    """

    def inside() -> T:
        libc.unshare(libc.CLONE_NEWNS)
        # Our mounts stay ours, but what the host unmounts meanwhile goes here too and is not kept busy by us.
        set_propagation(Path("/"), "slave", recursive=True)
        # A mount of our own, without what else may be mounted below the original.
        bind(root, root)
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            view = View(root, root_fd)
            for wanted in sorted(binds, key=lambda one: len(PurePosixPath(one.target).parts)):
                view.place(wanted)
            if read_only:
                libc.mount("", root, "", libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY)
            return work(view)
        finally:
            os.close(root_fd)

    return in_own_thread(inside)


def _mount_id(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    return -1
