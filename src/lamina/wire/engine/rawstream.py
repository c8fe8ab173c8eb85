"""The frames that carry stdout and stderr side by side (pure).

Source: Engine API, "Stream format": one byte of stream, three zero bytes, four bytes of length, big-endian.
"""

from __future__ import annotations

import struct

STDIN, STDOUT, STDERR, SYSTEM_ERROR = 0, 1, 2, 3

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"

_HEADER = struct.Struct(">BxxxL")
HEADER_BYTES = _HEADER.size
MAX_FRAME_BYTES = 1 << 20


def frame(stream: int, data: bytes) -> bytes:
    """One frame, or several when the data is long; nothing for no data."""
    if len(data) <= MAX_FRAME_BYTES:
        return _HEADER.pack(stream, len(data)) + data if data else b""
    return b"".join(frame(stream, data[at : at + MAX_FRAME_BYTES]) for at in range(0, len(data), MAX_FRAME_BYTES))


class Deframer:
    """Bytes of a multiplexed stream in, whole frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are complete now."""
        self._buffer += data
        found: list[tuple[int, bytes]] = []
        while len(self._buffer) >= HEADER_BYTES:
            stream, length = _HEADER.unpack_from(self._buffer)
            end = HEADER_BYTES + length
            if len(self._buffer) < end:
                break
            found.append((stream, bytes(self._buffer[HEADER_BYTES:end])))
            del self._buffer[:end]
        return found
