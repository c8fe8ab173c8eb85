"""How a layer tar says that names are gone: whiteouts and opaque marks (pure).

Source: image-spec layer.md "Whiteouts", "Opaque Whiteout"; the names come from aufs.
"""

from __future__ import annotations

from lamina.changeset.names import shown
from lamina.errors import UnsafeArchive

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
"""Book-keeping names of aufs at the top of a layer (`.wh..wh.plnk`, `.wh..wh.aufs`); they name no victim."""

OVERLAY_OPAQUE = "trusted.overlay.opaque"
OVERLAY_OPAQUE_USER = "user.overlay.opaque"

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


def is_forgeable(xattr: bytes) -> bool:
    """Is this an extended attribute by which a union file system keeps its own marks?

    From a tar it would forge opaque directories, redirects or data-only files, and so read or hide what is not its
    own; a layer has whiteouts for that.
    """
    return xattr.startswith(_FORGEABLE)
