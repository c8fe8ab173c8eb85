"""An init layer as a pattern: made once per image through a mount, then laid down again without one (blocking).

What an init layer adds depends only on the stack below it. Mounting and unmounting costs more than everything else in
the making of a container, so the second container of an image gets its init layer copied from what the first one's
mount left in the upper directory. Only plain things are copied; anything else means no pattern, and a mount each time.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from lamina.changeset.whiteout import is_aufs_own

_MAX_ENTRIES = 64
_OVERLAY_OWN = ("trusted.overlay.origin", "trusted.overlay.impure", "trusted.overlay.uuid")
"""What the kernel notes about copied-up directories for itself; a copy does without."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A directory, an empty file or a symlink below the upper directory; parents come before what is in them."""

    path: str
    mode: int
    uid: int
    gid: int
    times_ns: tuple[int, int]
    target: str = ""


@dataclass(frozen=True, slots=True)
class Pattern:
    """The entries of one init layer."""

    entries: tuple[_Entry, ...]

    def lay_down(self, upper: Path) -> None:
        """Make the same entries in an empty upper directory."""
        root = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for entry in self.entries:
                _make(root, entry)
            for entry in reversed(self.entries):
                if stat.S_ISDIR(entry.mode):
                    os.utime(entry.path, ns=entry.times_ns, dir_fd=root)
        finally:
            os.close(root)


def pattern_of(upper: Path) -> Pattern | None:
    """The pattern of a filled upper directory; None when it holds anything that is not plain."""
    found: list[_Entry] = []
    for folder, names, files in os.walk(upper):
        names[:] = [name for name in names if not is_aufs_own(os.fsencode(name))]
        for name in [*names, *(name for name in files if not is_aufs_own(os.fsencode(name)))]:
            path = os.path.join(folder, name)
            entry = _entry(path, os.path.relpath(path, upper))
            if entry is None or len(found) >= _MAX_ENTRIES:
                return None
            found.append(entry)
    return Pattern(tuple(sorted(found, key=lambda entry: entry.path)))


def _entry(path: str, relative: str) -> _Entry | None:
    facts = os.lstat(path)
    if any(name not in _OVERLAY_OWN for name in os.listxattr(path, follow_symlinks=False)):
        return None
    times = (facts.st_atime_ns, facts.st_mtime_ns)
    if stat.S_ISLNK(facts.st_mode):
        return _Entry(relative, facts.st_mode, facts.st_uid, facts.st_gid, times, os.readlink(path))
    if stat.S_ISDIR(facts.st_mode) or (stat.S_ISREG(facts.st_mode) and facts.st_size == 0 and facts.st_nlink == 1):
        return _Entry(relative, facts.st_mode, facts.st_uid, facts.st_gid, times)
    return None


def _make(root: int, entry: _Entry) -> None:
    if stat.S_ISLNK(entry.mode):
        os.symlink(entry.target, entry.path, dir_fd=root)
    elif stat.S_ISDIR(entry.mode):
        os.mkdir(entry.path, 0o700, dir_fd=root)
    else:
        os.close(os.open(entry.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root))
    if entry.uid or entry.gid:
        os.chown(entry.path, entry.uid, entry.gid, dir_fd=root, follow_symlinks=False)
    if not stat.S_ISLNK(entry.mode):
        os.chmod(entry.path, stat.S_IMODE(entry.mode), dir_fd=root)
