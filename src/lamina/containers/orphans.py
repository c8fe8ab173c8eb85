"""Processes that nobody else collects (async).

The daemon is a subreaper: children of execs in the host's process namespace and failed monitors become its own.
"""

from __future__ import annotations

import asyncio
import logging

from lamina.kernel import pidfd
from lamina.workers import Workers

_LOG = logging.getLogger(__name__)


async def collect_orphans(workers: Workers, every_s: float) -> None:
    """Look for ever. Whoever knows a child collects it at once: one that is a zombie at two looks is nobody's."""
    before: frozenset[int] = frozenset()
    while True:
        await asyncio.sleep(every_s)
        try:
            now = await workers.call(pidfd.zombie_children)
        except OSError as error:  # out of descriptors: there is a next look
            _LOG.warning("orphaned processes cannot be looked for: %s", error)
            continue
        for pid in now & before:
            pidfd.collect_child(pid)
        before = now
