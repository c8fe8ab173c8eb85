"""A stack of layer directories as one directory, without copying a byte: every file is a hard link (blocking).

For union file systems that stack only so many directories. The result shows what the stack shows: the topmost name
wins, what is marked as gone is not there, and nothing below an opaque directory shines through. The directories of the
stack must not change, neither meanwhile nor ever after: they share their files with the result.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lamina.errors import Unsupported
from lamina.kernel import xattr
from lamina.rootfs.copytree import TreeCopy

_DEEPEST = 400
_NOT_LINKED = frozenset({errno.EMLINK, errno.EPERM, errno.EXDEV})
"""The file has all the links it can have, is immutable, or belongs to another project: then it is copied."""


@dataclass(slots=True)
class Marked:
    """One directory of a layer: the `names` it shows (with whether each is a directory), and those it takes away."""

    names: list[tuple[str, bool]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    opaque: bool = False


class Marks(Protocol):
    """How a layer says that a name is gone: the dialect of a union file system."""

    def read(self, directory: str) -> Marked:
        """Tell what one directory holds.

        Raises:
            Unsupported: it refers to another place of the stack.
        """

    def keeps(self, attribute: str) -> bool:
        """Does this attribute belong to the file, and not to the union file system?"""


@dataclass(frozen=True, slots=True)
class OverlayMarks:
    """Whiteouts are 0:0 character devices, opaque directories have an attribute. `prefix`: `trusted.overlay.`."""

    prefix: str

    def read(self, directory: str) -> Marked:
        attributes = xattr.names(directory)
        if self.prefix + "redirect" in attributes:
            raise Unsupported(f"{directory} was renamed in an overlay with redirect_dir: its layer cannot be merged")
        found = Marked(opaque=self.prefix + "opaque" in attributes and self._is_opaque(directory))
        with os.scandir(directory) as listing:
            for entry in listing:
                is_directory = entry.is_dir(follow_symlinks=False)
                if not is_directory and not entry.is_symlink() and self._is_gone(entry):
                    found.gone.append(entry.name)
                else:
                    found.names.append((entry.name, is_directory))
        return found

    def keeps(self, attribute: str) -> bool:
        return not attribute.startswith(self.prefix)

    def _is_opaque(self, directory: str) -> bool:
        return xattr.get(directory, self.prefix + "opaque") == b"y"

    def _is_gone(self, entry: os.DirEntry[str]) -> bool:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISCHR(status.st_mode):
            return status.st_rdev == 0
        if status.st_size and not status.st_blocks and xattr.get(entry.path, self.prefix + "metacopy") is not None:
            raise Unsupported(f"{entry.path} has only metadata (metacopy=on): its layer cannot be merged")
        return False


@dataclass(frozen=True, slots=True)
class AufsMarks:
    """Whiteouts are files `.wh.<name>`, opaque directories hold `.wh..wh..opq`; `.wh..wh.…` belongs to the branch."""

    def read(self, directory: str) -> Marked:
        found = Marked()
        with os.scandir(directory) as listing:
            for entry in listing:
                if not entry.name.startswith(".wh."):
                    found.names.append((entry.name, entry.is_dir(follow_symlinks=False)))
                elif entry.name == ".wh..wh..opq":
                    found.opaque = True
                elif not entry.name.startswith(".wh..wh."):
                    found.gone.append(entry.name.removeprefix(".wh."))
        return found

    def keeps(self, attribute: str) -> bool:
        return True


def merge_stack(stack: Sequence[Path], target: Path, marks: Marks) -> None:
    """Fill the empty directory `target` with what `stack` (uppermost first) shows.

    The root of the target gets the metadata of the topmost one's.
    On error the target holds what was linked so far.

    Raises:
        Unsupported: a layer holds a reference instead of a file (metacopy, redirect_dir).
        OSError: with errno and the name it was about.
    """
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _Merge(target_fd, marks).directory([os.fspath(layer) for layer in stack], os.fspath(target), "", 0)
    finally:
        os.close(target_fd)


class _Merge:
    def __init__(self, target_fd: int, marks: Marks) -> None:
        self._marks = marks
        self._copy = TreeCopy(target_fd)

    def directory(self, stack: list[str], target: str, prefix: str, depth: int) -> None:
        """Everything below, then the metadata: writing into a directory changes its times."""
        if depth > _DEEPEST:
            raise OSError(errno.ENAMETOOLONG, f"directories are nested more than {_DEEPEST} deep", prefix[:200])
        settled: set[str] = set()
        branches: dict[str, list[str]] = {}
        for layer in stack:
            found = self._marks.read(layer)
            for name, is_directory in found.names:
                if name in settled:
                    continue
                if is_directory:
                    branches.setdefault(name, []).append(f"{layer}/{name}")
                    continue
                settled.add(name)
                if name not in branches:  # else a directory above hides this file, and it hides what is below
                    self._leaf(layer, target, name, prefix)
            settled.update(found.gone)
            if found.opaque:
                break
        for name, directories in branches.items():
            inner = f"{target}/{name}"
            os.mkdir(inner, 0o700)
            self.directory(directories, inner, f"{prefix}{name}/", depth + 1)
        self._metadata(stack[0], target)

    def _leaf(self, layer: str, target: str, name: str, prefix: str) -> None:
        try:
            os.link(f"{layer}/{name}", f"{target}/{name}", follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NOT_LINKED:
                raise
            self._copied(layer, target, name, prefix)

    def _copied(self, layer: str, target: str, name: str, prefix: str) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        source_fd = os.open(layer, flags)
        try:
            target_fd = os.open(target, flags)
            try:
                self._copy.leaf(name, source_fd, target_fd, prefix + name)
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)

    def _metadata(self, source: str, target: str) -> None:
        status = os.lstat(source)
        os.chown(target, status.st_uid, status.st_gid)
        for name in self._kept(xattr.names(source)):
            value = xattr.get(source, name)
            if value is not None:
                xattr.put(target, name, value)
        os.chmod(target, stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _kept(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._marks.keeps(name)]
