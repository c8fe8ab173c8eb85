"""Compressed streams of layers: told apart by their first bytes, taken apart within limits (pure).

Everything is an iterator of byte strings: compressed chunks of any size in, chunks of at most 1 MiB out.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import IO, Protocol, cast

import zstandard
from isal import igzip_lib, isal_zlib

from lamina.errors import DataLoss, InvalidArgument, UnsafeArchive

OUTPUT_BYTES = 1 << 20
_BROKEN_GZIP = cast("type[Exception]", igzip_lib.IsalError)  # its stub says it is an instance
_XZ_MEMORY_BYTES = 256 << 20
_ZSTD_WINDOW_BYTES = 128 << 20
"""What `zstd -d` takes without being told otherwise."""


class Compression(Enum):
    """How a stream is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


_MAGIC = (
    (b"\x1f\x8b", Compression.GZIP),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
    (b"BZh", Compression.BZIP2),
    (b"\xfd7zXZ\x00", Compression.XZ),
)
MAGIC_BYTES = 6


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """When a stream counts as a bomb.

    At most `output_bytes` come out; and once more than `free_bytes` have come out, at most `ratio` times what went in:
    real layers of zeros compress a thousandfold, but they are not large.
    """

    output_bytes: int = 1 << 40
    free_bytes: int = 2 << 30
    ratio: int = 200


DEFAULT_LIMITS = StreamLimits()


class _Decoder(Protocol):
    """One member of a stream; the shape that bz2, lzma and isal share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


_DECODERS: dict[Compression, Callable[[], _Decoder]] = {
    Compression.GZIP: lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
    Compression.BZIP2: bz2.BZ2Decompressor,
    Compression.XZ: lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES),
}


def sniff(head: bytes) -> Compression:
    """The compression of a stream that begins with `head` (its first 6 bytes, fewer if it is shorter)."""
    for magic, compression in _MAGIC:
        if head.startswith(magic):
            return compression
    return Compression.NONE


def decompressed(chunks: Iterator[bytes], limits: StreamLimits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """The plain bytes of a stream in any of the known compressions, or none. Members and frames are joined.

    Raises:
        InvalidArgument: not a valid stream of its kind.
        DataLoss: the stream ends in the middle.
        UnsafeArchive: more comes out than `limits` allow.
    """
    counted = _Counted(chunks)
    compression = counted.sniff()
    taken = 0
    for piece in _plain(counted, compression):
        taken += len(piece)
        if taken > limits.output_bytes:
            raise UnsafeArchive(f"the archive unpacks to more than {limits.output_bytes} bytes")
        if taken > limits.free_bytes and taken > limits.ratio * counted.given_bytes:
            raise UnsafeArchive(
                f"the archive unpacks to more than {limits.ratio} times its size: it looks like a decompression bomb"
            )
        yield piece


def gzipped(chunks: Iterator[bytes], level: int = 2) -> Iterator[bytes]:
    """Compress into one gzip member without name or time. `level` is isal's: 0 (fast) to 3."""
    encoder = isal_zlib.compressobj(level, isal_zlib.DEFLATED, 31)
    for chunk in chunks:
        packed = encoder.compress(chunk)
        if packed:
            yield packed
    yield encoder.flush()


class _Counted:
    """Chunks with a look at the first bytes, and a count of what was given out."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._head = b""
        self.given_bytes = 0

    def sniff(self) -> Compression:
        while len(self._head) < MAGIC_BYTES:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._head += chunk
        return sniff(self._head)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk, self._head = self._head, b""
        while not chunk:
            chunk = next(self._chunks)
        self.given_bytes += len(chunk)
        return chunk

    def read(self, size: int = -1) -> bytes:
        """For zstandard: at most `size` bytes, nothing at the end."""
        chunk = next(self, b"")
        if 0 <= size < len(chunk):
            self._head = chunk[size:]
            self.given_bytes -= len(self._head)
            chunk = chunk[:size]
        return chunk


def _plain(chunks: _Counted, compression: Compression) -> Iterator[bytes]:
    match compression:
        case Compression.NONE:
            return iter(chunks)
        case Compression.ZSTD:
            return _zstd(chunks)
        case _:
            return _members(chunks, compression)


def _members(chunks: Iterator[bytes], compression: Compression) -> Iterator[bytes]:
    """Members one after the other, as gzip, bzip2 and xz files may hold them; zero padding may follow the last."""
    start = _DECODERS[compression]
    decoder: _Decoder | None = None
    finished = 0
    for chunk in chunks:
        data = chunk
        while data or (decoder is not None and not decoder.needs_input):
            if decoder is None:
                data = data.lstrip(b"\0") if finished else data
                if not data:
                    break
                decoder = start()
            piece = _decode(decoder, data, compression)
            if piece:
                yield piece
            data = b""
            if decoder.eof:
                data, decoder, finished = decoder.unused_data, None, finished + 1
    if decoder is not None:
        raise DataLoss(f"the {compression.value} stream ends in the middle")


def _decode(decoder: _Decoder, data: bytes, compression: Compression) -> bytes:
    try:
        return decoder.decompress(data, OUTPUT_BYTES)
    except (_BROKEN_GZIP, lzma.LZMAError, OSError, ValueError, EOFError) as error:
        raise InvalidArgument(f"the stream is not valid {compression.value}: {error}") from error


def _zstd(source: _Counted) -> Iterator[bytes]:
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    with decoder.stream_reader(cast("IO[bytes]", source), read_size=1 << 18, read_across_frames=True) as reader:
        while True:
            try:
                piece = reader.read(OUTPUT_BYTES)
            except zstandard.ZstdError as error:
                raise InvalidArgument(f"the stream is not valid zstd: {error}") from error
            if not piece:
                return
            yield piece
