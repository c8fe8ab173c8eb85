"""What `cp` does on this side: a tree as an archive, and an archive as a tree that cannot leave its place (blocking).

Archives of a container are hostile input: names are resolved component by component from the destination, through
directories only, never through a symbolic link.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from lamina.errors import InvalidArgument, LaminaError, UnsafeArchive

Write = Callable[[bytes], None]


class _Sink:
    """The little of a file that a streaming tar writer needs."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        self._write(bytes(data))
        return len(data)


def packer(path: str, name: str, *, follow: bool) -> Callable[[Write], None]:
    """A request body: the tree at `path`, called `name` in the archive; `follow` looks through a link at `path`."""

    def send(write: Write) -> None:
        sink = cast("IO[bytes]", _Sink(write))
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive:
            archive.add(os.path.realpath(path) if follow else path, name)

    return send


def unpack(stream: IO[bytes], directory: str, rename: tuple[str, str] | None, *, keep_owner: bool) -> Iterator[str]:
    """Write the archive's tree into `directory`; yields the names of what was left out (devices).

    `rename`: the first component that entries have in the archive, and the one they get here.

    Raises:
        UnsafeArchive: a name that would leave the directory.
        LaminaError: the file system refuses.
    """
    with contextlib.ExitStack() as stack:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, root)
        tree = _Tree(root, rename, keep_owner=keep_owner)
        try:
            archive = stack.enter_context(tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20))
            for member in archive:
                if not tree.write(archive, member):
                    yield member.name
        except tarfile.TarError as error:
            raise LaminaError(f"the daemon sent a broken archive: {error}") from error
        except OSError as error:
            raise LaminaError(f"cannot write into {directory}: {error.strerror or error}") from error
        tree.finish()


class _Tree:
    """A directory that is being filled."""

    def __init__(self, root: int, rename: tuple[str, str] | None, *, keep_owner: bool) -> None:
        self._root = root
        self._rename = rename
        self._keep_owner = keep_owner
        self._directories: list[tuple[list[str], tarfile.TarInfo]] = []

    def write(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
        """False for what is not written."""
        parts = self._parts(member.name)
        if member.isdir():
            with self._opened(parts):
                self._directories.append((parts, member))
            return True
        if not parts:
            raise UnsafeArchive(f"the archive has a file without a name: {member.name!r}")
        if not (member.isreg() or member.issym() or member.islnk() or member.isfifo()):
            return False
        with self._opened(parts[:-1]) as parent:
            self._make(archive, member, parent, parts[-1])
        return True

    def finish(self) -> None:
        """Modes and times of directories, once nothing is written into them any more."""
        for parts, member in reversed(self._directories):
            if parts:
                with self._opened(parts[:-1]) as parent:
                    self._settle(member, parent, parts[-1])

    def _parts(self, name: str) -> list[str]:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise UnsafeArchive(f"the archive has a name that leaves its place: {name!r}")
        if self._rename is None:
            return parts
        old, new = self._rename
        if old == ".":
            return [new, *parts]
        return [new, *parts[1:]] if parts[:1] == [old] else parts

    @contextlib.contextmanager
    def _opened(self, parts: list[str]) -> Iterator[int]:
        """The directory of that name below the root, made where it is missing."""
        current = os.dup(self._root)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=current)
                following = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
                os.close(current)
                current = following
            yield current
        finally:
            os.close(current)

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        _clear(parent, name)
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.islnk():
            target = self._parts(member.linkname)
            with self._opened(target[:-1]) as other:
                os.link(target[-1], name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
            return
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        else:
            source = archive.extractfile(member)
            assert source is not None
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
            with open(descriptor, "wb") as file:
                while data := source.read(1 << 20):
                    file.write(data)
        self._settle(member, parent, name)

    def _settle(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        if self._keep_owner:
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if not member.issym():
            # A container decides these bits: set-id programs of its making are for archive mode alone.
            os.chmod(name, member.mode & (0o7777 if self._keep_owner else 0o1777), dir_fd=parent)
        moment = int(member.mtime * 1_000_000_000)
        os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)


def _clear(parent: int, name: str) -> None:
    """Make room for a file, never for one that is a directory now.

    Raises:
        LaminaError: a directory is there.
    """
    try:
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(there.st_mode):
        raise LaminaError(f"cannot overwrite directory {name!r} with non-directory")
    os.unlink(name, dir_fd=parent)


def split_entry(path: str) -> tuple[str, str]:
    """Directory and last component; `.` stays the last component of `dir/.`."""
    clean = os.path.normpath(path)
    if path.endswith("/.") or path == ".":
        return clean, "."
    return os.path.dirname(clean) or ".", os.path.basename(clean)


def asserts_directory(path: str) -> bool:
    """Whether the way a path is written says that it is a directory."""
    return path.endswith(("/", "/.")) or path == "."


def decode_mode(value: Any) -> tuple[bool, bool]:
    """Whether a mode as Go writes it is a directory, and whether it is a symbolic link."""
    mode = int(value)
    return bool(mode & 1 << 31), bool(mode & 1 << 27)


def arranged(
    source: str, target: str, *, source_is_dir: bool, target_exists: bool, target_is_dir: bool
) -> tuple[str, tuple[str, str] | None]:
    """Where an archive of `source` is unpacked for a copy to `target`, and how its entries are renamed.

    Source: docker/docs reference `cp`, the rules about SRC_PATH and DEST_PATH.

    Raises:
        InvalidArgument: a directory onto a file, or a file into a directory that is not there.
    """
    _, base = split_entry(source)
    directory, new = split_entry(target)
    if target_exists and target_is_dir:
        return target, None
    if target_exists and (source_is_dir or asserts_directory(target)):
        raise InvalidArgument("cannot copy directory" if source_is_dir else f"not a directory: {target}")
    if not target_exists and not source_is_dir and asserts_directory(target):
        raise InvalidArgument(f"no such directory: {target}", hint="make it first, or leave the slash at the end out")
    return directory, (base, new) if new != "." else None
