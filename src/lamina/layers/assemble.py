"""A layer's tar rebuilt to the byte from its tar-split and its files (blocking).

Every file's CRC-64 is compared with the record, and the digest of the whole with the diff id, while the bytes go out.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from lamina.changeset.compression import decompressed
from lamina.changeset.names import clean_name, shown
from lamina.changeset.tarsplit import Segment, crc_of, parse_lines
from lamina.errors import CorruptRecord, DataLoss, UnsafeArchive
from lamina.kernel.openat import open_in_root
from lamina.oci.digest import DiffId

_READ_BYTES = 1 << 20
_GATHER_BYTES = 1 << 18
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Writable(Protocol):
    """Anything with a `write` that takes all it is given."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object: ...


def write_tar(tar_split: Path, directory: Path, diff_id: DiffId, out: Writable) -> int:
    """Write the layer's tar to `out`; the number of bytes.

    Raises:
        DataLoss: a file is gone, has changed, or the whole has another digest. Part of the tar has gone out by then.
        CorruptRecord: the tar-split cannot be read.
    """
    files = _Files(directory)
    gathered = _Gathered(out)
    try:
        for segment in parse_lines(_lines(tar_split)):
            if segment.name is None:
                gathered.write(segment.raw)
            elif segment.size_bytes:
                _write_file(files, segment.name, segment, gathered)
        gathered.flush()
    finally:
        files.close()
    found = "sha256:" + gathered.hash.hexdigest()
    if found != diff_id:
        raise DataLoss(f"could not verify layer data for {diff_id}: what is on disk has the digest {found}")
    return gathered.total


def tar_bytes(tar_split: Path) -> int:
    """How long the tar will be, without reading a file."""
    return sum(
        segment.size_bytes if segment.name is not None else len(segment.raw)
        for segment in parse_lines(_lines(tar_split))
    )


def _lines(tar_split: Path) -> Iterator[bytes]:
    try:
        with open(tar_split, "rb") as file:
            yield from decompressed(iter(lambda: file.read(1 << 18), b""))
    except FileNotFoundError as error:
        raise CorruptRecord(f"the layer has no {tar_split}") from error
    except zlib.error as error:
        raise CorruptRecord(f"{tar_split} is damaged: {error}") from error


class _Gathered:
    """Small pieces become large ones before they are hashed and written."""

    def __init__(self, out: Writable) -> None:
        self._out = out
        self._buffer = bytearray()
        self.hash = hashlib.sha256()
        self.total = 0

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _GATHER_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._buffer:
            self._send(self._buffer)
            self._buffer = bytearray()

    def large(self, data: bytes) -> None:
        self.flush()
        self._send(data)

    def _send(self, data: bytes | bytearray) -> None:
        self.hash.update(data)
        self._out.write(data)
        self.total += len(data)


class _Files:
    """Opens the files of a layer inside its directory; the last directory stays open, because names come in order."""

    def __init__(self, directory: Path) -> None:
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent = b""
        self._fd = self._root

    def open(self, name: bytes) -> int:
        """A descriptor of a regular file."""
        cleaned = clean_name(name)
        parent, _, base = cleaned.rpartition(b"/")
        if parent != self._parent:
            fd = self._enter(parent)
            self._leave()
            self._parent, self._fd = parent, fd
        return os.open(base, _OPEN_FILE, dir_fd=self._fd)

    def close(self) -> None:
        self._leave()
        os.close(self._root)

    def _enter(self, parent: bytes) -> int:
        if not parent:
            return self._root
        if parent.rpartition(b"/")[0] == self._parent:
            with suppress(NotADirectoryError):
                return os.open(parent.rpartition(b"/")[2], _OPEN_DIRECTORY, dir_fd=self._fd)
        return open_in_root(self._root, parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _leave(self) -> None:
        if self._fd != self._root:
            os.close(self._fd)
        self._fd, self._parent = self._root, b""


def _write_file(files: _Files, name: bytes, wanted: Segment, out: _Gathered) -> None:
    try:
        fd = files.open(name)
    except (OSError, UnsafeArchive) as error:
        raise DataLoss(f"the layer's file {shown(name)} cannot be read: {error}") from error
    try:
        data = os.read(fd, _READ_BYTES)
        crc: int = crc_of(data)
        if len(data) < _GATHER_BYTES:
            out.write(data)
        else:
            out.large(data)
        left = wanted.size_bytes - len(data)
        while left > 0:
            data = os.read(fd, _READ_BYTES)
            if not data:
                break
            crc = crc_of(data, crc)
            out.large(data)
            left -= len(data)
        if left or crc != wanted.crc:
            raise DataLoss(_mismatch(fd, name))
    except OSError as error:
        raise DataLoss(f"the layer's file {shown(name)} cannot be read: {error}") from error
    finally:
        os.close(fd)


def _mismatch(fd: int, name: bytes) -> str:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return f"the layer's file {shown(name)} is no regular file any more"
    return f"file integrity checksum failed for {shown(name)}: the file was changed or damaged after it was unpacked"
