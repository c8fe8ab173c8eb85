"""Entries of a changeset made real in a directory, safely and fast (blocking).

Every name is reached through `Directories`, which never leaves the root. Metadata of directories is applied at the end:
writing into them changes their times, and their set-group-id bit must not reach what is made inside.

Source: moby pkg/archive `createTarFile`, `UnpackLayer` for the order of steps and what existing names mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

from lamina.changeset import whiteout
from lamina.changeset.entry import Entry, EntryKind
from lamina.changeset.names import clean_name, shown
from lamina.changeset.tarsplit import crc_of
from lamina.changeset.whiteout import WhiteoutDialect
from lamina.errors import InvalidArgument, PermissionDenied, UnsafeArchive
from lamina.rootfs.directories import OPEN_DIRECTORY, Directories, unsafe
from lamina.rootfs.remove import remove_at

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LATE = struct.Struct("<HIIqq")
"""Mode, owner, group and times of a directory."""
_SPECIAL = 0o6000
_NEEDS_CLEANING = re.compile(rb"^[/.]|//|/\.|\0|/$")


class Body(Protocol):
    """Where the content of a file comes from: all at once if it can, else in pieces."""

    def whole_body(self) -> memoryview | None: ...
    def pieces(self) -> Iterator[memoryview]: ...


class TreeWriter:
    """Writes the entries of one changeset into one directory. Use it in `with`; `finish` before leaving.

    The directory holds own changes in `dialect`: whiteouts become character devices 0:0 and opaque directories get an
    extended attribute, or both stay files as in the tar (aufs). With NONE it is the merged tree, and whiteouts remove
    from it.

    `file_bytes` is the size of the tree as `du` on the directory would find it, every inode once, links by the length
    of their target; `header_bytes` the sum of the entries' sizes. `replaced` tells that one entry replaced another one,
    so `file_bytes` is too large.
    """

    def __init__(self, directory: Path, dialect: WhiteoutDialect) -> None:
        self._directories = Directories(directory, dialect, self._made_parent)
        self._merges = dialect is WhiteoutDialect.NONE
        self._keeps_names = dialect is WhiteoutDialect.AUFS
        self._me = (os.geteuid(), os.getegid())
        self._late: list[bytes] = []
        self._late_xattrs: dict[int, Entry] = {}
        self._made: set[bytes] = set()
        self._hidden: set[bytes] = set()
        self.file_bytes = 0
        self.header_bytes = 0
        self.replaced = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor. Twice is fine."""
        self._directories.close()

    def is_plain_file(self, entry: Entry) -> bool:
        """Will this entry become a file that holds exactly the stored bytes?"""
        if entry.kind is not EntryKind.FILE or entry.is_sparse:
            return False
        name = _clean(entry.name)
        return not name.rpartition(b"/")[2].startswith(whiteout.PREFIX) and not _is_bookkeeping(name)

    def write_file(self, entry: Entry, body: Body) -> int:
        """Make a plain file; the CRC-64 of its content."""
        name = _clean(entry.name)
        parent, _, base = name.rpartition(b"/")
        if not base:
            raise UnsafeArchive(f"the entry {shown(entry.name)} would replace the root of the layer")
        fd = self._create(name, parent, base, entry.mode)
        try:
            whole = body.whole_body()
            if whole is not None:
                crc: int = crc_of(whole)
                if whole:
                    _write_all(fd, whole)
            else:
                crc = crc_of(b"")
                for piece in body.pieces():
                    crc = crc_of(piece, crc)
                    _write_all(fd, piece)
            self._dress(fd, entry, self._directories.open(parent))
        finally:
            os.close(fd)
        self.file_bytes += entry.size_bytes
        self.header_bytes += entry.size_bytes
        return crc

    def write(self, entry: Entry, pieces: Iterator[memoryview]) -> None:
        """Make anything else; `pieces` is the stored body, read to its end whatever becomes of it."""
        self._write(entry, pieces)
        for _ in pieces:
            pass

    def finish(self) -> None:
        """Give every directory its owner, mode and times, deepest names first."""
        while self._late:
            packed = self._late.pop()
            name = packed[_LATE.size :]
            mode, uid, gid, mtime, atime = _LATE.unpack_from(packed)
            entry = self._late_xattrs.get(len(self._late)) or Entry(EntryKind.DIRECTORY, name)
            entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.atime_ns = mode, uid, gid, mtime, atime
            try:
                fd = self._directories.open(name, make=False)
            except UnsafeArchive:
                continue  # a later entry put something else in its place
            self._dress(fd, entry, self._directories.root, always=True)

    def _dress_late(self, name: bytes, entry: Entry) -> None:
        """Remember a directory for `finish`, packed: there may be a million of them."""
        if entry.xattrs:
            self._late_xattrs[len(self._late)] = entry
        self._late.append(_LATE.pack(entry.mode, entry.uid, entry.gid, entry.mtime_ns, _times(entry)[0]) + name)

    def _write(self, entry: Entry, pieces: Iterator[memoryview]) -> None:
        if entry.kind is EntryKind.GLOBAL_HEADER:
            return
        self.header_bytes += entry.size_bytes
        name = _clean(entry.name)
        if not name:
            self._write_root(entry)
            return
        if _is_bookkeeping(name):
            return
        parent, _, base = name.rpartition(b"/")
        if base.startswith(whiteout.PREFIX):
            self._write_whiteout(entry, parent, base)
            return
        match entry.kind:
            case EntryKind.DIRECTORY:
                self._make_directory(name, parent, base)
                self._dress_late(name, entry)
            case EntryKind.FILE:
                self._write_sparse(entry, name, pieces)
            case EntryKind.HARD_LINK:
                self._link(entry, name, parent, base)
            case EntryKind.SYMLINK:
                self._symlink(entry, name, parent, base)
            case _:
                self._make_node(entry, name, parent, base)

    def _write_root(self, entry: Entry) -> None:
        if entry.kind is not EntryKind.DIRECTORY:
            raise UnsafeArchive(f"the entry {shown(entry.name)} would replace the root of the layer")
        # Over other layers the root's own metadata comes from the driver, as in Docker.
        if self._merges:
            self._dress_late(b"", entry)

    def _create(self, name: bytes, parent: bytes, base: bytes, mode: int) -> int:
        at = self._directories.open(parent)
        if self._merges or self._hidden:
            self._note(name)
        try:
            return os.open(base, _CREATE, mode, dir_fd=at)
        except FileExistsError:
            self._clear(at, base)
            return os.open(base, _CREATE, mode, dir_fd=self._directories.open(parent))
        except OSError as error:
            raise unsafe(error, name) from error

    def _dress(self, fd: int, entry: Entry, parent: int, *, always: bool = False) -> None:
        """Owner, extended attributes, mode, times: in this order, because a change of owner clears the first bits."""
        mode = entry.mode
        owner = (entry.uid, entry.gid)
        if always or owner != self._me or self._directories.gives_group(parent):
            os.fchown(fd, *owner)
            always = always or bool(mode & _SPECIAL)
        if entry.xattrs:
            _set_xattrs(fd, entry)
        if always or mode & self._directories.umask:
            os.fchmod(fd, mode)
        os.utime(fd, ns=_times(entry))

    def _write_sparse(self, entry: Entry, name: bytes, pieces: Iterator[memoryview]) -> None:
        parent, _, base = name.rpartition(b"/")
        fd = self._create(name, parent, base, entry.mode)
        try:
            segments = iter(entry.segments)
            at = left = 0
            for piece in pieces:
                rest = piece
                while rest:
                    while not left:
                        at, left = next(segments)
                    part = rest[:left]
                    _write_all_at(fd, part, at)
                    at, left, rest = at + len(part), left - len(part), rest[len(part) :]
            os.ftruncate(fd, entry.size_bytes)
            self._dress(fd, entry, self._directories.open(parent))
        finally:
            os.close(fd)
        self.file_bytes += entry.size_bytes

    def _make_directory(self, name: bytes, parent: bytes, base: bytes) -> None:
        at = self._directories.open(parent)
        hid = self._note(name)
        try:
            os.mkdir(base, 0o700, dir_fd=at)
        except FileExistsError:
            if stat.S_ISDIR(self._look(at, base).st_mode):
                return
            hid = self._clear(at, base)
            at = self._directories.open(parent)
            os.mkdir(base, 0o700, dir_fd=at)
        except OSError as error:
            raise unsafe(error, name) from error
        if hid:
            self._directories.mark_opaque(self._directories.open(name))

    def _link(self, entry: Entry, name: bytes, parent: bytes, base: bytes) -> None:
        target = _clean(entry.link)
        target_parent, _, target_base = target.rpartition(b"/")
        if not target_base:
            raise UnsafeArchive(f"the hard link {shown(entry.name)} points to the root of the layer")
        self._directories.open(target_parent, make=False)
        at = self._directories.open(parent)
        source = self._directories.open(target_parent, make=False)  # again: the line before may have emptied the cache
        self._note(name)
        try:
            try:
                os.link(target_base, base, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False)
            except FileExistsError:
                self._clear(at, base)
                at = self._directories.open(parent)
                source = self._directories.open(target_parent, make=False)
                os.link(target_base, base, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False)
        except FileNotFoundError as error:
            raise UnsafeArchive(
                f"the hard link {shown(entry.name)} points to {shown(entry.link)}, which this layer does not have"
            ) from error
        except OSError as error:
            raise unsafe(error, name) from error
        self._dress_link(entry, base, at)

    def _dress_link(self, entry: Entry, base: bytes, at: int) -> None:
        """The header of a hard link speaks for the shared inode; what is already right is not touched."""
        found = self._look(at, base)
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
            os.chown(base, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)
            found = self._look(at, base)
        if stat.S_ISLNK(found.st_mode):
            return
        if stat.S_IMODE(found.st_mode) != entry.mode:
            os.chmod(base, entry.mode, dir_fd=at)
        if found.st_mtime_ns != entry.mtime_ns:
            os.utime(base, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=at, follow_symlinks=False)

    def _symlink(self, entry: Entry, name: bytes, parent: bytes, base: bytes) -> None:
        if not entry.link or b"\0" in entry.link or len(entry.link) > os.pathconf("/", "PC_PATH_MAX"):
            raise UnsafeArchive(f"the symlink {shown(entry.name)} has an impossible target")
        at = self._directories.open(parent)
        self._note(name)
        try:
            os.symlink(entry.link, base, dir_fd=at)
        except FileExistsError:
            self._clear(at, base)
            at = self._directories.open(parent)
            os.symlink(entry.link, base, dir_fd=at)
        except OSError as error:
            raise unsafe(error, name) from error
        if (entry.uid, entry.gid) != self._me or self._directories.gives_group(at):
            os.chown(base, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)
        if entry.xattrs:
            _set_xattrs(b"/proc/self/fd/%d/%b" % (at, base), entry)
        os.utime(base, ns=_times(entry), dir_fd=at, follow_symlinks=False)
        self.file_bytes += len(entry.link)

    def _make_node(self, entry: Entry, name: bytes, parent: bytes, base: bytes) -> None:
        at = self._directories.open(parent)
        self._note(name)
        try:
            try:
                _mknod(entry, base, at)
            except FileExistsError:
                self._clear(at, base)
                at = self._directories.open(parent)
                _mknod(entry, base, at)
        except PermissionError as error:
            raise PermissionDenied(f"no right to make the {entry.kind.value} {shown(name)}") from error
        except (OSError, OverflowError) as error:
            raise unsafe(error, name) from error
        if (entry.uid, entry.gid) != self._me or self._directories.gives_group(at):
            os.chown(base, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)
        if entry.xattrs:
            _set_xattrs(b"/proc/self/fd/%d/%b" % (at, base), entry)
        os.chmod(base, entry.mode, dir_fd=at)
        os.utime(base, ns=_times(entry), dir_fd=at, follow_symlinks=False)

    def _write_whiteout(self, entry: Entry, parent: bytes, base: bytes) -> None:
        if base == whiteout.OPAQUE:
            at = self._directories.open(parent)
            if self._merges:
                self._remove_foreign(os.dup(at), parent)
            else:
                self._directories.mark_opaque(at)
            return
        hidden = whiteout.victim(base)
        at = self._directories.open(parent)
        name = parent + b"/" + hidden if parent else hidden
        if self._merges:
            self._hide_in_tree(at, name, hidden)
            return
        if self._keeps_names:
            self._hide_by_name(entry, parent, base)
            return
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=at)
        except FileExistsError:
            # Made by this layer itself: a whiteout speaks of the layers below only.
            if stat.S_ISDIR(self._look(at, hidden).st_mode):
                self._directories.mark_opaque(self._directories.open(name, make=False))
            return
        except OSError as error:
            raise unsafe(error, name) from error
        if (entry.uid, entry.gid) != self._me:
            os.chown(hidden, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)

    def _hide_by_name(self, entry: Entry, parent: bytes, base: bytes) -> None:
        """Keep the whiteout as the empty file that it is, unless this layer itself has made what it hides."""
        hidden = whiteout.victim(base)
        name = parent + b"/" + hidden if parent else hidden
        at = self._directories.open(parent)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(self._look(at, hidden).st_mode):
                self._directories.mark_opaque(self._directories.open(name, make=False))
            return
        try:
            fd = os.open(base, _CREATE, entry.mode, dir_fd=at)
        except FileExistsError:
            return
        except OSError as error:
            raise unsafe(error, name) from error
        try:
            self._dress(fd, entry, at)
        finally:
            os.close(fd)
        self._hidden.add(name)

    def _made_parent(self, name: bytes) -> None:
        """Take in a directory that an entry needed: one in the place of a whiteout shows nothing from below."""
        if self._note(name):
            parent, _, base = name.rpartition(b"/")
            fd = os.open(base, OPEN_DIRECTORY, dir_fd=self._directories.open(parent))
            try:
                self._directories.mark_opaque(fd)
            finally:
                os.close(fd)

    def _hide_in_tree(self, at: int, name: bytes, hidden: bytes) -> None:
        try:
            found = self._look(at, hidden)
        except FileNotFoundError:
            return
        if name not in self._made:
            self._remove(at, hidden)
        elif stat.S_ISDIR(found.st_mode):
            self._remove_foreign(os.dup(self._directories.open(name, make=False)), name)

    def _note(self, name: bytes) -> bool:
        """A name of the changeset is about to be made; True when a whiteout file of it had to go first.

        Remembers what this changeset has put into the merged tree, with the directories above.
        """
        if name in self._hidden:
            self._hidden.remove(name)
            parent, _, base = name.rpartition(b"/")
            with contextlib.suppress(FileNotFoundError):  # gone with a directory that was replaced
                os.unlink(whiteout.PREFIX + base, dir_fd=self._directories.open(parent))
                return True
        while self._merges and name and name not in self._made:
            self._made.add(name)
            name = name.rpartition(b"/")[0]
        return False

    def _remove_foreign(self, at: int, directory: bytes) -> None:
        """Remove from a directory of the merged tree what this changeset has not put there; closes `at`."""
        try:
            for base in [os.fsencode(found) for found in os.listdir(at)]:
                name = directory + b"/" + base if directory else base
                found = self._look(at, base)
                if name not in self._made:
                    self._remove(at, base)
                elif stat.S_ISDIR(found.st_mode):
                    self._remove_foreign(os.open(base, OPEN_DIRECTORY, dir_fd=at), name)
        finally:
            os.close(at)

    def _clear(self, at: int, base: bytes) -> bool:
        """Make room for a new entry. True when it was a whiteout, so that a directory in its place must be opaque."""
        found = self._look(at, base)
        if self._directories.is_whiteout(found):
            os.unlink(base, dir_fd=at)
            return True
        self.replaced = True
        self._remove(at, base)
        return False

    def _remove(self, at: int, base: bytes) -> None:
        """Remove anything. Every cached descriptor is closed, `at` too if it is one of them."""
        remove_at(at, os.fsdecode(base))
        self._directories.forget()

    def _look(self, at: int, base: bytes) -> os.stat_result:
        return os.stat(base, dir_fd=at, follow_symlinks=False)


