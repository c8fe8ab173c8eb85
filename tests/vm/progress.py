"""One line per slow step, on standard error, with the time it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def step(what: str) -> Iterator[None]:
    began = time.monotonic()
    print(f"vm: {what} …", file=sys.stderr, flush=True)
    yield
    print(f"vm: {what}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
