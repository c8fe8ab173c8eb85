"""How a layer says that names are gone, in its tar and on disk: whiteouts and opaque marks (pure).

Source: image-spec layer.md "Whiteouts", "Opaque Whiteout"; the names come from aufs.
"""

from __future__ import annotations

from enum import Enum

from lamina.changeset.names import shown
from lamina.errors import UnsafeArchive

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
"""Book-keeping names of aufs at the top of a layer (`.wh..wh.plnk`, `.wh..wh.aufs`); they name no victim."""

OVERLAY_OPAQUE = "trusted.overlay.opaque"
OVERLAY_OPAQUE_USER = "user.overlay.opaque"


class WhiteoutDialect(Enum):
    """How a directory of own changes says "this name is gone"."""

    OVERLAY = "overlay"
    """Character device 0:0; opaque directories carry the xattr `trusted.overlay.opaque` = `y`."""
    OVERLAY_USERXATTR = "overlay-userxattr"
    """The same with `user.overlay.opaque`, for mounts made inside a user namespace."""
    AUFS = "aufs"
    """Files named `.wh.<name>` and `.wh..wh..opq`."""
    NONE = "none"
    """The directory is the whole tree; a deleted name is just not there."""

    @property
    def opaque_xattr(self) -> str | None:
        """The extended attribute of opaque directories, where the dialect uses one."""
        return _OPAQUE_XATTRS.get(self)


_OPAQUE_XATTRS = {
    WhiteoutDialect.OVERLAY: OVERLAY_OPAQUE,
    WhiteoutDialect.OVERLAY_USERXATTR: OVERLAY_OPAQUE_USER,
}
_FORGEABLE = (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.", b"trusted.aufs.")


def victim(name: bytes) -> bytes:
    """The base name that the whiteout `name` (a base name starting with the prefix) hides.

    Raises:
        UnsafeArchive: `.wh.`, `.wh..` and `.wh...` would hide the directory itself or its parent.
    """
    hidden = name[len(PREFIX) :]
    if hidden in {b"", b".", b".."}:
        raise UnsafeArchive(f"the whiteout {shown(name)} names no file of its directory")
    return hidden


def is_aufs_own(name: bytes) -> bool:
    """Is this base name book-keeping of aufs itself, which no union shows and no tar holds?"""
    return name.startswith(AUFS_PREFIX) and name != OPAQUE


def is_forgeable(xattr: bytes) -> bool:
    """Is this an extended attribute by which a union file system keeps its own marks?

    From a tar it would forge opaque directories, redirects or data-only files, and so read or hide what is not its
    own; a layer has whiteouts for that.
    """
    return xattr.startswith(_FORGEABLE)
