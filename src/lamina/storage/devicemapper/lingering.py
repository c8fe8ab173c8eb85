"""Devices that nobody uses stay active for a moment: the next use often follows at once (a diff, a new container).

Removing a device takes the kernel 20 ms of waiting, making one again 10; done here, nobody waits for either.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

_LINGER_S = 0.25

_latest: weakref.WeakValueDictionary[str, Lingering] = weakref.WeakValueDictionary()
"""By store: who opens one that this process had open before takes its devices over."""


class Lingering:
    """The devices of one store that are to go. Thread-safe; `let_go` is called in a thread of its own."""

    def __init__(self, store: str, let_go: Callable[[str], None]) -> None:
        before = _latest.get(store)
        if before is not None:
            before.forget_all()
        _latest[store] = self
        self._let_go = let_go
        self._changed = threading.Condition()
        self._until: dict[str, float] = {}
        self._works = False

    def add(self, name: str) -> None:
        """Let the device go in a moment."""
        with self._changed:
            self._until[name] = time.monotonic() + _LINGER_S
            if not self._works:
                self._works = True
                threading.Thread(target=self._work, name="devicemapper", daemon=True).start()

    def keep(self, name: str) -> None:
        """It is used again, or removed by the caller. One that was not to go is fine."""
        with self._changed:
            self._until.pop(name, None)

    def forget_all(self) -> None:
        """Let none of them go, and wait for one that is just going."""
        with self._changed:
            self._until.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._works)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._until:
                    self._works = False
                    self._changed.notify_all()
                    return
                name, until = min(self._until.items(), key=lambda item: item[1])
                left = until - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                del self._until[name]
            try:
                self._let_go(name)
            except BaseException:
                with self._changed:
                    self._works = False
                    self._changed.notify_all()
                raise
