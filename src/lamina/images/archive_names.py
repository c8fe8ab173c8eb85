"""Names and first blocks inside image archives: what may be believed of them (pure).

Nothing of an image archive is ever written to a path of the archive's choice; cleaned names are only keys.
"""

from __future__ import annotations

import posixpath

from lamina.errors import UnsafeArchive

BLOCK = 512
_MAX_NAME = 4096


def is_tar_header(block: bytes) -> bool:
    """Whether 512 bytes are a tar header: its checksum says so."""
    if len(block) < BLOCK:
        return False
    try:
        stored = int(block[148:156].strip(b" \0") or b"0", 8)
    except ValueError:
        return False
    unsigned = sum(block[:148]) + 8 * 32 + sum(block[156:BLOCK])
    return stored == unsigned != 8 * 32


def clean_name(name: str) -> str:
    """A name inside the archive without `.` and doubled slashes; "" is the archive's root.

    Raises:
        UnsafeArchive: absolute, with a NUL or line break, or leaving the archive with `..`.
    """
    if "\0" in name or "\n" in name or len(name) > _MAX_NAME:
        raise UnsafeArchive(f"the image archive has an impossible name {name[:100]!r}")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts:
        raise UnsafeArchive(f"the image archive has the name {name[:200]!r}, which leaves the archive")
    return "/".join(parts)


def link_target(name: str, target: str) -> str:
    """The name that a symlink at `name` means, resolved inside the archive.

    Raises:
        UnsafeArchive: it leaves the archive.
    """
    if target.startswith("/"):
        raise UnsafeArchive(f"the link {name!r} in the image archive leaves the archive")
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if joined == ".." or joined.startswith("../"):
        raise UnsafeArchive(f"the link {name!r} in the image archive leaves the archive")
    return clean_name(joined)
