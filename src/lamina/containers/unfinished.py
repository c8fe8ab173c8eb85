"""Which containers are being made: a note for each, so that a daemon that is killed leaves nothing of them (blocking).

The record of a container comes last. Before it there is a writable layer, and there are anonymous volumes, that no
record names; the note names them. It is a file beside the containers' directories, which dockerd passes over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lamina.ids import ContainerId

_PREFIX = ".making-"
_NAME = re.compile(r"[0-9a-f]{64}")
_MAX_NOTE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Interrupted:
    """What a creation that was never finished may have left: a writable layer of this name, and these volumes."""

    container_id: ContainerId
    volumes: tuple[str, ...]


class Unfinished:
    """The notes of one directory. They are not synced: after a loss of power there may be garbage, never a loss."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def begin(self, container_id: ContainerId) -> None:
        """Call it before anything of the container is made."""
        os.close(os.open(self._place(container_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def add_volume(self, container_id: ContainerId, name: str) -> None:
        """Call it before the anonymous volume is made."""
        with self._place(container_id).open("a", encoding="ascii") as note:
            note.write(f"{name}\n")

    def end(self, container_id: ContainerId) -> None:
        """The container has its record, or nothing is left of it. Again is fine."""
        self._place(container_id).unlink(missing_ok=True)

    def interrupted(self) -> Iterator[Interrupted]:
        """Creations without a record. The caller removes what they left, then calls `end`."""
        for entry in sorted(os.listdir(self._directory)):
            container_id = ContainerId(entry.removeprefix(_PREFIX))
            if container_id == entry or not _NAME.fullmatch(container_id):
                continue
            if (self._directory / container_id).exists():
                self.end(container_id)
                continue
            yield Interrupted(container_id, self._volumes(container_id))

    def _volumes(self, container_id: ContainerId) -> tuple[str, ...]:
        with self._place(container_id).open(encoding="ascii", errors="replace") as note:
            names = note.read(_MAX_NOTE_BYTES).splitlines()
        return tuple(name for name in names if _NAME.fullmatch(name))

    def _place(self, container_id: ContainerId) -> Path:
        return self._directory / f"{_PREFIX}{container_id}"
