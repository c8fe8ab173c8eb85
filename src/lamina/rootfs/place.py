"""Entries of an archive put into a directory of a container that may be running (blocking).

Unlike a layer, the archive is taken literally (`.wh.` files are files), and the tree changes under our hands: a process
inside may swap any name for a symlink at any moment.

Rules for editors: a name is walked from the open target directory, one component at a time, never following a symlink;
a symlink met on the way is resolved by openat2 inside the container's root. What was made is dressed through its
descriptor, never again by name. Calls that would follow a symlink in the last place (chmod) are not used.

Source: moby pkg/archive `Unpack`, `createTarFile` for what existing names mean.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from lamina.changeset.entry import Entry, EntryKind
from lamina.changeset.names import clean_name, shown
from lamina.changeset.whiteout import is_forgeable
from lamina.errors import Conflict, InvalidArgument, UnsafeArchive
from lamina.kernel.openat import open_in_root
from lamina.rootfs.remove import remove_at
from lamina.rootfs.view import View

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {
    EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}


class Archive(Protocol):
    """Entries one after the other, each with its body: a TarReader."""

    def next_entry(self) -> Entry | None: ...
    def pieces(self) -> Iterator[memoryview]: ...


class Placer:
    """Writes entries below one open directory. Use it in `with`."""

    def __init__(
        self, view: View, target_fd: int, *, keep_kinds: bool = False, owner: tuple[int, int] | None = None
    ) -> None:
        """`keep_kinds` refuses to put a directory where something else is, and the other way round.

        `owner` replaces the owner of every entry.
        """
        self._view = view
        self._target = target_fd
        self._keep_kinds = keep_kinds
        self._owner = owner
        self._last: tuple[bytes, int] | None = None
        self._names: list[tuple[bytes, Entry]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._forget()

    def place_all(self, archive: Archive) -> None:
        """Write every entry; directories get their metadata last, because writing into them changes their times.

        Raises:
            InvalidArgument: an entry would change the kind of an existing name, and may not.
            Conflict: an entry would replace something that is mounted.
            UnsafeArchive: a name leaves the target, or a hard link has no target there.
            OSError: EROFS on a read-only mount, ENOSPC and the like.
        """
        while (entry := archive.next_entry()) is not None:
            self._place(entry, archive)
        self._forget()
        for name, entry in reversed(self._names):
            self._dress_directory(name, entry)

    def _place(self, entry: Entry, archive: Archive) -> None:
        if entry.kind is EntryKind.GLOBAL_HEADER:
            return
        name = clean_name(entry.name)
        if not name:
            if entry.kind is not EntryKind.DIRECTORY:
                raise UnsafeArchive(f"the entry {shown(entry.name)} would replace the target directory")
            return  # the target keeps its own metadata, as in Docker
        parent, _, base = name.rpartition(b"/")
        at = self._parent(parent)
        is_there = self._make_room(entry, at, base, name)
        match entry.kind:
            case EntryKind.DIRECTORY:
                if not is_there:
                    os.mkdir(base, 0o700, dir_fd=at)
                self._names.append((name, entry))
            case EntryKind.FILE:
                self._file(entry, at, base, archive.pieces())
            case EntryKind.HARD_LINK:
                self._link(entry, at, base)
            case EntryKind.SYMLINK:
                self._symlink(entry, at, base)
            case _:
                self._node(entry, at, base)

    def _make_room(self, entry: Entry, at: int, base: bytes, name: bytes) -> bool:
        """True when the entry is a directory and one is there; anything else in the way is removed."""
        try:
            found = os.stat(base, dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            return False
        was_directory, will_be = stat.S_ISDIR(found.st_mode), entry.kind is EntryKind.DIRECTORY
        if was_directory and will_be:
            return True
        if self._keep_kinds and was_directory:
            raise InvalidArgument(f"cannot overwrite directory {shown(name)} with non-directory {shown(name)}")
        if self._keep_kinds and will_be:
            raise InvalidArgument(f"cannot overwrite non-directory {shown(name)} with directory {shown(name)}")
        if self._view.is_mounted_on(at, base):
            raise Conflict(f"cannot replace {shown(name)}, on which something is mounted: device or resource busy")
        remove_at(at, os.fsdecode(base))
        return False

    def _file(self, entry: Entry, at: int, base: bytes, pieces: Iterator[memoryview]) -> None:
        fd = os.open(base, _CREATE, 0o600, dir_fd=at)
        try:
            if entry.is_sparse:
                _write_sparse(fd, entry, pieces)
            else:
                for piece in pieces:
                    _write(fd, piece)
            self._dress(fd, entry)
        finally:
            os.close(fd)

    def _link(self, entry: Entry, at: int, base: bytes) -> None:
        target = clean_name(entry.link)
        parent, _, target_base = target.rpartition(b"/")
        if not target_base:
            raise UnsafeArchive(f"the hard link {shown(entry.name)} points to the target directory itself")
        source = self._walk(parent, make=False)
        try:
            os.link(target_base, base, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False)
        except FileNotFoundError as error:
            raise UnsafeArchive(
                f"the hard link {shown(entry.name)} points to {shown(entry.link)}, which is not there"
            ) from error
        finally:
            os.close(source)

    def _symlink(self, entry: Entry, at: int, base: bytes) -> None:
        if not entry.link or b"\0" in entry.link:
            raise UnsafeArchive(f"the symlink {shown(entry.name)} has an impossible target")
        os.symlink(entry.link, base, dir_fd=at)
        os.chown(base, *self._owner_of(entry), dir_fd=at, follow_symlinks=False)
        os.utime(base, ns=_times(entry), dir_fd=at, follow_symlinks=False)

    def _node(self, entry: Entry, at: int, base: bytes) -> None:
        kind = _NODES[entry.kind]
        try:
            device = 0 if kind == stat.S_IFIFO else os.makedev(entry.major, entry.minor)
        except OverflowError as error:
            raise UnsafeArchive(f"the entry {shown(entry.name)} has an impossible device number") from error
        os.mknod(base, kind | 0o600, device, dir_fd=at)
        fd = open_in_root(at, base, os.O_PATH, nofollow_last=True)
        try:
            found = os.fstat(fd)
            if stat.S_IFMT(found.st_mode) != kind:
                return  # swapped by somebody inside: nothing of ours to dress
            # A descriptor for the path alone takes no fchmod; its entry in /proc leads to the very inode.
            here = f"/proc/self/fd/{fd}"
            os.chown(here, *self._owner_of(entry))
            os.chmod(here, entry.mode)
            os.utime(here, ns=_times(entry))
        finally:
            os.close(fd)

    def _dress_directory(self, name: bytes, entry: Entry) -> None:
        try:
            fd = self._walk(name, make=False)
        except (OSError, UnsafeArchive):
            return  # a later entry, or somebody inside, put something else in its place
        try:
            self._dress(fd, entry)
        finally:
            os.close(fd)

    def _dress(self, fd: int, entry: Entry) -> None:
        """Owner first, because a change of owner clears set-id bits and capabilities."""
        os.fchown(fd, *self._owner_of(entry))
        for name, value in entry.xattrs:
            if not is_forgeable(name):
                _set_xattr(fd, name, value, entry)
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=_times(entry))

    def _owner_of(self, entry: Entry) -> tuple[int, int]:
        return self._owner or (entry.uid, entry.gid)

    def _parent(self, name: bytes) -> int:
        """The directory of the last entry again, if it is the same: archives list one directory after the other."""
        if self._last is not None and self._last[0] == name:
            return self._last[1]
        fd = self._walk(name, make=True)
        self._forget()
        self._last = (name, fd)
        return fd

    def _forget(self) -> None:
        if self._last is not None:
            os.close(self._last[1])
            self._last = None

    def _walk(self, name: bytes, *, make: bool) -> int:
        """A new descriptor of a directory below the target; missing ones are made 0755."""
        fd = os.dup(self._target)
        for part in filter(None, name.split(b"/")):
            above = fd
            try:
                fd = self._step(above, part, make=make)
            except NotADirectoryError as error:
                raise UnsafeArchive(f"{shown(name)} is not a directory, but entries lie below it") from error
            finally:
                os.close(above)
        return fd

    def _step(self, at: int, part: bytes, *, make: bool) -> int:
        try:
            return os.open(part, _DIRECTORY, dir_fd=at)
        except FileNotFoundError:
            if not make:
                raise
        except NotADirectoryError:
            return self._through(at, part)
        os.mkdir(part, 0o755, dir_fd=at)
        return os.open(part, _DIRECTORY, dir_fd=at)

    def _through(self, at: int, part: bytes) -> int:
        """Follow a symlink to a directory inside the container's root; anything else is no directory."""
        try:
            target = os.readlink(part, dir_fd=at)
        except OSError as error:
            raise NotADirectoryError(error.errno, "not a directory", os.fsdecode(part)) from error
        if not target.startswith(b"/"):
            target = os.fsencode(self._view.inside(at)) + b"/" + target
        return open_in_root(self._view.root_fd, target, os.O_RDONLY | os.O_DIRECTORY)


def _times(entry: Entry) -> tuple[int, int]:
    return (entry.mtime_ns if entry.atime_ns is None else entry.atime_ns), entry.mtime_ns


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _write_sparse(fd: int, entry: Entry, pieces: Iterator[memoryview]) -> None:
    segments = iter(entry.segments)
    at = left = 0
    for piece in pieces:
        rest = piece
        while rest:
            while not left:
                at, left = next(segments)
            count = os.pwrite(fd, rest[:left], at)
            at, left, rest = at + count, left - count, rest[count:]
    os.ftruncate(fd, entry.size_bytes)


def _set_xattr(fd: int, name: bytes, value: bytes, entry: Entry) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if name == b"security.capability":
            raise InvalidArgument(f"cannot set the capabilities of {shown(entry.name)}: {error.strerror}") from error