def _clean(name: bytes) -> bytes:
    if len(name) < 256 and not _NEEDS_CLEANING.search(name):
        return name
    return clean_name(name)


def _is_bookkeeping(name: bytes) -> bool:
    """Tell the names that aufs itself keeps at the top of a layer, and what lies below them."""
    if not name.startswith((whiteout.AUFS_PREFIX, b"/", b"./")):
        return False
    first = clean_name(name).partition(b"/")[0]
    return first.startswith(whiteout.AUFS_PREFIX) and first != whiteout.OPAQUE


def _times(entry: Entry) -> tuple[int, int]:
    atime = entry.mtime_ns if entry.atime_ns is None else max(entry.atime_ns, entry.mtime_ns)
    return atime, entry.mtime_ns


def _mknod(entry: Entry, base: bytes, at: int) -> None:
    kind = {
        EntryKind.CHARACTER_DEVICE: stat.S_IFCHR,
        EntryKind.BLOCK_DEVICE: stat.S_IFBLK,
        EntryKind.FIFO: stat.S_IFIFO,
    }[entry.kind]
    device = 0 if kind == stat.S_IFIFO else os.makedev(entry.major, entry.minor)
    os.mknod(base, kind | entry.mode, device, dir_fd=at)


def _set_xattrs(where: int | bytes, entry: Entry) -> None:
    """Marks of union file systems are left out. Where others are not supported only capabilities are worth failing."""
    for name, value in entry.xattrs:
        if whiteout.is_forgeable(name):
            continue
        try:
            if isinstance(where, int):
                os.setxattr(where, name, value)
            else:
                os.setxattr(where, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno in {errno.ENOTSUP, errno.EPERM} and name != b"security.capability":
                continue
            raise InvalidArgument(
                f"cannot set the extended attribute {shown(name)} of {shown(entry.name)}: {error.strerror}"
            ) from error


def _write_all(fd: int, data: memoryview) -> None:
    rest = data
    while rest:
        rest = rest[os.write(fd, rest) :]


def _write_all_at(fd: int, data: memoryview, offset: int) -> None:
    rest, at = data, offset
    while rest:
        count = os.pwrite(fd, rest, at)
        rest, at = rest[count:], at + count
