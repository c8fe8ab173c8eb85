"""Names made, linked, moved and removed, as they come to lie in the writable branch.

The order of steps is such that a server killed between any two of them leaves either the old or the new state to be
seen: a name in the writable branch counts more than a whiteout beside it, so whiteouts come first and go last.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass

from lamina.kernel import libc
from lamina.unionfs.branches import PREFIX, Below
from lamina.unionfs.copyup import CopyUp
from lamina.unionfs.nodes import Node
from lamina.unionfs.tree import Tree
from lamina.unionfs.whiteouts import Whiteouts

_ACL_DEFAULT = "system.posix_acl_default"
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True, slots=True)
class Owner:
    """Who makes something, and with which umask."""

    uid: int
    gid: int
    umask: int = 0


class Names:
    """What changes names. Every method takes the lock of the tree itself, unless it says otherwise."""

    def __init__(self, tree: Tree, copyup: CopyUp, whiteouts: Whiteouts) -> None:
        self._tree = tree
        self._copyup = copyup
        self._whiteouts = whiteouts

    # -- making ------------------------------------------------------------------------------------------------

    def symlink(self, parent: Node, name: bytes, content: bytes, owner: Owner) -> tuple[Node, os.stat_result]:
        with self._tree.lock:
            path = self.room(parent, name)
            os.symlink(content, path)
            return self._made(parent, name, path, stat.S_IFLNK, owner)

    def node(self, parent: Node, name: bytes, mode: int, device: int, owner: Owner) -> tuple[Node, os.stat_result]:
        """A file, device, fifo or socket."""
        with self._tree.lock:
            path = self.room(parent, name)
            mode = self.mode(parent, mode, owner)
            os.mknod(path, mode, device)
            return self._made(parent, name, path, mode, owner)

    def directory(self, parent: Node, name: bytes, mode: int, owner: Owner) -> tuple[Node, os.stat_result]:
        with self._tree.lock:
            path = self.room(parent, name)
            mode = self.mode(parent, mode, owner)
            os.mkdir(path, mode)
            if name in self._tree.below(parent).names:
                self._whiteouts.make_opaque(path)
            return self._made(parent, name, path, mode | stat.S_IFDIR, owner)

    def room(self, parent: Node, name: bytes) -> bytes:
        """A path in the writable branch for a new name. The caller holds the lock."""
        tree = self._tree
        self._check_name(name)
        self._copyup.directory(parent)
        if not parent.names and parent is not tree.root:
            raise FileNotFoundError(errno.ENOENT, "the directory is gone")
        below = tree.below(parent)
        if name in below.names and name not in parent.hidden and name not in parent.over:
            raise FileExistsError(errno.EEXIST, "the name exists")
        return tree.in_top(parent, name)

    def mode(self, parent: Node, mode: int, owner: Owner) -> int:
        """The mode to make something with: where the directory has a default ACL, that and not the umask decides."""
        if parent.default_acl is None:
            try:
                parent.default_acl = bool(os.getxattr(self._tree.path(parent), _ACL_DEFAULT))
            except OSError:
                parent.default_acl = False
        return mode if parent.default_acl else mode & ~owner.umask

    def owned(self, parent: Node, path: bytes, mode: int, owner: Owner) -> os.stat_result:
        """Give something new its owner: the group is that of a set-group-ID directory. Gives its attributes."""
        found = os.lstat(path)
        gid = owner.gid
        if found.st_gid != owner.gid and os.lstat(self._tree.path(parent)).st_mode & stat.S_ISGID:
            gid = found.st_gid
        if (found.st_uid, found.st_gid) != (owner.uid, gid):
            os.lchown(path, owner.uid, gid)
            if mode & _SPECIAL_BITS and not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(found.st_mode))  # a new owner costs these bits
            found = os.lstat(path)
        return found

    def appeared(self, parent: Node, name: bytes) -> None:
        """A name lies in the writable branch now: its whiteout goes. The caller holds the lock."""
        self._tree.appeared(parent, name)
        if name in parent.hidden:
            self._whiteouts.show(self._tree.path(parent), name)
            parent.hidden.discard(name)

    def _made(self, parent: Node, name: bytes, path: bytes, mode: int, owner: Owner) -> tuple[Node, os.stat_result]:
        found = self.owned(parent, path, mode, owner)
        self.appeared(parent, name)
        return self._tree.adopt(parent, name, found), found

    def link(self, node: Node, parent: Node, name: bytes) -> os.stat_result:
        """A further name for a file; counts as a lookup."""
        self._copyup.file(node)
        tree = self._tree
        with tree.lock:
            path = self.room(parent, name)
            source, follow = tree.target(node)
            # Only with a descriptor of a directory does Python ask the kernel to follow; both paths are absolute.
            os.link(source, path, src_dir_fd=0 if follow else None, follow_symlinks=follow)
            self.appeared(parent, name)
            tree.nodes.name(node, parent, name)
            node.lookups += 1
            found = os.lstat(path)
            if found.st_nlink > 1:
                tree.nodes.identify(node, (0, found.st_ino))
            return found

    # -- removing ----------------------------------------------------------------------------------------------

    def unlink(self, parent: Node, name: bytes) -> None:
        with self._tree.lock:
            node, found = self._tree.find(parent, name)
            if node.is_directory:
                raise IsADirectoryError(errno.EISDIR, "is a directory")
            path = self._tree.path_by(node, parent, name)
            self._keep(node, path)
            self._hide(parent, name)
            if node.upper:
                os.unlink(path)
            self._gone(node, parent, name, found)

    def rmdir(self, parent: Node, name: bytes) -> None:
        tree = self._tree
        with tree.lock:
            node, found = tree.find(parent, name)
            if not node.is_directory:
                raise NotADirectoryError(errno.ENOTDIR, "is no directory")
            if not tree.is_empty(node):
                raise OSError(errno.ENOTEMPTY, "the directory shows names")
            path = tree.path(node)
            self._keep(node, path)
            self._hide(parent, name)
            if node.upper:
                self._remove_directory(path)
            self._gone(node, parent, name, found)

    def _remove_directory(self, path: bytes) -> None:
        """Remove a directory that may hold whiteouts, in one step as far as anybody can see."""
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            place = self._whiteouts.place()
            os.rename(path, place)
            self._whiteouts.discard(place)

    def _hide(self, parent: Node, name: bytes) -> None:
        """Put a whiteout where a branch below has the name."""
        tree = self._tree
        if not tree.writable:
            raise OSError(errno.EROFS, "no branch is writable")
        if name not in tree.below(parent).names:
            return
        self._copyup.directory(parent)
        self._whiteouts.hide(tree.path(parent), name)
        parent.hidden.add(name)

    def _keep(self, node: Node, path: bytes) -> None:
        """Hold on to something that loses a name but that the kernel may ask about."""
        if node.lookups > 0 and len(node.names) == 1 and node.keeper < 0:
            node.keeper = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _gone(self, node: Node, parent: Node, name: bytes, found: os.stat_result) -> None:
        """Note that a name is no more."""
        tree = self._tree
        parent.over.discard(name)
        tree.nodes.unname(node, parent, name)
        if node.upper and (node.is_directory or found.st_nlink <= 1):
            tree.nodes.identify(node, None)
            tree.retire(found.st_ino)
        tree.nodes.release(node)

    # -- moving ------------------------------------------------------------------------------------------------

    def rename(self, old: tuple[Node, bytes], new: tuple[Node, bytes], flags: int) -> None:
        """As renameat2(2).

        Raises:
            OSError: EXDEV for a directory that shows something of a read-only branch, as AUFS answers; programs copy
                then.
        """
        tree = self._tree
        self._check_name(new[1])
        with tree.lock:
            node = tree.child(*old)
            other = self._other(new, flags)
        if not node.is_directory:
            self._copyup.file(node)
        if other is not None and flags & libc.RENAME_EXCHANGE and not other.is_directory:
            self._copyup.file(other)
        with tree.lock:
            node = tree.child(*old)
            other = self._other(new, flags)
            self._copyup.directory(old[0])
            self._copyup.directory(new[0])
            if node.is_directory:
                self._make_movable(node, new)
            if flags & libc.RENAME_EXCHANGE:
                assert other is not None
                if other.is_directory:
                    self._make_movable(other, old)
                libc.renameat2(tree.in_top(*old), tree.in_top(*new), flags)
                self._exchanged(node, old, other, new)
            else:
                self._move(node, old, other, new, flags)
            if node.is_directory or (other is not None and other.is_directory):
                tree.nodes.moved()

    def _other(self, new: tuple[Node, bytes], flags: int) -> Node | None:
        """What the new name leads to, as far as the flags allow that."""
        try:
            found = self._tree.child(*new)
        except FileNotFoundError:
            if flags & libc.RENAME_EXCHANGE:
                raise
            return None
        if flags & libc.RENAME_NOREPLACE:
            raise FileExistsError(errno.EEXIST, "the name exists")
        return found

    def _make_movable(self, node: Node, new: tuple[Node, bytes]) -> None:
        """Have a directory in the writable branch alone, so that it can lie under any name."""
        tree = self._tree
        if tree.below(node).names:
            raise OSError(errno.EXDEV, "a read-only branch shows in the directory")
        self._copyup.directory(node)
        node.lowers = ()
        node.below = Below({}, {})
        if new[1] in tree.below(new[0]).names:
            self._whiteouts.make_opaque(tree.path(node))

    def _move(
        self, node: Node, old: tuple[Node, bytes], other: Node | None, new: tuple[Node, bytes], flags: int
    ) -> None:
        tree = self._tree
        source, target = tree.in_top(*old), tree.in_top(*new)
        found = None
        if other is not None:
            found = tree.stat(other)
            if other.is_directory and not tree.is_empty(other):
                raise OSError(errno.ENOTEMPTY, "the directory shows names")
            self._keep(other, tree.path_by(other, *new))
        leaves_device = bool(flags & libc.RENAME_WHITEOUT)
        if not leaves_device:
            self._hide(*old)
        try:
            if other is not None and other.is_directory and other.upper:
                self._hide(*new)
                self._remove_directory(target)
            if flags:
                libc.renameat2(source, target, flags)
            else:
                os.rename(source, target)
        except OSError:
            self._undo_hide(*old)
            raise
        if other is not None and found is not None:
            self._gone(other, *new, found)
        self.appeared(*new)
        if not leaves_device:
            old[0].over.discard(old[1])
        tree.nodes.unname(node, *old)
        tree.nodes.name(node, *new)

    def _undo_hide(self, parent: Node, name: bytes) -> None:
        if name in parent.hidden:
            with contextlib.suppress(OSError):
                self._whiteouts.show(self._tree.path(parent), name)
                parent.hidden.discard(name)

    def _exchanged(self, node: Node, old: tuple[Node, bytes], other: Node, new: tuple[Node, bytes]) -> None:
        nodes = self._tree.nodes
        nodes.unname(node, *old)
        nodes.unname(other, *new)
        nodes.name(node, *new)
        nodes.name(other, *old)
        for parent, name in (old, new):
            self.appeared(parent, name)

    def _check_name(self, name: bytes) -> None:
        if name.startswith(PREFIX):
            raise PermissionError(errno.EPERM, "names of AUFS itself cannot be made")
        if not self._tree.writable:
            raise OSError(errno.EROFS, "no branch is writable")
