"""What a directory shows: a list that is made when reading begins, so that it stays whole while names come and go."""

from __future__ import annotations

import errno
import os
from itertools import count

from lamina.unionfs.branches import DT_DIR, PREFIX, branch_of, kind_of
from lamina.unionfs.nodes import Node
from lamina.unionfs.tree import Tree
from lamina.wire.fuse import replies


class OpenDirectory:
    """A directory that is being read. Entries are name, inode number, DT_ number."""

    __slots__ = ("entries", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.entries: list[tuple[bytes, int, int]] | None = None


class Listing:
    """Reads directories."""

    def __init__(self, tree: Tree, valid_s: int) -> None:
        self._tree = tree
        self._valid_s = valid_s
        self._numbers = count(1)
        self._open: dict[int, OpenDirectory] = {}

    def open(self, node: Node) -> int:
        fh = next(self._numbers)
        self._open[fh] = OpenDirectory(node)
        return fh

    def release(self, fh: int) -> None:
        self._open.pop(fh, None)

    def sync(self, node: Node) -> None:
        """Have the directory's names on the disk; a read-only branch has nothing to write."""
        if not node.upper:
            return
        with self._tree.lock:
            path, _ = self._tree.target(node)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self, fh: int, offset: int, size: int, *, plus: bool) -> bytes:
        """The entries from `offset` on, as many as fit into `size`; with `plus` each is looked up too."""
        opened = self._open.get(fh)
        if opened is None:
            raise OSError(errno.EBADF, "no such open directory")
        with self._tree.lock:
            if opened.entries is None or offset == 0:
                opened.entries = self._entries(opened.node)
            if plus:
                return self._plus(opened, offset, size)
            return self._plain(opened, offset, size)

    def _plain(self, opened: OpenDirectory, offset: int, size: int) -> bytes:
        entries = opened.entries or []
        parts: list[bytes] = []
        room = size
        dirent = replies.dirent
        for at in range(offset, len(entries)):
            name, ino, kind = entries[at]
            part = dirent(ino, at + 1, kind, name)
            room -= len(part)
            if room < 0:
                break
            parts.append(part)
        return b"".join(parts)

    def _plus(self, opened: OpenDirectory, offset: int, size: int) -> bytes:
        entries = opened.entries or []
        parts: list[bytes] = []
        room = size
        tree, node, valid_s = self._tree, opened.node, self._valid_s
        for at in range(offset, len(entries)):
            name, ino, kind = entries[at]
            room -= replies.ENTRY_BYTES + (31 + len(name)) // 8 * 8
            if room < 0:
                break
            if name in {b".", b".."}:
                parts += (replies.NO_ENTRY, replies.dirent(ino, at + 1, kind, name))
                continue
            try:
                child, found = tree.find(node, name)
                links = tree.links(child, found)
            except OSError:
                room += replies.ENTRY_BYTES + (31 + len(name)) // 8 * 8
                continue  # removed since the list was made
            child.lookups += 1
            parts += (
                replies.entry(child.nodeid, found, child.ino, links, valid_s),
                replies.dirent(child.ino, at + 1, kind, name),
            )
        return b"".join(parts)

    def _entries(self, node: Node) -> list[tuple[bytes, int, int]]:
        tree = self._tree
        parent = node.names[0][0] if node.names else node
        found = [(b".", node.ino, DT_DIR), (b"..", parent.ino, DT_DIR)]
        if not node.names and node is not tree.root:
            return found
        children = node.children
        seen = set()
        if node.upper:
            with os.scandir(tree.path(node)) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith(PREFIX):
                        continue
                    known = children.get(name)
                    found.append(
                        (name, known.ino if known is not None else tree.number_in(0, entry.inode()), kind_of(entry))
                    )
                    seen.add(name)
        if node.lowers:
            below = tree.below(node)  # also reads what is hidden
            hidden = node.hidden
            for name, entry_bits in below.names.items():
                if name not in seen and name not in hidden:
                    known = children.get(name)
                    ino = known.ino if known is not None else tree.number_in(branch_of(entry_bits), entry_bits >> 16)
                    found.append((name, ino, entry_bits & 0xF))
        return found
