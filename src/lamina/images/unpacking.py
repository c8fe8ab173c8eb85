"""Spools unpacked by worker processes, while they still grow (blocking)."""

from __future__ import annotations

import contextlib
import os
import select

from lamina.images.spool import Spool
from lamina.layers.pool import WorkerPool
from lamina.layers.store import StagedLayer
from lamina.layers.unpack import Unpacked

_PIECE_BYTES = 1 << 20


class SpoolUnpacker:
    """Gives what a spool brings to a worker process. Thread-safe."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    @property
    def side_by_side(self) -> int:
        """How many make sense at once: each keeps more than one processor core busy."""
        return max(2, self._pool.size - 1)

    def __call__(self, spool: Spool, staged: StagedLayer, /) -> Unpacked:
        """Unpack into a staged layer.

        Raises:
            What `lamina.layers.unpack.unpack` raises. DataLoss: the spool was abandoned.
        """
        job = self._pool.unpack(staged.target)
        try:
            with contextlib.suppress(BrokenPipeError):  # it gave up early: the result says why
                _pour(spool, job.stdin_fd)
        except BaseException:
            job.kill()
            raise
        return job.result()


def _pour(spool: Spool, pipe: int) -> None:
    """Hand over the pages of the file to the pipe without copying them."""
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    at = 0
    while (there := spool.wait_beyond(at)) > at:
        try:
            at += os.splice(spool.fileno(), pipe, min(there - at, _PIECE_BYTES), offset_src=at)
        except BlockingIOError:
            poll.poll()
