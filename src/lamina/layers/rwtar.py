"""Directories as tar, with the headers dockerd writes: layers of commits, and exports (blocking).

Names of one directory come in byte order, a directory before its content. Hard links refer to the first name of their
inode. Sockets are left out. Of the extended attributes only file capabilities are kept, as in Docker.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lamina.changeset import whiteout
from lamina.changeset.entry import Entry, EntryKind
from lamina.changeset.tarheader import END, encode_header, padding
from lamina.changeset.whiteout import WhiteoutDialect
from lamina.kernel import xattr
from lamina.rootfs.diff import Change, ChangeKind

_READ_BYTES = 1 << 20
_SECOND = 1_000_000_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CAPABILITY = "security.capability"
_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFCHR: EntryKind.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryKind.BLOCK_DEVICE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFIFO: EntryKind.FIFO,
}


class Writable(Protocol):
    """Anything with a `write` that takes all it is given."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(slots=True)
class _Writing:
    """One archive on its way out."""

    out: Writable
    dialect: WhiteoutDialect
    links: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def emit(self, entry: Entry, file: int | None = None) -> None:
        self.out.write(encode_header(entry))
        if file is None:
            return
        left = entry.size_bytes
        while left:
            data = os.read(file, min(left, _READ_BYTES))
            if not data:
                break  # it shrank while it was read; the header has promised its length
            self.out.write(data)
            left -= len(data)
        while left:
            zeros = bytes(min(left, _READ_BYTES))
            self.out.write(zeros)
            left -= len(zeros)
        self.out.write(padding(entry.size_bytes))


def write_tree(directory: Path, out: Writable, dialect: WhiteoutDialect = WhiteoutDialect.NONE) -> None:
    """Write everything below `directory`, but not itself.

    Unless `dialect` is NONE it is a directory of own changes. Those of overlay: devices 0:0 become `.wh.` files in the
    place of the original name, and an opaque directory is followed by `.wh..wh..opq`. Those of aufs: the `.wh.` files
    themselves, without what aufs keeps for itself.
    """
    writing = _Writing(out, dialect)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _walk(writing, fd, b"")
    out.write(END)


def write_named(fd: int, base: bytes, name: bytes, out: Writable) -> None:
    """Write the entry `base` of the open directory `fd` under the archive name `name`, with everything below it.

    `base` may be `.` for the directory itself. Symlinks are not followed.
    """
    writing = _Writing(out, WhiteoutDialect.NONE)
    if _write_name(writing, fd, base, name):
        _walk(writing, os.open(base, _DIRECTORY, dir_fd=fd), name + b"/")
    out.write(END)


