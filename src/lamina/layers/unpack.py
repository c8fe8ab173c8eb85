"""A layer archive made into a directory in one pass over its bytes (blocking).

While the stream is read once, come out: its digest, the digest of the plain tar (the diff id), the tar-split record,
and the files in their places. Reading, hashing and decompressing run in a second thread, ahead of the writing: all
three let go of the interpreter lock.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lamina.changeset.compression import DEFAULT_LIMITS as STREAM_LIMITS
from lamina.changeset.compression import StreamLimits, decompressed
from lamina.changeset.entry import Entry, EntryKind
from lamina.changeset.tarcodec import DEFAULT_LIMITS as TAR_LIMITS
from lamina.changeset.tarcodec import TarLimits, TarReader
from lamina.changeset.tarsplit import TarSplitWriter
from lamina.changeset.whiteout import WhiteoutDialect
from lamina.errors import DigestMismatch, SizeMismatch, StorageFull
from lamina.oci.digest import DiffId, Digest
from lamina.rootfs.apply import TreeWriter

_READ_BYTES = 1 << 18
_QUEUED_CHUNKS = 8


@dataclass(frozen=True, slots=True)
class UnpackTarget:
    """Where a layer goes.

    `directory` gets the files; `tar_split` is the file to make for the framing. `dialect` says what whiteouts become in
    `directory`; NONE when it holds the whole merged tree.
    """

    directory: Path
    tar_split: Path
    dialect: WhiteoutDialect


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was learned from the stream.

    `digest` and `stream_bytes` are of the bytes as they came (compressed), `diff_id` and `tar_bytes` of the plain tar.
    `layer_bytes` is what Docker calls the layer's size: the directory's for own changes, the headers' sum for a merged
    tree.
    """

    diff_id: DiffId
    digest: Digest
    stream_bytes: int
    tar_bytes: int
    layer_bytes: int
    entries: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may ask for before it counts as an attack."""

    stream: StreamLimits = STREAM_LIMITS
    tar: TarLimits = TAR_LIMITS


class Readable(Protocol):
    """Anything with a `read` that gives b"" at the end."""

    def read(self, size: int, /) -> bytes: ...


def unpack(
    stream: Readable,
    target: UnpackTarget,
    *,
    expected_digest: Digest | None = None,
    expected_bytes: int | None = None,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> Unpacked:
    """Unpack a layer archive, compressed in any known way or not at all.

    `progress` is called with the number of stream bytes read so far, from another thread. After an error the target
    holds rubbish that the caller throws away.

    Raises:
        DigestMismatch, SizeMismatch: the stream is not what was announced.
        InvalidArgument: no valid archive. UnsafeArchive: one that breaks out or breaks a limit.
        DataLoss: the stream ends early.
        StorageFull: no room.
    """
    bounds = limits or Limits()
    source = _Source(stream, expected_bytes, progress)
    try:
        with _Ahead(source.plain(bounds.stream)) as plain:
            entries, layer_bytes = _spread(plain, target, bounds.tar)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull(f"no space left on device while a layer was unpacked into {target.directory}") from error
        raise
    source.check(expected_digest)
    return Unpacked(
        diff_id=source.diff_id(),
        digest=source.digest(),
        stream_bytes=source.stream_bytes,
        tar_bytes=source.tar_bytes,
        layer_bytes=layer_bytes,
        entries=entries,
    )


class _Source:
    """The stream on its way to plain bytes: counted and hashed on both sides of the decompression."""

    def __init__(self, stream: Readable, expected_bytes: int | None, progress: Callable[[int], None] | None) -> None:
        self._stream = stream
        self._expected_bytes = expected_bytes
        self._progress = progress
        self._packed_hash = hashlib.sha256()
        self._plain_hash = hashlib.sha256()
        self._is_plain = True
        self.stream_bytes = 0
        self.tar_bytes = 0

    def plain(self, limits: StreamLimits) -> Iterator[bytes]:
        for chunk in decompressed(self._packed(), limits):
            self._plain_hash.update(chunk)
            self.tar_bytes += len(chunk)
            yield chunk

    def diff_id(self) -> DiffId:
        return DiffId(Digest("sha256:" + self._plain_hash.hexdigest()))

    def digest(self) -> Digest:
        return Digest("sha256:" + self._packed_hash.hexdigest())

    def check(self, expected: Digest | None) -> None:
        if self._expected_bytes is not None and self.stream_bytes != self._expected_bytes:
            raise SizeMismatch(f"the layer has {self.stream_bytes} bytes, {self._expected_bytes} were announced")
        if expected is not None and self.digest() != expected:
            raise DigestMismatch(f"the layer has the digest {self.digest()}, {expected} was announced")

    def _packed(self) -> Iterator[bytes]:
        while chunk := self._stream.read(_READ_BYTES):
            self.stream_bytes += len(chunk)
            if self._expected_bytes is not None and self.stream_bytes > self._expected_bytes:
                raise SizeMismatch(f"the layer has more than the {self._expected_bytes} bytes that were announced")
            self._packed_hash.update(chunk)
            if self._progress is not None:
                self._progress(self.stream_bytes)
            yield chunk


class _Ahead:
    """An iterator that is run by a thread of its own, a few chunks ahead. Leaving the `with` stops it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_QUEUED_CHUNKS)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="unpack-read", daemon=True)

    def __enter__(self) -> Iterator[bytes]:
        self._thread.start()
        return self._items()

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        while self._thread.is_alive():
            try:  # the thread may be waiting for room
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def _items(self) -> Iterator[bytes]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        try:
            for chunk in self._chunks:
                if self._stopped:
                    return
                self._queue.put(chunk)
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads
            self._queue.put(error)


