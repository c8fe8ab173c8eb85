"""The directories a union is made of, and what the read-only ones show together.

A read-only branch does not change while it is mounted, so what lies below the writable branch is read once for each
directory and kept: a name costs no system call in any of a hundred branches.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

PREFIX = b".wh."
"""A name that begins so is no file of the union: it hides the rest of the name, or is AUFS' own."""
OPAQUE = b".wh..wh..opq"
"""Nothing below this directory shows."""

DT_UNKNOWN, DT_DIR, DT_REG, DT_LNK = 0, 4, 8, 10


@dataclass(frozen=True, slots=True)
class Branch:
    """One directory of the union. `device` tells the file systems apart."""

    path: bytes
    writable: bool
    whiteouts: bool
    device: int


def packed(ino: int, branch: int, kind: int) -> int:
    """What is remembered of a name: inode number, the topmost branch that has it, DT_ number; in one integer."""
    return ino << 16 | branch << 4 | kind


def branch_of(entry: int) -> int:
    return entry >> 4 & 0xFFF


MOST_BRANCHES = 0x1000


@dataclass(slots=True)
class Below:
    """What the read-only branches show in one directory.

    `several` holds, for directories that more than one branch has, all of their branches from the top.
    """

    names: dict[bytes, int]
    several: dict[bytes, tuple[int, ...]]

    def branches_of(self, name: bytes) -> tuple[int, ...]:
        """All branches that a directory of this name is merged from."""
        found = self.several.get(name)
        return found if found is not None else (branch_of(self.names[name]),)


@dataclass(slots=True)
class Top:
    """What the writable branch has in one directory: whiteouts by the name they hide, other names, opaque or not."""

    hidden: set[bytes]
    names: set[bytes]
    opaque: bool


def kind_of(entry: os.DirEntry[bytes]) -> int:
    """The DT_ number of an entry, by asking the file only for what is neither file, directory nor symlink."""
    if entry.is_file(follow_symlinks=False):
        return DT_REG
    if entry.is_dir(follow_symlinks=False):
        return DT_DIR
    if entry.is_symlink():
        return DT_LNK
    try:
        return entry.stat(follow_symlinks=False).st_mode >> 12
    except OSError:
        return DT_UNKNOWN


def read_below(branches: list[Branch], numbers: tuple[int, ...], relative: bytes) -> Below:
    """Merge one directory of the branches `numbers`, from the top.

    A whiteout hides a name of the branches below it, not of its own: that is what it means in a layer's tar.
    """
    below = Below({}, {})
    masked: set[bytes] = set()
    for number in numbers:
        branch = branches[number]
        if not _merge(below, branch, number, branch.path + relative, masked):
            break
    return below


def _merge(below: Below, branch: Branch, number: int, path: bytes, masked: set[bytes]) -> bool:
    """Add one branch; False when nothing below it shows."""
    names = below.names
    whiteouts: set[bytes] = set()
    opaque = False
    with os.scandir(path) as found:
        for entry in found:
            name = entry.name
            if name.startswith(PREFIX):
                if name == OPAQUE:
                    opaque = branch.whiteouts
                elif branch.whiteouts:
                    whiteouts.add(name[len(PREFIX) :])
                continue
            if name in masked:
                continue
            kind = kind_of(entry)
            above = names.get(name)
            if above is None:
                names[name] = packed(entry.inode(), number, kind)
            elif above & 0xF == DT_DIR == kind:
                below.several[name] = (*below.branches_of(name), number)
            else:
                masked.add(name)
    masked |= whiteouts
    return not opaque


def read_top(path: bytes) -> Top:
    """One directory of the writable branch."""
    top = Top(set(), set(), opaque=False)
    with os.scandir(path) as found:
        for entry in found:
            name = entry.name
            if not name.startswith(PREFIX):
                top.names.add(name)
            elif name == OPAQUE:
                top.opaque = True
            elif not name.startswith(PREFIX + PREFIX):
                top.hidden.add(name[len(PREFIX) :])
    return top
