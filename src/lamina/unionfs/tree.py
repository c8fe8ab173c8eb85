"""The union as a tree of nodes: what a name leads to, and what is told about it.

Everything that looks at names or changes them holds `Tree.lock`; only data moves without it. So a path that was put
together is still that path when the system call uses it, and no symlink can be slipped into it meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
import threading

from lamina.unionfs.branches import DT_DIR, PREFIX, Below, Branch, branch_of, read_below, read_top
from lamina.unionfs.nodes import Node, NodeTable
from lamina.wire.fuse import opcodes

_NOTHING = Below({}, {})
_LONGEST_NAME = 255


class Tree:
    """Names and attributes of the union."""

    def __init__(self, branches: list[Branch]) -> None:
        self.lock = threading.Lock()
        self.branches = branches
        self.roots = [branch.path for branch in branches]
        self.writable = branches[0].writable
        self._devices = {branch.device: index for index, branch in reversed(list(enumerate(branches)))}
        self._renumbered: dict[int, int] = {}
        """Inode numbers that files in the writable branch keep from before they were copied up."""
        lowers = tuple(range(1 if self.writable else 0, len(branches)))
        found = os.lstat(self.roots[0])
        root = Node(opcodes.ROOT_ID, found.st_ino, stat.S_IFDIR, upper=self.writable, branch=0, lowers=lowers)
        self.nodes = NodeTable(root)
        self.root = root

    # -- places ------------------------------------------------------------------------------------------------

    def node(self, nodeid: int) -> Node:
        found = self.nodes.get(nodeid)
        if found is None:
            raise OSError(errno.ESTALE, "no such node")
        return found

    def path(self, node: Node) -> bytes:
        """Where a node with a name lies."""
        return self.roots[node.branch] + self.nodes.relative(node)

    def path_by(self, node: Node, parent: Node, name: bytes) -> bytes:
        """Where a node lies under one of its names."""
        return self.roots[node.branch] + self.nodes.relative(parent) + b"/" + name

    def target(self, node: Node) -> tuple[bytes, bool]:
        """A path for system calls and whether to follow a link at its end: a removed file is reached by descriptor."""
        if node.names or node is self.root:
            return self.roots[node.branch] + self.nodes.relative(node), False
        if node.keeper < 0:
            raise OSError(errno.ESTALE, "the file is gone")
        return b"/proc/self/fd/%d" % node.keeper, True

    def in_top(self, parent: Node, name: bytes) -> bytes:
        """Where a name lies, or would, in the writable branch."""
        return self.roots[0] + self.nodes.relative(parent) + b"/" + name

    # -- names -------------------------------------------------------------------------------------------------

    def below(self, directory: Node) -> Below:
        """What the read-only branches show in a directory; reads `hidden` and `over` with it."""
        if directory.below is not None:
            return directory.below
        relative = self.nodes.relative(directory)
        lowers = directory.lowers
        if directory.upper:
            top = read_top(self.roots[0] + relative)
            if top.opaque:
                lowers = ()
            found = read_below(self.branches, lowers, relative) if lowers else Below({}, {})
            directory.hidden = top.hidden
            directory.over = top.names & found.names.keys()
        else:
            found = read_below(self.branches, lowers, relative)
        directory.lowers = lowers
        directory.below = found
        return found

    def child(self, parent: Node, name: bytes) -> Node:
        """The node that a name leads to.

        Raises:
            FileNotFoundError: nothing has this name, or nothing can.
        """
        return self.find(parent, name)[0]

    def find(self, parent: Node, name: bytes) -> tuple[Node, os.stat_result]:
        """The node that a name leads to, and its attributes."""
        known = parent.children.get(name)
        if known is not None:
            return known, os.lstat(self.roots[known.branch] + self.nodes.relative(parent) + b"/" + name)
        if name.startswith(PREFIX):
            raise FileNotFoundError(errno.ENOENT, "names of AUFS itself do not show")
        if not parent.names and parent is not self.root:
            raise FileNotFoundError(errno.ENOENT, "the directory is gone")
        names = self.below(parent).names if parent.lowers else _NOTHING.names
        entry = names.get(name)
        if entry is None or name in parent.over:
            if len(name) > _LONGEST_NAME:
                raise OSError(errno.ENAMETOOLONG, "no file system has such names")
            if not parent.upper:
                raise FileNotFoundError(errno.ENOENT, "no such name")
            branch = 0
        elif name in parent.hidden:
            raise FileNotFoundError(errno.ENOENT, "a whiteout hides it")
        else:
            branch = branch_of(entry)
        found = os.lstat(self.roots[branch] + self.nodes.relative(parent) + b"/" + name)
        return self._known(parent, name, found, branch, entry), found

    def _known(self, parent: Node, name: bytes, found: os.stat_result, branch: int, entry: int | None) -> Node:
        """The node for what was found: a file that has more names may have one already."""
        kind = stat.S_IFMT(found.st_mode)
        upper = self.writable and branch == 0
        if kind != stat.S_IFDIR and found.st_nlink > 1:
            node = self.nodes.identified((branch, found.st_ino))
            if node is None:
                node = self.nodes.add(self.number(found), kind, upper=upper, branch=branch)
                self.nodes.identify(node, (branch, found.st_ino))
        else:
            lowers: tuple[int, ...] = ()
            if kind == stat.S_IFDIR and entry is not None and entry & 0xF == DT_DIR and name not in parent.hidden:
                lowers = self.below(parent).branches_of(name)
            node = self.nodes.add(self.number(found), kind, upper=upper, branch=branch, lowers=lowers)
        self.nodes.name(node, parent, name)
        return node

    def adopt(self, parent: Node, name: bytes, found: os.stat_result) -> Node:
        """The node of something that was made in the writable branch just now; the kernel will be told of it."""
        kind = stat.S_IFMT(found.st_mode)
        node = self.nodes.add(self.number(found), kind, upper=True, branch=0)
        node.lookups = 1
        if kind == stat.S_IFDIR:
            node.below = Below({}, {})
        self.nodes.name(node, parent, name)
        return node

    def exists(self, parent: Node, name: bytes) -> bool:
        try:
            self.find(parent, name)
        except FileNotFoundError:
            return False
        return True

    def is_empty(self, directory: Node) -> bool:
        """Does a directory show no name? Whiteouts do not count."""
        below = self.below(directory)
        if any(name not in directory.hidden and name not in directory.over for name in below.names):
            return False
        return not directory.upper or not read_top(self.path(directory)).names

    def appeared(self, parent: Node, name: bytes) -> None:
        """Note that the writable branch has a name now."""
        if name in self.below(parent).names:
            parent.over.add(name)

    # -- numbers and attributes --------------------------------------------------------------------------------

    def number(self, found: os.stat_result) -> int:
        """The inode number to show: the file system's own for the topmost branch's, made distinct for others."""
        index = self._devices.get(found.st_dev)
        if index == 0:
            return self._renumbered.get(found.st_ino, found.st_ino)
        if index is None:
            index = self._devices.setdefault(found.st_dev, len(self.branches) + len(self._devices))
        return found.st_ino ^ index << 48

    def number_in(self, branch: int, ino: int) -> int:
        """As `number`, for a name of which only branch and inode number were read."""
        index = self._devices[self.branches[branch].device]
        return ino ^ index << 48 if index else self._renumbered.get(ino, ino)

    def renumber(self, ino: int, shown: int) -> None:
        """A file in the writable branch goes on under the number it had before it was copied up."""
        self._renumbered[ino] = shown

    def retire(self, ino: int) -> None:
        """A file of the writable branch is removed; its number there may come again."""
        self._renumbered.pop(ino, None)

    def stat(self, node: Node) -> os.stat_result:
        if node.names or node is self.root:
            return os.lstat(self.roots[node.branch] + self.nodes.relative(node))
        if node.keeper < 0:
            raise OSError(errno.ESTALE, "the file is gone")
        return os.fstat(node.keeper)

    def links(self, node: Node, found: os.stat_result) -> int:
        """The link count to show: for a merged directory, one for each directory that shows in it and two."""
        links = found.st_nlink
        if not node.names and not node.upper and node is not self.root:
            return 0  # removed here, though the read-only branch still has it
        if node.kind != stat.S_IFDIR or links == 1:
            return links
        if node is self.root and node.upper:
            links -= 2  # AUFS' reserved directories
        if not node.lowers:
            return links
        below = self.below(node)
        hidden, over = node.hidden, node.over
        count = sum(
            1
            for name, entry in below.names.items()
            if entry & 0xF == DT_DIR and name not in hidden and name not in over
        )
        return links + count if node.upper else 2 + count

    def forget(self, nodeid: int, lookups: int) -> None:
        node = self.nodes.get(nodeid)
        if node is None or node is self.root:
            return
        node.lookups -= lookups
        self.nodes.release(node)
