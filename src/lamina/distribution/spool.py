"""A blob on its way out: kept in a nameless file until the registry has it (blocking)."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from lamina.errors import StorageFull
from lamina.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Spooled:
    """The blob's bytes in a file that has no name; it is gone when it is closed."""

    file: IO[bytes]
    digest: Digest
    size_bytes: int

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; b"" at the end. Moves no position: several may read."""
        return os.pread(self.file.fileno(), size, offset)

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def spool(pieces: Iterator[bytes], directory: Path) -> Spooled:
    """Keep what comes, on the file system of `directory`.

    Raises:
        StorageFull: there is no room.
    """
    file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - the caller closes it
    try:
        hashing, size = hashlib.sha256(), 0
        for piece in pieces:
            file.write(piece)
            hashing.update(piece)
            size += len(piece)
        file.flush()
    except OSError as error:
        file.close()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left on device while a layer was made ready in {directory}") from error
        raise
    except BaseException:
        file.close()
        raise
    return Spooled(file, Digest(f"sha256:{hashing.hexdigest()}"), size)
