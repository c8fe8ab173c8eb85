"""Reading an image archive once, as it streams in (blocking).

The small files that say what the archive holds are kept; everything that looks like a layer goes to a sink as it comes,
because most archives tell only at their end which layers belong to which image. Source: moby image/tarexport/load.go
for what dockerd accepts; both of its layouts, OCI layouts, each plain or compressed as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from lamina.changeset.compression import Compression, decompressed, sniff
from lamina.changeset.entry import Entry, EntryKind
from lamina.changeset.tarcodec import TarLimits, TarReader
from lamina.errors import DataLoss, UnsafeArchive
from lamina.images.archive_names import BLOCK, clean_name, is_tar_header, link_target

MAX_DOCUMENT_BYTES = 4 << 20
MAX_DOCUMENTS_BYTES = 32 << 20
MAX_LAYERS = 2000
_LIMITS = TarLimits(entries=200_000)
_MAX_HOPS = 16


class LayerIntake(Protocol):
    """Takes the bytes of one layer: pieces, then `done`; `abandon` instead when they will not all come."""

    def write(self, piece: memoryview) -> None: ...
    def done(self) -> None: ...
    def abandon(self) -> None: ...


class LayerSink(Protocol):
    """Takes layers, one after the other."""

    def begin(self, name: str, size_bytes: int) -> LayerIntake | None:
        """The layer called `name` in the archive follows, `size_bytes` long; None when its bytes are not needed."""


@dataclass(slots=True)
class Contents:
    """What an archive held: small files by clean name, and what its links mean."""

    documents: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    layers: set[str] = field(default_factory=set)

    def resolve(self, name: str) -> str:
        """The name behind the archive's own links. Raises UnsafeArchive when they go round in circles."""
        for _ in range(_MAX_HOPS):
            target = self.links.get(name)
            if target is None:
                return name
            name = target
        raise UnsafeArchive(f"the links at {name!r} in the image archive lead nowhere")


def take_in(chunks: Iterator[bytes], sink: LayerSink) -> Contents:
    """Read a whole archive: layers to the sink, the rest comes back.

    Raises:
        InvalidArgument, UnsafeArchive, DataLoss: no archive, a broken one, or one that breaks a limit; the sink may
            have taken some layers by then.
    """
    plain = decompressed(chunks)
    reader = TarReader(plain, _LIMITS)
    contents = Contents()
    kept_bytes = 0
    while (entry := reader.next_entry()) is not None:
        reader.take_framing()
        if entry.kind is EntryKind.GLOBAL_HEADER:
            continue
        name = clean_name(_text(entry.name))
        if entry.kind in {EntryKind.SYMLINK, EntryKind.HARD_LINK}:
            contents.links[name] = _target(entry, name)
        elif entry.kind is EntryKind.FILE and not entry.is_sparse:
            kept_bytes += _take_file(reader, entry, name, contents, sink)
            if kept_bytes > MAX_DOCUMENTS_BYTES:
                raise UnsafeArchive(f"the image archive holds more than {MAX_DOCUMENTS_BYTES} bytes beside layers")
    for _ in reader.rest():
        pass  # whoever sends the archive is not to be cut off
    return contents


def _take_file(reader: TarReader, entry: Entry, name: str, contents: Contents, sink: LayerSink) -> int:
    # A name that comes twice: the later one counts, as when the archive is unpacked over itself.
    contents.links.pop(name, None)
    pieces = reader.pieces()
    head = bytearray()
    wanted = min(BLOCK, entry.stored_bytes)
    while len(head) < wanted:
        head += next(pieces)
    if not _looks_like_layer(bytes(head[:BLOCK])):
        return _keep(pieces, bytes(head), entry, name=name, contents=contents)
    if len(contents.layers) >= MAX_LAYERS:
        raise UnsafeArchive(f"the image archive holds more than {MAX_LAYERS} layers")
    contents.layers.add(name)
    intake = sink.begin(name, entry.stored_bytes)
    if intake is None:
        return 0
    try:
        intake.write(memoryview(head))
        for piece in pieces:
            intake.write(piece)
    except BaseException:
        intake.abandon()
        raise
    intake.done()
    return 0


def _keep(pieces: Iterator[memoryview], head: bytes, entry: Entry, *, name: str, contents: Contents) -> int:
    if entry.stored_bytes > MAX_DOCUMENT_BYTES:
        # Not ours to read (an attestation, somebody's note); the next header skips what is left of it.
        return 0
    body = b"".join((head, *pieces))
    if len(body) != entry.stored_bytes:
        raise DataLoss(f"the image archive ends in the middle of {name!r}")
    contents.documents[name] = body
    return len(body)


def _looks_like_layer(head: bytes) -> bool:
    if is_tar_header(head) or sniff(head) is not Compression.NONE:
        return True
    # The tar of a layer that changes nothing is zeros.
    return len(head) == BLOCK and not any(head)


def _target(entry: Entry, name: str) -> str:
    target = _text(entry.link)
    # A hard link names another entry from the archive's root; a symlink counts from where it is.
    return clean_name(target) if entry.kind is EntryKind.HARD_LINK else link_target(name, target)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
