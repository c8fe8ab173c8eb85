"""A full disk gets its meaning where it is known what did not fit (blocking: knows errno)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from lamina.errors import StorageFull

_NO_ROOM = {errno.ENOSPC: "no space or no inodes are left", errno.EDQUOT: "the quota is used up"}


@contextmanager
def needing_room(what: str) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT inside the block into `StorageFull`, saying that there is no room for `what`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StorageFull(
            f"no room for {what}: {_NO_ROOM[error.errno]} on the file system of the data root",
            hint="remove images or containers that are no longer needed",
        ) from error
