"""One method for each thing the kernel asks: takes the request apart, has it done, puts the answer together.

A method is given the buffer with the request, its length, the node id and who asks. It gives the answer's body, or None
where the protocol wants no answer.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TypeAlias

from lamina.unionfs.attributes import Attributes
from lamina.unionfs.files import Files
from lamina.unionfs.listing import Listing
from lamina.unionfs.names import Names, Owner
from lamina.unionfs.nodes import Node
from lamina.unionfs.tree import Tree
from lamina.wire.fuse import opcodes, replies
from lamina.wire.fuse import requests as decode
from lamina.wire.fuse.opcodes import Opcode

Method: TypeAlias = Callable[[bytearray, int, int, int, int], bytes | memoryview | None]

VALID_S = 365 * 24 * 3600
"""How long the kernel may keep names and attributes: nobody else changes them."""
NOT_SEEN_VALID_S = 1
"""The same while the kernel writes by itself: a write through a memory map tells nobody of the new time."""


class Requests:
    """The operations of the file system by opcode."""

    def __init__(self, tree: Tree, names: Names, files: Files, attributes: Attributes, listing: Listing) -> None:
        self._tree = tree
        self._names = names
        self._files = files
        self._attributes = attributes
        self._listing = listing
        self.extended_setxattr = False
        self._notify: Callable[[bytes], None] = lambda _: None
        self.methods: dict[int, Method] = {
            Opcode.LOOKUP: self.lookup,
            Opcode.FORGET: self.forget,
            Opcode.BATCH_FORGET: self.batch_forget,
            Opcode.GETATTR: self.getattr,
            Opcode.SETATTR: self.setattr,
            Opcode.READLINK: self.readlink,
            Opcode.SYMLINK: self.symlink,
            Opcode.MKNOD: self.mknod,
            Opcode.MKDIR: self.mkdir,
            Opcode.UNLINK: self.unlink,
            Opcode.RMDIR: self.rmdir,
            Opcode.RENAME: self.rename,
            Opcode.RENAME2: self.rename2,
            Opcode.LINK: self.link,
            Opcode.OPEN: self.open,
            Opcode.CREATE: self.create,
            Opcode.TMPFILE: self.tmpfile,
            Opcode.READ: self.read,
            Opcode.WRITE: self.write,
            Opcode.RELEASE: self.release,
            Opcode.FSYNC: self.fsync,
            Opcode.FALLOCATE: self.fallocate,
            Opcode.LSEEK: self.lseek,
            Opcode.COPY_FILE_RANGE: self.copy_file_range,
            Opcode.STATFS: self.statfs,
            Opcode.GETXATTR: self.getxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.SETXATTR: self.setxattr,
            Opcode.REMOVEXATTR: self.removexattr,
            Opcode.OPENDIR: self.opendir,
            Opcode.READDIR: self.readdir,
            Opcode.READDIRPLUS: self.readdirplus,
            Opcode.RELEASEDIR: self.releasedir,
            Opcode.FSYNCDIR: self.fsyncdir,
            Opcode.IOCTL: self.ioctl,
            Opcode.INTERRUPT: self.interrupt,
            Opcode.DESTROY: self.destroy,
        }

    def tell_kernel_by(self, notify: Callable[[bytes], None]) -> None:
        """How to send the kernel a message of our own."""
        self._notify = notify

    def _entry(self, node: Node, found: os.stat_result) -> bytes:
        """The answer for something new; its lookup is counted already."""
        return replies.entry(node.nodeid, found, node.ino, found.st_nlink, VALID_S)

    def _attr(self, node: Node, found: os.stat_result) -> bytes:
        valid = NOT_SEEN_VALID_S if node.passed_opens else VALID_S
        return replies.attr(found, node.ino, self._tree.links(node, found), valid)

    # -- names -------------------------------------------------------------------------------------------------

    def lookup(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        name = bytes(data[decode.BODY : data.index(0, decode.BODY, length)])
        tree = self._tree
        with tree.lock:
            try:
                node, found = tree.find(tree.node(nodeid), name)
            except FileNotFoundError:
                return _ABSENT
            node.lookups += 1
            links = tree.links(node, found)
        return replies.entry(node.nodeid, found, node.ino, links, VALID_S)

    def forget(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> None:
        with self._tree.lock:
            self._tree.forget(nodeid, decode.forget(data))

    def batch_forget(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> None:
        with self._tree.lock:
            for number, lookups in decode.batch_forget(data, length):
                self._tree.forget(number, lookups)

    def symlink(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        name, content = decode.names(data, length)
        return self._entry(*self._names.symlink(self._tree.node(nodeid), name, content, Owner(uid, gid)))

    def mknod(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        mode, device, umask, name = decode.mknod(data, length)
        parent, number = self._tree.node(nodeid), replies.device_of(device)
        return self._entry(*self._names.node(parent, name, mode, number, Owner(uid, gid, umask)))

    def mkdir(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        mode, umask, name = decode.mkdir(data, length)
        return self._entry(*self._names.directory(self._tree.node(nodeid), name, mode, Owner(uid, gid, umask)))

    def unlink(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        self._names.unlink(self._tree.node(nodeid), decode.name(data, length))
        return b""

    def rmdir(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        self._names.rmdir(self._tree.node(nodeid), decode.name(data, length))
        return b""

    def rename(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        parent, flags, old, new = decode.rename(data, length)
        self._names.rename((self._tree.node(nodeid), old), (self._tree.node(parent), new), flags)
        return b""

    def rename2(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        parent, flags, old, new = decode.rename2(data, length)
        self._names.rename((self._tree.node(nodeid), old), (self._tree.node(parent), new), flags)
        return b""

    def link(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        number, name = decode.link(data, length)
        node = self._tree.node(number)
        return self._entry(node, self._names.link(node, self._tree.node(nodeid), name))

    # -- attributes --------------------------------------------------------------------------------------------

    def getattr(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        tree = self._tree
        with tree.lock:
            node = tree.node(nodeid)
            return self._attr(node, tree.stat(node))

    def setattr(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        node = self._tree.node(nodeid)
        found = self._attributes.change(node, decode.setattr_(data))
        with self._tree.lock:
            return self._attr(node, found)

    def readlink(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        tree = self._tree
        with tree.lock:
            node = tree.node(nodeid)
            if not node.names and node.keeper >= 0:
                return os.readlink(b"", dir_fd=node.keeper)
            return os.readlink(tree.path(node))

    def getxattr(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        room, name = decode.getxattr(data, length)
        return _sized(self._attributes.get_extended(self._tree.node(nodeid), name), room)

    def listxattr(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        found = self._attributes.list_extended(self._tree.node(nodeid), privileged=uid == 0)
        return _sized(found, decode.listxattr(data))

    def setxattr(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        flags, extra, name, value = decode.setxattr(data, length, extended=self.extended_setxattr)
        kill = bool(extra & opcodes.SETXATTR_ACL_KILL_SGID)
        self._attributes.set_extended(self._tree.node(nodeid), name, value, flags, kill_group=kill)
        return b""

    def removexattr(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        self._attributes.remove_extended(self._tree.node(nodeid), decode.name(data, length))
        return b""

    def statfs(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        found = os.statvfs(self._tree.roots[0])
        return replies.statfs(
            found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree,
            block=found.f_bsize, fragment=found.f_frsize,
        )  # fmt: skip

    # -- files -------------------------------------------------------------------------------------------------

    def open(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        flags, extra = decode.open_(data)
        return replies.opened(*self._files.open(self._tree.node(nodeid), flags, extra & opcodes.OPEN_KILL_SUIDGID))

    def create(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        asked = decode.create(data, length)
        owner = Owner(uid, gid, asked.umask)
        parent = self._tree.node(nodeid)
        node, found, opened = self._files.create(parent, asked.name, asked.flags, asked.mode, owner)
        return self._entry(node, found) + replies.opened(*opened)

    def tmpfile(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        asked = decode.create(data, length)
        owner = Owner(uid, gid, asked.umask)
        node, found, opened = self._files.temporary(self._tree.node(nodeid), asked.flags, asked.mode, owner)
        return self._entry(node, found) + replies.opened(*opened)

    def read(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes | memoryview:
        fh, offset, size = decode.read(data)
        return os.pread(self._files.handle(fh).fd, size, offset)

    def write(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        fh, offset, size, flags = decode.write(data)
        part = memoryview(data)[decode.WRITE_DATA : decode.WRITE_DATA + size]
        return replies.written(self._files.write(fh, part, offset, flags))

    def release(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        node = self._files.release(decode.handle(data))
        if node is not None:
            self._notify(replies.invalidate_attributes(node.nodeid))
        return b""

    def fsync(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        fh, flags = decode.fsync(data)
        self._files.sync(fh, data_only=bool(flags & opcodes.FSYNC_DATA_ONLY))
        return b""

    def fallocate(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        fh, offset, size, mode = decode.fallocate(data)
        self._files.allocate(fh, mode, offset, size)
        return b""

    def lseek(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        return replies.position(self._files.seek(*decode.lseek(data)))

    def copy_file_range(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        asked = decode.copy_file_range(data)
        done = self._files.copy(asked.fh_in, asked.fh_out, asked.length, asked.offset_in, asked.offset_out)
        return replies.written(done)

    def ioctl(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        raise OSError(errno.ENOTTY, "no ioctl is known here")

    # -- directories -------------------------------------------------------------------------------------------

    def opendir(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        return replies.opened(self._listing.open(self._tree.node(nodeid)), 0)

    def readdir(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        return self._listing.read(*decode.read(data), plus=False)

    def readdirplus(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        return self._listing.read(*decode.read(data), plus=True)

    def releasedir(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        self._listing.release(decode.handle(data))
        return b""

    def fsyncdir(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        self._listing.sync(self._tree.node(nodeid))
        return b""

    # -- the rest ----------------------------------------------------------------------------------------------

    def interrupt(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> None:
        """Requests are short; one that is told to stop is finished."""

    def destroy(self, data: bytearray, length: int, nodeid: int, uid: int, gid: int) -> bytes:
        return b""


_ABSENT = replies.absent(VALID_S)


def _sized(value: bytes, room: int) -> bytes:
    """The value, or its length where that was asked for."""
    if room == 0:
        return replies.written(len(value))
    if len(value) > room:
        raise OSError(errno.ERANGE, "the value is longer than the room for it")
    return value
