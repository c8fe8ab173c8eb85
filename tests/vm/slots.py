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
    """A slot, waited for: a descriptor whose holders, children included, hold it until the last of them ends."""
    places = [cache.root() / f".slot-{number}.lock" for number in range(SLOTS)]
    cache.root().mkdir(parents=True, exist_ok=True)
    while True:
        for place in places:
            file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            try:
                yield file
            finally:
                os.close(file)
            return
        time.sleep(0.2)
