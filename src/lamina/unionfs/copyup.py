"""Copy-up: the first change of something in a read-only branch puts a copy of it into the writable one.

The copy is made where nothing shows and gets its name in one step when it is whole, so that a server that is killed
leaves the file as it was. Data is copied without the lock of the tree; one file is copied once, however many want it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading

from lamina.kernel import libc
from lamina.unionfs.nodes import Node
from lamina.unionfs.tree import Tree
from lamina.unionfs.whiteouts import Whiteouts

_FICLONE = 0x40049409
_CHUNK = 1 << 30
_NOT_KEPT = {errno.ENOTSUP, errno.EPERM, errno.EINVAL}
_NO_REFLINK = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}


class CopyUp:
    """Brings files and directories into the writable branch."""

    def __init__(self, tree: Tree, whiteouts: Whiteouts) -> None:
        self._tree = tree
        self._whiteouts = whiteouts
        self._busy: dict[int, threading.Lock] = {}
        self._further: dict[int, dict[int, list[bytes]]] = {}

    def directory(self, node: Node) -> None:
        """Have a directory, and those above it, in the writable branch. The caller holds the lock of the tree."""
        if node.upper:
            return
        self._check_writable()
        if not node.names:
            raise FileNotFoundError(errno.ENOENT, "the directory is gone")
        tree = self._tree
        parent, name = node.names[0]
        self.directory(parent)
        source = tree.path(node)
        found = os.lstat(source)
        place = self._whiteouts.place()
        os.mkdir(place, 0o700)
        try:
            copy_attributes(source, place, found)
            copied = os.lstat(place)
            self._put(place, parent, name)
        except BaseException:
            self._whiteouts.discard(place)
            raise
        tree.renumber(copied.st_ino, node.ino)
        node.upper, node.branch = True, 0

    def file(self, node: Node, size: int | None = None) -> None:
        """Have anything but a directory in the writable branch; only `size` bytes of it when the rest is cut off.

        The caller does not hold the lock of the tree.
        """
        if node.upper:
            return
        self._check_writable()
        with self._tree.lock:
            busy = self._busy.setdefault(node.nodeid, threading.Lock())
        with busy:
            try:
                if not node.upper:
                    self._file(node, size)
            finally:
                self._busy.pop(node.nodeid, None)

    def any(self, node: Node) -> None:
        """Have a node in the writable branch, whatever it is. The caller does not hold the lock of the tree."""
        if node.upper:
            return
        if node.is_directory:
            with self._tree.lock:
                self.directory(node)
        else:
            self.file(node)

    def _check_writable(self) -> None:
        if not self._tree.writable:
            raise OSError(errno.EROFS, "no branch is writable")

    def _file(self, node: Node, size: int | None) -> None:
        place = self._whiteouts.place()
        try:
            found = self._copy(node, place, size)
            with self._tree.lock:
                self._install(node, place, found)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                self._whiteouts.discard(place)
            raise

    def _copy(self, node: Node, place: bytes, size: int | None) -> os.stat_result:
        """Make the whole copy at `place`; the attributes of the original."""
        tree = self._tree
        with tree.lock:
            source, follow = tree.target(node)
            found = os.stat(source, follow_symlinks=follow)
            if node.is_file:
                flags = os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
                original = os.open(source, flags)
            else:
                _make_special(source, place, found)
                copy_attributes(source, place, found, follow=follow)
                return found
        try:
            copy = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                copy_data(original, copy, found.st_size if size is None else min(size, found.st_size))
                copy_attributes(b"/proc/self/fd/%d" % original, place, found, follow=True)
            finally:
                os.close(copy)
        finally:
            os.close(original)
        return found

    def _install(self, node: Node, place: bytes, found: os.stat_result) -> None:
        """Give the copy its name, and let everybody who has the file open see it."""
        tree = self._tree
        copied = os.lstat(place)
        if not node.names:
            # Removed while somebody has it open: the copy lives without a name.
            keeper = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._swap(node, place)
            os.unlink(place)
            os.dup2(keeper, node.keeper, inheritable=False)
            os.close(keeper)
            node.upper, node.branch = True, 0
            return
        several = found.st_nlink > 1
        if several:
            self._find_names(node, found)
        names = list(node.names)
        for parent, _ in names:
            self.directory(parent)
        self._swap(node, place)
        journal = b""
        if several and len(names) > 1:
            journal = self._whiteouts.links + b"/%d.%d" % (found.st_ino, copied.st_ino)
            with contextlib.suppress(FileExistsError):
                os.link(place, journal, follow_symlinks=False)
        self._put(place, *names[0])
        node.upper, node.branch = True, 0
        tree.nodes.identify(node, (0, copied.st_ino) if len(names) > 1 else None)
        tree.renumber(copied.st_ino, node.ino)
        for parent, name in names[1:]:
            self._put(journal, parent, name, link=True)
        if journal:
            with contextlib.suppress(FileNotFoundError):  # a server that took the branch over has cleared it away
                os.unlink(journal)

    def _put(self, place: bytes, parent: Node, name: bytes, *, link: bool = False) -> None:
        """Give what lies at `place` its name in the writable branch; the directory keeps its times."""
        tree = self._tree
        path = tree.in_top(parent, name)
        directory = os.path.dirname(path)
        before = os.lstat(directory)
        if link:
            os.link(place, path, follow_symlinks=False)
        else:
            os.rename(place, path)
        set_times(directory, before)
        tree.appeared(parent, name)

    def _swap(self, node: Node, path: bytes) -> None:
        """Put the copy under the descriptors of files that are open for reading."""
        for handle in node.handles:
            copy = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            os.dup2(copy, handle.fd, inheritable=False)
            os.close(copy)

    def _find_names(self, node: Node, found: os.stat_result) -> None:
        """Learn all names that a file has in its branch and that show."""
        tree = self._tree
        further = self._further.get(node.branch)
        if further is None:
            further = self._further[node.branch] = shared_inodes(tree.branches[node.branch].path)
        for path in further.get(found.st_ino, ()):
            passed: list[Node] = []
            at = tree.root
            try:
                for name in path.split(b"/"):
                    at = tree.child(at, name)
                    passed.append(at)
            except (FileNotFoundError, NotADirectoryError):
                at = node  # hidden by a branch above
            for other in reversed(passed):
                tree.nodes.release(other)


def shared_inodes(root: bytes) -> dict[int, list[bytes]]:
    """The files of a tree that have several names in it: inode number → paths below `root`."""
    first: dict[int, bytes] = {}
    found: dict[int, list[bytes]] = {}
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(root + b"/" + directory) as entries:
            for entry in entries:
                path = directory + entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path + b"/")
                    continue
                ino = entry.inode()
                before = first.setdefault(ino, path)
                if before is not path:
                    found.setdefault(ino, [before]).append(path)
    return found


def copy_data(source: int, target: int, size: int) -> None:
    """Copy the first `size` bytes, holes as holes; shared blocks where the file system can.

    The data is on the disk before the copy gets its name: a power cut must not leave an empty file in the place of one
    that was whole.
    """
    if size == 0:
        return
    if size == os.fstat(source).st_size and _reflinked(source, target):
        return
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
            end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # nothing but a hole up to the end
            if error.errno != errno.EINVAL:
                raise
            start, end = at, size  # a file system that does not tell holes
        _copy_range(source, target, start, end)
        at = end
    libc.sync_file_range(target, libc.SYNC_FILE_RANGE_WRITE_AND_WAIT)


def _reflinked(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_REFLINK:
            return False
        raise
    return True


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            done = os.copy_file_range(source, target, min(end - start, _CHUNK), start, start)
        except OSError as error:
            if error.errno not in _NO_REFLINK:
                raise
            done = os.pwrite(target, os.pread(source, min(end - start, 1 << 20), start), start)
        if done == 0:
            return
        start += done


def copy_attributes(source: bytes, target: bytes, found: os.stat_result, *, follow: bool = False) -> None:
    """Owner, mode, extended attributes (ACLs and capabilities among them) and times, in the order that keeps them."""
    if found.st_uid or found.st_gid:
        os.lchown(target, found.st_uid, found.st_gid)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source, follow_symlinks=follow):
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NOT_KEPT:
                raise
    set_times(target, found)


def set_times(path: bytes, wanted: os.stat_result) -> None:
    os.utime(path, ns=(wanted.st_atime_ns, wanted.st_mtime_ns), follow_symlinks=False)


def _make_special(source: bytes, place: bytes, found: os.stat_result) -> None:
    """A symlink, device, fifo or socket like another."""
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source), place)
    else:
        os.mknod(place, stat.S_IFMT(found.st_mode) | 0o600, found.st_rdev)
