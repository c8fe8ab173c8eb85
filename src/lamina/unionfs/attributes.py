"""Attributes and extended attributes, read and changed."""

from __future__ import annotations

import errno
import os
import stat

from lamina.kernel import libc
from lamina.unionfs.copyup import CopyUp
from lamina.unionfs.files import Files, drop_special_bits
from lamina.unionfs.nodes import Node
from lamina.unionfs.tree import Tree
from lamina.wire.fuse.opcodes import SetAttr
from lamina.wire.fuse.requests import SetAttrIn

_ACL_DEFAULT = b"system.posix_acl_default"
_MODE, _UID, _GID, _SIZE, _FH = (
    int(SetAttr.MODE),
    int(SetAttr.UID),
    int(SetAttr.GID),
    int(SetAttr.SIZE),
    int(SetAttr.FH),
)
_TIMES = int(SetAttr.ATIME | SetAttr.MTIME | SetAttr.ATIME_NOW | SetAttr.MTIME_NOW)
_OMIT, _NOW = (0, libc.UTIME_OMIT), (0, libc.UTIME_NOW)


class Attributes:
    """What chmod, chown, truncate, utimens and setxattr do."""

    def __init__(self, tree: Tree, copyup: CopyUp, files: Files) -> None:
        self._tree = tree
        self._copyup = copyup
        self._files = files

    def change(self, node: Node, wanted: SetAttrIn) -> os.stat_result:
        """Change what `wanted.valid` names; the attributes after it."""
        valid = wanted.valid
        if not node.upper:
            if valid & _SIZE and node.is_file:
                self._copyup.file(node, wanted.size)
            else:
                self._copyup.any(node)
        with self._tree.lock:
            path, follow = self._tree.target(node)
            if valid & (_UID | _GID):
                uid = wanted.uid if valid & _UID else -1
                gid = wanted.gid if valid & _GID else -1
                os.chown(path, uid, gid, follow_symlinks=follow)
            if valid & _MODE and node.kind != stat.S_IFLNK:
                os.chmod(path, stat.S_IMODE(wanted.mode))
            if valid & _SIZE:
                self._truncate(node, path, wanted)
            elif valid & SetAttr.KILL_SUIDGID and node.is_file:
                _kill_by_path(path, follow=follow)
            if valid & _TIMES:
                _set_times(path, wanted, follow=follow)
            return os.stat(path, follow_symlinks=follow)

    def _truncate(self, node: Node, path: bytes, wanted: SetAttrIn) -> None:
        if not node.is_file:
            raise OSError(errno.EINVAL, "only files have a length")
        if wanted.valid & _FH and wanted.fh in self._files.handles and self._files.handles[wanted.fh].writes:
            fd = self._files.handles[wanted.fh].fd
            os.ftruncate(fd, wanted.size)
            if wanted.valid & SetAttr.KILL_SUIDGID:
                drop_special_bits(fd)
            return
        os.truncate(path, wanted.size)
        if wanted.valid & SetAttr.KILL_SUIDGID:
            _kill_by_path(path, follow=True)

    def get_extended(self, node: Node, name: bytes) -> bytes:
        with self._tree.lock:
            if name.decode("utf-8", "surrogateescape") not in self._names(node):
                raise OSError(errno.ENODATA, "no such attribute")
            path, follow = self._tree.target(node)
            return os.getxattr(path, name, follow_symlinks=follow)

    def list_extended(self, node: Node, *, privileged: bool) -> bytes:
        """The names, each with a zero byte; those of `trusted.` only for who may read them."""
        with self._tree.lock:
            node.xattrs = None
            names = sorted(self._names(node))
        shown = (name for name in names if privileged or not name.startswith("trusted."))
        return b"".join(os.fsencode(name) + b"\0" for name in shown)

    def set_extended(self, node: Node, name: bytes, value: bytes, flags: int, *, kill_group: bool) -> None:
        self._copyup.any(node)
        with self._tree.lock:
            path, follow = self._tree.target(node)
            os.setxattr(path, name, value, flags, follow_symlinks=follow)
            self._changed(node, name)
            if kill_group:
                mode = os.stat(path, follow_symlinks=follow).st_mode
                if mode & stat.S_ISGID:
                    os.chmod(path, stat.S_IMODE(mode) & ~stat.S_ISGID)

    def remove_extended(self, node: Node, name: bytes) -> None:
        with self._tree.lock:
            if name.decode("utf-8", "surrogateescape") not in self._names(node):
                raise OSError(errno.ENODATA, "no such attribute")
        self._copyup.any(node)
        with self._tree.lock:
            path, follow = self._tree.target(node)
            os.removexattr(path, name, follow_symlinks=follow)
            self._changed(node, name)

    def _changed(self, node: Node, name: bytes) -> None:
        node.xattrs = None
        if name == _ACL_DEFAULT:
            node.default_acl = None

    def _names(self, node: Node) -> frozenset[str]:
        """The names a file has. What is missing stays missing until it is set here, so it is remembered."""
        if node.xattrs is None:
            path, follow = self._tree.target(node)
            try:
                node.xattrs = frozenset(os.listxattr(path, follow_symlinks=follow))
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                node.xattrs = frozenset()
        return node.xattrs


def _kill_by_path(path: bytes, *, follow: bool) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        drop_special_bits(fd)
    finally:
        os.close(fd)


def _set_times(path: bytes, wanted: SetAttrIn, *, follow: bool) -> None:
    valid = wanted.valid
    atime = mtime = _OMIT
    if valid & SetAttr.ATIME_NOW:
        atime = _NOW
    elif valid & SetAttr.ATIME:
        atime = divmod(wanted.atime_ns, 10**9)
    if valid & SetAttr.MTIME_NOW:
        mtime = _NOW
    elif valid & SetAttr.MTIME:
        mtime = divmod(wanted.mtime_ns, 10**9)
    libc.utimensat(path, atime, mtime, follow_symlinks=follow)
