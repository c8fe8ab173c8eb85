"""The init layer: what every container's root has for the daemon to fill or mount over (blocking).

It lies between image and writable layer and is the base that changes are told against, so none of this shows in a diff
or a commit. Source: moby daemon/initlayer/setup_unix.go.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o755

_DIRECTORIES = ("dev/pts", "dev/shm", "proc", "sys")
_FILES = (".dockerenv", "etc/resolv.conf", "etc/hosts", "etc/hostname", "dev/console")
_LINKS = (("etc/mtab", "/proc/mounts"),)


def init_layer(path: Path) -> None:
    """Make the files and directories that are absent from the tree at `path`.

    A symlink or file where a directory must be is replaced; what exists otherwise stays. Nothing is followed.
    """
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in _DIRECTORIES:
            os.close(_directory(root, name))
        for name in _FILES:
            _make(root, name, None)
        for name, target in _LINKS:
            _make(root, name, target)
    finally:
        os.close(root)


def _make(root: int, name: str, target: str | None) -> None:
    parent, _, base = name.rpartition("/")
    at = _directory(root, parent)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(base, dir_fd=at, follow_symlinks=False).st_mode):
                return
            if target is None:
                _replace_link(at, base)
        with contextlib.suppress(FileExistsError):
            if target is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(base, dir_fd=at)
                os.symlink(target, base, dir_fd=at)
                return
            fd = os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE, dir_fd=at)
            os.fchmod(fd, _MODE)
            os.close(fd)
    finally:
        os.close(at)


def _replace_link(at: int, base: str) -> None:
    """A file of the image gives way: the daemon mounts its own over it, and must not follow a link to do so."""
    os.unlink(base, dir_fd=at)


def _directory(root: int, name: str) -> int:
    """The directory `name`, made component by component; the caller closes it."""
    fd = os.dup(root)
    for part in name.split("/") if name else ():
        above = fd
        try:
            fd = _step(above, part)
        finally:
            os.close(above)
    return fd


def _step(at: int, part: str) -> int:
    try:
        return os.open(part, _DIRECTORY, dir_fd=at)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:  # a file, or a link: the image's own way out of its root
            os.unlink(part, dir_fd=at)
        elif error.errno != errno.ENOENT:
            raise
    os.mkdir(part, _MODE, dir_fd=at)
    fd = os.open(part, _DIRECTORY, dir_fd=at)
    os.fchmod(fd, _MODE)
    return fd
