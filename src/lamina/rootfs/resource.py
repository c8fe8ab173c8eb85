"""One file or directory of a container: its description and its archive, as `docker cp` wants them (blocking).

Source: moby daemon/archive.go (`containerStatPath`, `containerArchivePath`), container/archive.go (`ResolvePath`),
pkg/archive copy.go for what a trailing `/` and `/.` mean; Go io/fs FileMode for the bits of `mode`.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lamina.clock import rfc3339
from lamina.jsonvalue import JsonObject
from lamina.kernel.openat import open_in_root
from lamina.rootfs.view import View

_GO_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


class Writable(Protocol):
    """Anything with a `write` that takes all it is given."""

    def write(self, data: bytes, /) -> object: ...


WriteNamed = Callable[[int, bytes, bytes, Writable], None]
"""(open directory, entry in it, archive name, where to) → the tar of the entry and what is below it."""


@dataclass(frozen=True, slots=True)
class Resource:
    """An entry `base` of the open directory `fd`, which the caller closes. `name` is what the archive calls it."""

    fd: int
    base: bytes
    name: str
    path: str
    status: os.stat_result

    def close(self) -> None:
        os.close(self.fd)


def absolute(path: str) -> str:
    """`path` from `/`, cleaned of `.` and `..`, with the trailing `/` or `/.` that it had."""
    cleaned = "/" + posixpath.normpath("/" + path).lstrip("/")
    if posixpath.basename(path) == ".":
        return cleaned.rstrip("/") + "/."
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def find(view: View, path: str) -> Resource:
    """Open what `path` names: symlinks on the way are followed, one in the last place only before a trailing `/`.

    Raises:
        FileNotFoundError, NotADirectoryError: as the container would see it.
    """
    wanted = absolute(path)
    directory, base = posixpath.split(wanted)
    if base in {"", "."}:
        # The path names a directory by its inside.
        fd = view.open(wanted, os.O_RDONLY | os.O_DIRECTORY)
        name = posixpath.basename(wanted.rstrip("/")) or "/"
        return Resource(fd, b".", name, wanted, os.fstat(fd))
    fd = view.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        encoded = os.fsencode(base)
        status = os.stat(encoded, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            inner = open_in_root(fd, encoded, os.O_RDONLY | os.O_DIRECTORY, nofollow_last=True)
            os.close(fd)
            fd = inner
            return Resource(fd, b".", base, wanted, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return Resource(fd, encoded, base, wanted, status)


def describe(view: View, resource: Resource) -> JsonObject:
    """The path stat that travels in a header of the answer."""
    return {
        "name": resource.name,
        "size": resource.status.st_size,
        "mode": go_mode(resource.status.st_mode),
        "mtime": rfc3339(resource.status.st_mtime_ns),
        "linkTarget": _link_target(view, resource) if stat.S_ISLNK(resource.status.st_mode) else "",
    }


def write_archive(resource: Resource, write_named: WriteNamed, out: Writable) -> None:
    """The tar of the resource: its entries begin with its own name, or with `.` or nothing as the path asked."""
    name = "" if resource.name == "/" else resource.name
    write_named(resource.fd, resource.base, os.fsencode(name), out)


def go_mode(mode: int) -> int:
    """A mode as Go's FileMode has it."""
    found = stat.S_IMODE(mode) & 0o777 | _GO_TYPES.get(stat.S_IFMT(mode), 0)
    for bit, go_bit in _GO_BITS:
        if mode & bit:
            found |= go_bit
    return found


def _link_target(view: View, resource: Resource) -> str:
    """Where the symlink leads in the end, inside the container; a dangling one is followed by name only."""
    try:
        fd = view.open(resource.path, os.O_PATH)
    except OSError:
        text = os.fsdecode(os.readlink(resource.base, dir_fd=resource.fd))
        return absolute(posixpath.join(posixpath.dirname(resource.path), text))
    try:
        return view.inside(fd)
    finally:
        os.close(fd)
