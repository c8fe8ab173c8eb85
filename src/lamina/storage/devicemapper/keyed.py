"""One lock per name, for as long as somebody wants it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Wanted:
    lock: threading.RLock = field(default_factory=threading.RLock)
    threads: int = 0


class KeyedLocks:
    """Locks that a thread may take again. Several at once are taken in the order of their names: no deadlock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[str, _Wanted] = {}

    @contextmanager
    def locked(self, *names: str) -> Iterator[None]:
        with ExitStack() as stack:
            for name in sorted(names):
                stack.enter_context(self._one(name))
            yield

    @contextmanager
    def _one(self, name: str) -> Iterator[None]:
        with self._lock:
            wanted = self._wanted.setdefault(name, _Wanted())
            wanted.threads += 1
        try:
            with wanted.lock:
                yield
        finally:
            with self._lock:
                wanted.threads -= 1
                if not wanted.threads:
                    del self._wanted[name]
