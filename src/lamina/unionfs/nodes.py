"""What the kernel knows by number: nodes, their names, and when they may be forgotten.

A node is one file or directory of the union for as long as the kernel, an open file or a node below it needs it. It is
known by its names (a directory and a name in it), not by a path: a directory that moves takes everything below along.
"""

from __future__ import annotations

import os
import stat
from itertools import count

from lamina.unionfs.branches import Below
from lamina.wire.fuse import opcodes


class Node:
    """One file or directory.

    `upper`: it lies in the writable branch (too). `branch`: where its attributes and data are. `lowers`: for a
    directory, the read-only branches that may show in it. `names`: aliases, none when it is removed; then `keeper` is
    a descriptor of it. The fields from `below` on belong to directories and are read when they are first needed.
    """

    __slots__ = (
        "backing_id", "below", "branch", "cached_opens", "children", "clean", "default_acl", "handles", "hidden",
        "identity", "ino", "keeper", "kind", "lookups", "lowers", "names", "nodeid", "over", "passed_opens",
        "relative", "relative_epoch", "upper", "xattrs",
    )  # fmt: skip

    def __init__(self, nodeid: int, ino: int, kind: int, *, upper: bool, branch: int, lowers: tuple[int, ...]) -> None:
        self.nodeid = nodeid
        self.ino = ino
        self.kind = kind
        self.upper = upper
        self.branch = branch
        self.lowers = lowers
        self.names: list[tuple[Node, bytes]] = []
        self.lookups = 0
        self.keeper = -1
        self.identity: tuple[int, int] | None = None
        self.xattrs: frozenset[str] | None = None
        self.relative = b""
        self.relative_epoch = -1
        # open files
        self.handles: list[Handle] = []
        self.cached_opens = 0
        self.passed_opens = 0
        self.backing_id = 0
        self.clean = True
        # directories
        self.children: dict[bytes, Node] = {}
        self.below: Below | None = None
        self.hidden: set[bytes] = set()
        self.over: set[bytes] = set()
        self.default_acl: bool | None = None

    @property
    def is_directory(self) -> bool:
        return self.kind == stat.S_IFDIR

    @property
    def is_file(self) -> bool:
        return self.kind == stat.S_IFREG


class Handle:
    """One open file. `passed`: the kernel does the reading and writing."""

    __slots__ = ("fd", "node", "passed", "writes")

    def __init__(self, fd: int, node: Node, *, passed: bool, writes: bool) -> None:
        self.fd = fd
        self.node = node
        self.passed = passed
        self.writes = writes


class NodeTable:
    """All nodes. Whoever calls holds the lock of the tree."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self._by_id: dict[int, Node] = {root.nodeid: root}
        self._by_identity: dict[tuple[int, int], Node] = {}
        self._ids = count(opcodes.ROOT_ID + 1)
        self._epoch = 0
        root.relative_epoch = 0
        root.lookups = 1

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, nodeid: int) -> Node | None:
        return self._by_id.get(nodeid)

    def add(self, ino: int, kind: int, *, upper: bool, branch: int, lowers: tuple[int, ...] = ()) -> Node:
        """A node that has no name yet."""
        node = Node(next(self._ids), ino, kind, upper=upper, branch=branch, lowers=lowers)
        self._by_id[node.nodeid] = node
        return node

    def relative(self, node: Node) -> bytes:
        """The path of a node that has a name: empty for the root, else it begins with a slash."""
        if node.relative_epoch == self._epoch or node is self.root:
            return node.relative
        if not node.names:
            raise FileNotFoundError(2, "the node has no name")
        parent, name = node.names[0]
        path = self.relative(parent) + b"/" + name
        if node.kind == stat.S_IFDIR:
            node.relative, node.relative_epoch = path, self._epoch
        return path

    def moved(self) -> None:
        """A directory has another name now: remembered paths are worth nothing."""
        self._epoch += 1

    def name(self, node: Node, parent: Node, name: bytes) -> None:
        """Give a node a (further) name."""
        parent.children[name] = node
        node.names.append((parent, name))
        if node.keeper >= 0 and node.kind != stat.S_IFDIR:
            os.close(node.keeper)
            node.keeper = -1

    def unname(self, node: Node, parent: Node, name: bytes) -> None:
        """Take a name away."""
        parent.children.pop(name, None)
        node.names.remove((parent, name))

    def identified(self, identity: tuple[int, int]) -> Node | None:
        """The node of a file with several names, by branch and inode number."""
        return self._by_identity.get(identity)

    def identify(self, node: Node, identity: tuple[int, int] | None) -> None:
        """Say by what a file with several names is known; None when it has one name."""
        if node.identity is not None:
            self._by_identity.pop(node.identity, None)
        node.identity = identity
        if identity is not None:
            self._by_identity[identity] = node

    def release(self, node: Node) -> None:
        """Drop a node that nobody needs, and then those above it that were kept for its sake."""
        while node.lookups <= 0 and not node.children and not node.handles and node is not self.root:
            if self._by_id.pop(node.nodeid, None) is None:
                return
            if node.keeper >= 0:
                os.close(node.keeper)
                node.keeper = -1
            self.identify(node, None)
            names, node.names = node.names, []
            for parent, name in names:
                if parent.children.get(name) is node:
                    del parent.children[name]
            for parent, _ in names[1:]:
                self.release(parent)
            if not names:
                return
            node = names[0][0]
