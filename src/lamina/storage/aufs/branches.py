"""How a stack of branches is said to the kernel's aufs, and to our union file system (no I/O).

Source: moby v23 daemon/graphdriver/aufs/aufs.go, aufsMount; aufs(5).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lamina.ids import CacheId
from lamina.kernel import libc
from lamina.kernel.mounts import Mount

_OPTIONS = "dio,xino=/dev/shm/aufs.xino"
_DIRPERM1 = ",dirperm1"
_RESERVED = 54
"""Bytes that Docker keeps free in each page of options for what follows the branches."""
_BELOW = "ro+wh"
FUSE_TYPE = "fuse.lamina-unionfs"


def kernel_mounts(
    own: Path, lowers: Sequence[Path], target: Path, *, sealed: bool, dirperm1: bool, page_bytes: int
) -> tuple[Mount, ...]:
    """The mounts that show `own` on `lowers` (uppermost first) by the kernel's aufs.

    The options of one mount(2) fit into one page of `page_bytes`; the branches beyond are appended by remounting.
    """
    room = page_bytes - _RESERVED - (len(_DIRPERM1) if dirperm1 else 0)
    first = f"br:{own}={_BELOW if sealed else 'rw'}"
    pages = _pages(first, [os.fspath(lower) for lower in lowers], room)
    flags = libc.MS_RDONLY if sealed else 0
    flush = ("auplink", os.fspath(target), "flush")
    data = f"{pages[0]},{_OPTIONS}{_DIRPERM1 if dirperm1 else ''}"
    mounts = [Mount("aufs", "none", target, flags, data=data, flush=flush)]
    mounts += [Mount("aufs", "none", target, flags | libc.MS_REMOUNT, data=page) for page in pages[1:]]
    return tuple(mounts)


def union_mount(own: CacheId, lowers: Sequence[CacheId], diffs: Path, target: Path, *, sealed: bool) -> Mount:
    """The mount that shows the same by our own union file system, a process that serves FUSE.

    Branches are named relative to `diffs`, so that no character of the data root's path can be taken for a separator.
    """
    branches = [f"{own}={_BELOW if sealed else 'rw'}", *(f"{lower}={_BELOW}" for lower in lowers)]
    options = ("ro," if sealed else "") + f"fsname=none,takeover,br:{':'.join(branches)}"
    # -P: the working directory, where images put names, is no place to import from.
    helper = (sys.executable, "-P", "-m", "lamina", "unionfs", "-o", options, os.fspath(target))
    return Mount(FUSE_TYPE, "none", target, cwd=diffs, helper=helper, factory=helper.index("-o"))


def _pages(first: str, lowers: Sequence[str], room: int) -> list[str]:
    """The branches in portions of at most `room` bytes, the first for the mount, the others for remounts."""
    pages = [first]
    for lower in lowers:
        words = f":{lower}={_BELOW}" if len(pages) == 1 else f"append:{lower}={_BELOW},"
        if len(os.fsencode(pages[-1])) + len(os.fsencode(words)) > room:
            pages.append(f"append:{lower}={_BELOW},")
        else:
            pages[-1] += words
    return pages