def write_changes(directory: Path, changes: Iterable[Change], now_ns: int, out: Writable) -> None:
    """Write the changed names of the tree `directory`, all paths sorted as byte strings; deletions as whiteouts."""
    writing = _Writing(out, WhiteoutDialect.NONE)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for change in sorted(changes, key=lambda change: os.fsencode(change.path)):
            name = os.fsencode(change.path).lstrip(b"/")
            if change.kind is ChangeKind.DELETE:
                parent, slash, base = name.rpartition(b"/")
                hidden = parent + slash + whiteout.PREFIX + base
                mtime = (now_ns + _SECOND // 2) // _SECOND * _SECOND
                writing.emit(Entry(EntryKind.FILE, hidden, mode=0, mtime_ns=mtime))
                continue
            fd = _open_parent(root, name)
            try:
                _write_name(writing, fd, name.rpartition(b"/")[2], name)
            finally:
                os.close(fd)
    finally:
        os.close(root)
    out.write(END)


def _open_parent(root: int, name: bytes) -> int:
    """Step by step without following: the tree may belong to a running container."""
    fd = os.dup(root)
    for part in name.split(b"/")[:-1]:
        above = fd
        try:
            fd = os.open(part, _DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    return fd


def _walk(writing: _Writing, top: int, prefix: bytes) -> None:
    """Depth first, without recursion; closes every descriptor, `top` included."""
    stack: list[tuple[int, bytes, list[bytes]]] = [(top, prefix, _names(top))]
    try:
        while stack:
            fd, path, names = stack[-1]
            if not names:
                stack.pop()
                os.close(fd)
                continue
            base = names.pop()
            if _write_name(writing, fd, base, path + base):
                try:
                    below = os.open(base, _DIRECTORY, dir_fd=fd)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # gone meanwhile
                stack.append((below, path + base + b"/", _names(below)))
    finally:
        for fd, _, _ in stack:
            os.close(fd)


def _names(fd: int) -> list[bytes]:
    """Last name first, so that they can be popped."""
    return sorted((os.fsencode(name) for name in os.listdir(fd)), reverse=True)


def _write_name(writing: _Writing, fd: int, base: bytes, name: bytes) -> bool:
    """Write one name; True when it is a directory to go into. A name that is gone meanwhile is left out."""
    try:
        found = os.stat(base, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    kind = _KINDS.get(stat.S_IFMT(found.st_mode))
    if kind is None:
        return False  # a socket
    entry = Entry(
        kind,
        name,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_ns=found.st_mtime_ns // _SECOND * _SECOND,
    )
    if _write_mark(writing, base, entry, found):
        return False
    if kind is EntryKind.DIRECTORY:
        return _write_directory(writing, fd, base, entry)
    if found.st_nlink > 1 and _write_link(writing, found, entry):
        return False
    entry.xattrs = _capability(fd, base)
    if kind is EntryKind.FILE:
        _write_file(writing, fd, base, entry)
        return False
    if kind is EntryKind.SYMLINK:
        entry.link = os.readlink(base, dir_fd=fd)
    elif kind is not EntryKind.FIFO:
        entry.major, entry.minor = os.major(found.st_rdev), os.minor(found.st_rdev)
    writing.emit(entry)
    return False


def _write_directory(writing: _Writing, fd: int, base: bytes, entry: Entry) -> bool:
    entry.xattrs = _capability(fd, base)
    bare = entry.name
    entry.name = bare + b"/"
    writing.emit(entry)
    mark = writing.dialect.opaque_xattr
    if mark is not None and xattr.get(b"/proc/self/fd/%d/%b" % (fd, base), mark) == b"y":
        name = bare + b"/" + whiteout.OPAQUE
        writing.emit(Entry(EntryKind.FILE, name, mode=entry.mode & 0o777, uid=entry.uid, gid=entry.gid))
    return True


def _write_mark(writing: _Writing, base: bytes, entry: Entry, found: os.stat_result) -> bool:
    """Write a name that is a mark of the union and no file, in the form of a layer; False for anything else."""
    if writing.dialect is WhiteoutDialect.AUFS and base.startswith(whiteout.PREFIX):
        if not whiteout.is_aufs_own(base):
            entry.kind = EntryKind.FILE  # and never a hard link, though aufs keeps one inode for all of them
            writing.emit(entry)
        return True
    is_overlays = writing.dialect.opaque_xattr is not None
    if is_overlays and entry.kind is EntryKind.CHARACTER_DEVICE and found.st_rdev == 0:
        _write_whiteout(writing, entry)
        return True
    return False


def _write_whiteout(writing: _Writing, entry: Entry) -> None:
    parent, slash, base = entry.name.rpartition(b"/")
    name = parent + slash + whiteout.PREFIX + base
    writing.emit(
        Entry(EntryKind.FILE, name, mode=0o600, uid=entry.uid, gid=entry.gid, mtime_ns=entry.mtime_ns), file=None
    )


def _write_link(writing: _Writing, found: os.stat_result, entry: Entry) -> bool:
    inode = (found.st_dev, found.st_ino)
    first = writing.links.setdefault(inode, entry.name)
    if first == entry.name:
        return False
    entry.kind, entry.link = EntryKind.HARD_LINK, first
    writing.emit(entry)
    return True


def _write_file(writing: _Writing, fd: int, base: bytes, entry: Entry) -> None:
    try:
        file = os.open(base, _FILE, dir_fd=fd)
    except FileNotFoundError:
        return
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            return
        entry.size_bytes = found.st_size
        writing.emit(entry, file)
    finally:
        os.close(file)


def _capability(fd: int, base: bytes) -> tuple[tuple[bytes, bytes], ...]:
    value = xattr.get(b"/proc/self/fd/%d/%b" % (fd, base), _CAPABILITY)
    if value is None:
        return ()
    if value[3:4] == b"\x03":
        # Revision 3 names the user namespace it is valid in; without that it is revision 2. capabilities(7).
        value = value[:3] + b"\x02" + value[4:20]
    return ((_CAPABILITY.encode(), value),)
