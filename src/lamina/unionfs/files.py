"""Open files: their descriptors, their data, and which of them the kernel reads and writes by itself.

With passthrough the kernel goes straight to the file below. A file that is open that way keeps its backing until it is
closed, so only files that already lie in the writable branch are opened so: what a read-only branch holds moves at its
first change. All opens of one file must agree, so the first one decides until the last one is closed.
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import count

from lamina.kernel import fuse, libc
from lamina.unionfs.copyup import CopyUp
from lamina.unionfs.names import Names, Owner
from lamina.unionfs.nodes import Handle, Node
from lamina.unionfs.tree import Tree
from lamina.wire.fuse import opcodes

_CREATION = os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_DIRECT | os.O_NOFOLLOW
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID


class Files:
    """Opens, and what is done with an open file."""

    def __init__(self, tree: Tree, copyup: CopyUp, names: Names, *, device: int, passthrough: bool) -> None:
        self._tree = tree
        self._copyup = copyup
        self._names = names
        self._device = device
        self.passthrough = passthrough
        self._numbers = count(1)
        self.handles: dict[int, Handle] = {}

    def open(self, node: Node, flags: int, kill: int) -> tuple[int, int, int]:
        """Open a file: its handle, flags for the kernel, backing id."""
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if (writes or flags & os.O_TRUNC) and not node.upper:
            self._copyup.file(node, 0 if flags & os.O_TRUNC else None)
        tree = self._tree
        with tree.lock:
            path, follow = tree.target(node)
            flags = flags & ~_CREATION | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
            if not node.upper:
                flags |= os.O_NOATIME
            fd = os.open(path, flags)
            if kill and flags & os.O_TRUNC:
                drop_special_bits(fd)
            return self._opened(node, fd, writes=writes)

    def create(
        self, parent: Node, name: bytes, flags: int, mode: int, owner: Owner
    ) -> tuple[Node, os.stat_result, tuple[int, int, int]]:
        """Make a file and open it."""
        tree = self._tree
        with tree.lock:
            path = self._names.room(parent, name)
            mode = self._names.mode(parent, mode, owner)
            flags = flags & ~_CREATION | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(path, flags, stat.S_IMODE(mode))
            try:
                found = self._names.owned(parent, path, mode, owner)
                self._names.appeared(parent, name)
            except BaseException:
                os.close(fd)
                raise
            node = tree.adopt(parent, name, found)
            return node, found, self._opened(node, fd, writes=flags & os.O_ACCMODE != os.O_RDONLY)

    def temporary(
        self, parent: Node, flags: int, mode: int, owner: Owner
    ) -> tuple[Node, os.stat_result, tuple[int, int, int]]:
        """An open file without a name (O_TMPFILE); it may get one later."""
        tree = self._tree
        with tree.lock:
            self._copyup.directory(parent)
            mode = self._names.mode(parent, mode, owner)
            flags = flags & ~_CREATION & ~os.O_TMPFILE | os.O_TMPFILE | os.O_CLOEXEC
            fd = os.open(tree.path(parent), flags, stat.S_IMODE(mode))
            gid = os.fstat(fd).st_gid if os.lstat(tree.path(parent)).st_mode & stat.S_ISGID else owner.gid
            os.fchown(fd, owner.uid, gid)
            if mode & _SPECIAL_BITS:
                os.fchmod(fd, stat.S_IMODE(mode))
            found = os.fstat(fd)
            node = tree.nodes.add(tree.number(found), stat.S_IFREG, upper=True, branch=0)
            node.lookups = 1
            node.keeper = os.open(b"/proc/self/fd/%d" % fd, os.O_PATH | os.O_CLOEXEC)
            return node, found, self._opened(node, fd, writes=True)

    def _opened(self, node: Node, fd: int, *, writes: bool) -> tuple[int, int, int]:
        """Enter an open file into the books."""
        passed = self._pass(node, fd)
        answer = opcodes.FOPEN_NOFLUSH
        if passed:
            node.passed_opens += 1
            answer |= opcodes.FOPEN_PASSTHROUGH
            if writes:
                node.clean = False
        else:
            node.cached_opens += 1
            if node.clean:
                answer |= opcodes.FOPEN_KEEP_CACHE
            node.clean = True
        fh = next(self._numbers)
        handle = Handle(fd, node, passed=passed, writes=writes)
        self.handles[fh] = handle
        node.handles.append(handle)
        return fh, answer, node.backing_id if passed else 0

    def _pass(self, node: Node, fd: int) -> bool:
        """Whether the kernel shall read and write this file by itself; `node.backing_id` is set then."""
        if node.passed_opens:
            return True
        if not self.passthrough or not node.upper or node.cached_opens:
            return False
        if os.fstat(fd).st_mode & _SPECIAL_BITS:
            # The kernel would write with the server's rights, and leave the bits that a write by others must cost.
            return False
        try:
            node.backing_id = fuse.open_backing(self._device, fd)
        except OSError:
            self.passthrough = False  # a stacked file system below, or no right to it: it stays so
            return False
        return True

    def release(self, fh: int) -> Node | None:
        """Close a file. Gives its node when the kernel wrote to it by itself and remembers old attributes."""
        with self._tree.lock:
            handle = self.handles.pop(fh)
            node = handle.node
            os.close(handle.fd)
            node.handles.remove(handle)
            if handle.passed:
                node.passed_opens -= 1
                if not node.passed_opens:
                    fuse.close_backing(self._device, node.backing_id)
                    node.backing_id = 0
            else:
                node.cached_opens -= 1
            alive = node.lookups > 0
            self._tree.nodes.release(node)
            return node if handle.passed and handle.writes and alive else None

    def handle(self, fh: int) -> Handle:
        found = self.handles.get(fh)
        if found is None:
            raise OSError(errno.EBADF, "no such open file")
        return found

    def write(self, fh: int, data: memoryview, offset: int, flags: int) -> int:
        handle = self.handle(fh)
        done = os.pwrite(handle.fd, data, offset)
        if flags & opcodes.WRITE_KILL_SUIDGID:
            drop_special_bits(handle.fd)
        return done

    def sync(self, fh: int, *, data_only: bool) -> None:
        fd = self.handle(fh).fd
        if data_only:
            os.fdatasync(fd)
        else:
            os.fsync(fd)

    def allocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        libc.fallocate(self.handle(fh).fd, mode, offset, length)

    def seek(self, fh: int, offset: int, whence: int) -> int:
        return os.lseek(self.handle(fh).fd, offset, whence)

    def copy(self, source: int, target: int, length: int, offset_in: int, offset_out: int) -> int:
        length = min(length, 1 << 30)
        return os.copy_file_range(self.handle(source).fd, self.handle(target).fd, length, offset_in, offset_out)


def drop_special_bits(fd: int) -> None:
    """A write by somebody without the right to it costs set-user-ID, and set-group-ID of what a group may run."""
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        return
    kept = mode & ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        kept &= ~stat.S_ISGID
    if kept != mode:
        os.fchmod(fd, stat.S_IMODE(kept))
