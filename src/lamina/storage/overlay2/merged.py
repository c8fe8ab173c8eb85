"""Merged layers: what lies at the bottom of a deep stack, as one directory of hard links (blocking).

overlay takes as many lower directories as fit into a page of options, and dockerd stops at 125 layers. A deeper stack
gets a merged layer instead of its lowest entries: `<home>/<id>-merged`, which shows what the layer `<id>` and all below
it show. To dockerd it is a base layer like any other, which no record names, so it leaves it alone. It is found again
through the `lower` files that end with it, and goes with the last of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from lamina.ids import CacheId, random_id
from lamina.kernel.durable import sync_filesystem
from lamina.rootfs.merge import OverlayMarks, merge_stack
from lamina.rootfs.remove import remove_tree
from lamina.storage.overlay2 import links
from lamina.storage.overlay2.records import (
    MERGED_SUFFIX,
    REMOVING_PREFIX,
    Record,
    link_place,
    lower_directories,
    read_record,
    write_small,
)

LONGEST_STACK = 126
"""Entries of a `lower` string: with these, dockerd can still put an init layer and a container on top."""
_KEPT = 63
"""Entries that stay as they are when a stack has become too long: the next merge is as many layers away."""


class MergedLayers:
    """The merged layers of one home, and the layers that stand on each. Thread-safe."""

    def __init__(self, home: Path, marks: OverlayMarks) -> None:
        self._home = home
        self._marks = marks
        self._lock = threading.Lock()
        self._ids: dict[str, CacheId] = {}  # short name of a merged layer → its id
        self._users: dict[str, set[str]] = {}  # the same → short names of the layers that stand on it

    def cache_ids(self) -> frozenset[CacheId]:
        with self._lock:
            return frozenset(self._ids.values())

    def load(self, records: Iterable[Record]) -> None:
        """Find what there is; what was never finished, and what nobody stands on any more, is removed."""
        for name in os.listdir(self._home):
            if not name.endswith(MERGED_SUFFIX):
                continue
            found = read_record(os.fspath(self._home), CacheId(name))
            if found is not None and found.sealed and found.link:
                self._ids[found.link] = found.cache_id
            else:
                remove_tree(self._home / name)
        for record in records:
            if record.link:
                self.join(record)
        for link in [link for link in self._ids if not self._users.get(link)]:
            self._remove(link)

    def join(self, record: Record) -> None:
        """Count a layer whose `lower` is known among the users of the merged layer it ends with, if it does."""
        with self._lock:
            self._join(record.lower, record.link)

    def leave(self, lower: str, user: str) -> None:
        """A layer is gone: so is the merged layer that it was the last user of. Twice is fine."""
        with self._lock:
            last = _last(lower)
            users = self._users.get(last)
            if users is None or user not in users:
                return
            users.discard(user)
            if not users:
                self._remove(last)

    def fitted(self, lower: str, user: str) -> str:
        """The `lower` string, shortened if it is too long, for the layer with the short name `user`, which joins.

        Raises:
            Unsupported: the layers cannot be merged.
            OSError: merging failed; nothing is left of it.
        """
        with self._lock:
            entries = links.lower_links(lower)
            if len(entries) > LONGEST_STACK:
                bottom = self._merged(entries[_KEPT:])
                lower = links.joined((*entries[:_KEPT], bottom))
            self._join(lower, user)
            return lower

    def _join(self, lower: str, user: str) -> None:
        last = _last(lower)
        if last in self._ids:
            self._users.setdefault(last, set()).add(user)

    def _merged(self, entries: tuple[str, ...]) -> str:
        """The short name of the merged layer for a stack, made if there is none yet."""
        stack = lower_directories(self._home, entries)
        cache_id = CacheId(stack[0].parent.name + MERGED_SUFFIX)
        for link, known in self._ids.items():
            if known == cache_id:
                return link
        link = links.short_link(os.urandom(17))
        directory = self._home / cache_id
        remove_tree(directory)
        with ExitStack() as undo:
            undo.callback(remove_tree, directory)
            directory.mkdir(0o710)
            directory.chmod(0o710)
            (directory / "diff").mkdir(0o755)
            merge_stack(stack, directory / "diff", self._marks)
            place = link_place(os.fspath(self._home), link)
            os.symlink(f"../{cache_id}/diff", place)
            undo.callback(os.unlink, place)
            self._write_records(directory, link)
            undo.pop_all()
        self._ids[link] = cache_id
        return link

    def _write_records(self, directory: Path, link: str) -> None:
        """`committed` comes last, after everything else is on disk: it says that the layer is whole."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            write_small(fd, "link", link, 0o644)
            sync_filesystem(self._home)
            write_small(fd, "committed", "", 0o600)
        finally:
            os.close(fd)

    def _remove(self, link: str) -> None:
        """The lock is held, so the directory leaves by a rename; its files go outside of anybody's way."""
        cache_id = self._ids.pop(link)
        self._users.pop(link, None)
        with suppress(FileNotFoundError):
            os.unlink(link_place(os.fspath(self._home), link))
        leaving = self._home / f"{REMOVING_PREFIX}{random_id()}"
        with suppress(FileNotFoundError):
            os.rename(self._home / cache_id, leaving)
        remove_tree(leaving)


def _last(lower: str) -> str:
    return lower.rpartition(f"{links.LINK_DIR}/")[2]
