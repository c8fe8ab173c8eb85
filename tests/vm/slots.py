"""At most two virtual machines at a time on this machine, whoever starts them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.vm import cache

SLOTS = 2


@contextmanager
def slot() -> Iterator[int]:
    """A slot, waited for in line: a descriptor whose holders, children included, keep the slot until the last ends."""
    with cache.held(cache.root() / ".slots.lock"):  # the first in line; the kernel wakes the others in their order
        file = _first_free()
    try:
        yield file
    finally:
        os.close(file)


def _first_free() -> int:
    while True:
        for number in range(SLOTS):
            file = os.open(cache.root() / f".slot-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
            else:
                return file
        time.sleep(0.2)
