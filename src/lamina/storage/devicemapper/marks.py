"""What Docker does not keep: which layers are sealed, and whose children they are (blocking).

`sealed/<id>` (empty) and `parents/<id>` (the parent's id) lie beside Docker's files; dockerd ignores both. They may lag
behind after a power cut: the layer store seals again what its records name.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from lamina.ids import CacheId
from lamina.kernel.durable import make_dirs, write_file_lazy


class Marks:
    """The marks of one store. Not thread-safe: the driver's lock is held."""

    def __init__(self, home: Path, present: Collection[CacheId]) -> None:
        """Read the marks of the layers that are there; those of others go (dockerd may have removed some)."""
        self._sealed_dir, self._parents_dir = home / "sealed", home / "parents"
        for directory in (self._sealed_dir, self._parents_dir):
            make_dirs(directory, 0o700)
            for name in os.listdir(directory):
                if name not in present:
                    os.unlink(directory / name)
        self._sealed = {CacheId(name) for name in os.listdir(self._sealed_dir)}
        self._parents: dict[CacheId, CacheId] = {}
        for name in os.listdir(self._parents_dir):
            parent = CacheId((self._parents_dir / name).read_text(encoding="ascii", errors="replace").strip())
            if parent in present:
                self._parents[CacheId(name)] = parent
        for cache_id in present:  # a container that dockerd made tells its init layer by its name
            init = CacheId(f"{cache_id}-init")
            if init in present:
                self._parents.setdefault(cache_id, init)

    def is_sealed(self, cache_id: CacheId) -> bool:
        return cache_id in self._sealed

    def seal(self, cache_id: CacheId) -> None:
        """Again is fine."""
        if cache_id not in self._sealed:
            write_file_lazy(self._sealed_dir / cache_id, b"")
            self._sealed.add(cache_id)

    def parent(self, cache_id: CacheId) -> CacheId | None:
        return self._parents.get(cache_id)

    def children(self, cache_id: CacheId) -> int:
        """How many layers have this one as their parent."""
        return sum(parent == cache_id for parent in self._parents.values())

    def note_parent(self, cache_id: CacheId, parent: CacheId) -> None:
        write_file_lazy(self._parents_dir / cache_id, parent.encode("ascii"))
        self._parents[cache_id] = parent

    def forget(self, cache_id: CacheId) -> None:
        """Again is fine."""
        self._sealed.discard(cache_id)
        self._parents.pop(cache_id, None)
        for directory in (self._sealed_dir, self._parents_dir):
            with suppress(FileNotFoundError):
                os.unlink(directory / cache_id)