def _spread(plain: Iterator[bytes], target: UnpackTarget, limits: TarLimits) -> tuple[int, int]:
    """Write files and framing; the number of entries and the layer's size."""
    reader = TarReader(plain, limits)
    split = TarSplitWriter()
    entries = 0
    with open(target.tar_split, "xb") as record, TreeWriter(target.directory, target.dialect) as tree:
        while (entry := reader.next_entry()) is not None:
            entries += 1
            split.raw(reader.take_framing())
            _place(entry, reader, tree, split)
            ready = split.take()
            if ready:
                record.write(ready)
        split.raw(reader.take_framing())
        for rest in reader.rest():
            split.raw(rest)
        tree.finish()
        record.write(split.finish())
        record.flush()
        os.fchmod(record.fileno(), 0o644)
        os.fsync(record.fileno())
        if target.dialect is WhiteoutDialect.NONE:
            return entries, tree.header_bytes
        return entries, directory_bytes(target.directory) if tree.replaced else tree.file_bytes


def _place(entry: Entry, reader: TarReader, tree: TreeWriter, split: TarSplitWriter) -> None:
    if tree.is_plain_file(entry):
        split.file(entry.name, entry.size_bytes, tree.write_file(entry, reader))
        return
    # A second global header with the same name is only framing; anything else may come once.
    if entry.kind is not EntryKind.GLOBAL_HEADER or not split.has(entry.name):
        split.file(entry.name, 0, 0)
    if not entry.stored_bytes:
        tree.write(entry, iter(()))
        return
    tree.write(entry, _kept(reader.pieces(), split))


def _kept(pieces: Iterator[memoryview], split: TarSplitWriter) -> Iterator[memoryview]:
    """Bodies that no file will give back go into the framing."""
    for piece in pieces:
        split.raw(piece)
        yield piece


def directory_bytes(directory: Path) -> int:
    """Sum of the sizes of everything that is no directory, each inode once."""
    seen: set[int] = set()
    total = 0
    for _, directories, files, fd in os.fwalk(directory):
        for name in directories + files:  # symlinks to directories are among the directories
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode) and found.st_ino not in seen:
                total += found.st_size
                if found.st_nlink > 1:
                    seen.add(found.st_ino)
    return total
