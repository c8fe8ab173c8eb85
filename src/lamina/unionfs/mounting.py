"""A union from options to a mount that is served: branches opened, kernel greeted, everything wired."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from lamina.errors import InvalidArgument, LaminaError, NotFound, Unsupported
from lamina.kernel import fuse, libc
from lamina.unionfs.attributes import Attributes
from lamina.unionfs.branches import MOST_BRANCHES, Branch
from lamina.unionfs.copyup import CopyUp
from lamina.unionfs.files import Files
from lamina.unionfs.listing import Listing
from lamina.unionfs.names import Names
from lamina.unionfs.options import Options
from lamina.unionfs.requests import VALID_S, Requests
from lamina.unionfs.session import Session
from lamina.unionfs.tree import Tree
from lamina.unionfs.whiteouts import Whiteouts

SUBTYPE = "lamina-unionfs"
"""The mount's type in /proc/mounts is `fuse.` and this."""


@dataclass(frozen=True, slots=True)
class Union:
    """A mounted union; `serve` it."""

    session: Session
    threads: int

    def serve(self) -> None:
        """Serve until it is unmounted."""
        self.session.serve(self.threads)


def mount(options: Options, target: str, log: Callable[[str], None]) -> Union:
    """Mount a union and answer the kernel's first question.

    Raises:
        InvalidArgument, NotFound: a branch or the mount point that cannot be one.
        Conflict: the writable branch is in use.
        Unsupported: no FUSE here, or too old.
    """
    target = os.path.realpath(target)
    branches = _open_branches(options, target)
    whiteouts = Whiteouts(branches[0].path)
    if branches[0].writable:
        whiteouts.prepare(takeover=options.takeover)
    device = fuse.open_device()
    try:
        fuse.mount(device, target, subtype=SUBTYPE, source=options.source, flags=options.flags, more=options.data)
    except OSError as error:
        os.close(device)
        raise LaminaError(f"mounting at {target} failed: {error.strerror}", hint="it needs root") from error
    try:
        return _greeted(options, branches, whiteouts, device, log)
    except BaseException as error:
        libc.umount2(target, libc.MNT_DETACH)
        if isinstance(error, OSError):
            raise Unsupported(f"the kernel's FUSE cannot be used: {error.strerror}") from error
        raise


def _greeted(
    options: Options, branches: list[Branch], whiteouts: Whiteouts, device: int, log: Callable[[str], None]
) -> Union:
    tree = Tree(branches)
    copyup = CopyUp(tree, whiteouts)
    names = Names(tree, copyup, whiteouts)
    files = Files(tree, copyup, names, device=device, passthrough=False)
    attributes = Attributes(tree, copyup, files)
    requests = Requests(tree, names, files, attributes, Listing(tree, VALID_S))
    session = Session(device, requests, log)
    files.passthrough = session.greet(passthrough=options.passthrough and branches[0].writable)
    return Union(session, options.threads)


def _open_branches(options: Options, target: str) -> list[Branch]:
    """Check the branches and the mount point."""
    if not os.path.isdir(target):
        raise NotFound(f"{target} is no directory to mount at", hint=f"mkdir {target}")
    if len(options.branches) > MOST_BRANCHES:
        raise InvalidArgument(f"{len(options.branches)} branches are more than {MOST_BRANCHES}")
    found: list[Branch] = []
    for branch in options.branches:
        path = os.path.realpath(branch.path)
        try:
            device = os.stat(os.path.join(path, "")).st_dev
        except OSError as error:
            raise NotFound(f"branch {branch.path} cannot be used: {error.strerror}") from error
        if os.path.commonpath((path, target)) == target:
            raise InvalidArgument(
                f"branch {branch.path} lies below the mount point {target}", hint="mount somewhere else"
            )
        found.append(Branch(os.fsencode(path), branch.writable, branch.whiteouts, device))
    return found
