"""AUFS' own names in the writable branch: whiteouts, opaque marks, and the reserved places at its top.

.wh.NAME          NAME is gone, whatever the branches below have
.wh..wh..opq      nothing below this directory shows
.wh..wh.aufs      the file that all whiteouts are links of
.wh..wh.orph/     things on their way in or out; emptied before the branch is used
.wh..wh.plnk/     a file whose further names are still on their way up
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from itertools import count

from lamina.errors import Conflict
from lamina.unionfs.branches import OPAQUE, PREFIX

BASE = b".wh..wh.aufs"
ORPHANS = b".wh..wh.orph"
LINKS = b".wh..wh.plnk"
LONGEST_NAME = 255 - len(PREFIX)
_TRIES, _PAUSE_S = 40, 0.025


class Whiteouts:
    """Makes and removes them, and hands out places where nothing shows."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._base = root + b"/" + BASE
        self._orphans = root + b"/" + ORPHANS
        self.links = root + b"/" + LINKS
        self._numbers = count(os.getpid() << 32)  # another server's places are not ours
        self._lock = -1

    def prepare(self, *, takeover: bool = False) -> None:
        """Make the writable branch ours, and clear what an earlier server left half done.

        A server needs a moment to end after its mount is gone, so it is waited for. With `takeover` one that goes on
        all the same is left to whoever still holds its unmounted union: an open file, a working directory.

        Raises:
            Conflict: another mount writes to this branch.
        """
        self._lock = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if not _locked(self._lock) and not takeover:
            os.close(self._lock)
            raise Conflict(
                f"branch {os.fsdecode(self._root)} is the writable branch of another mount", hint="unmount that first"
            )
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._base, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        for place in (self._orphans, self.links):
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, 0o700)
            # What is made there takes over neither group nor ACL from the top directory.
            os.chown(place, 0, 0)
            os.chmod(place, 0o700)
            for kind in ("system.posix_acl_default", "system.posix_acl_access"):
                with contextlib.suppress(OSError):
                    os.removexattr(place, kind)
        for place in (self._orphans, self.links):
            with os.scandir(place) as left:
                for entry in left:
                    self.discard(entry.path)

    def place(self) -> bytes:
        """A path that nothing has, on the writable branch's file system, where nothing shows."""
        return self._orphans + b"/%d.%d" % (os.getpid(), next(self._numbers))

    @property
    def orphans(self) -> bytes:
        return self._orphans

    def discard(self, path: bytes) -> None:
        """Remove what lies in a reserved place; what cannot be removed now goes at the next mount."""
        try:
            os.unlink(path)
        except IsADirectoryError:
            shutil.rmtree(path, ignore_errors=True)

    def hide(self, directory: bytes, name: bytes) -> None:
        """Put a whiteout for `name` into a directory of the writable branch.

        Raises:
            OSError: ENAMETOOLONG when the name leaves no room for the prefix.
        """
        path = directory + b"/" + PREFIX + name
        try:
            os.link(self._base, path)
        except FileExistsError:
            return
        except OSError as error:
            # A file system without hard links, or with a limit of them; or somebody removed the file they link to.
            if error.errno not in {errno.EMLINK, errno.EPERM, errno.ENOENT, errno.ENOTSUP}:
                raise
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))

    def show(self, directory: bytes, name: bytes) -> None:
        """Take a whiteout away; none is fine."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(directory + b"/" + PREFIX + name)

    def make_opaque(self, directory: bytes) -> None:
        """Let nothing below a directory of the writable branch show."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(directory + b"/" + OPAQUE, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))


def _locked(fd: int) -> bool:
    """Take the lock, waiting a little for the one who has it."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        else:
            return True
    return False
