"""Extended attributes of a path or an open file, links never followed (blocking)."""

from __future__ import annotations

import errno
import os

from lamina.errors import Unsupported

ABSENT = frozenset({errno.ENODATA, errno.ENOTSUP})


def get(file: str | bytes | int, name: str) -> bytes | None:
    """The value, or None when the file has no such attribute or the file system keeps none."""
    try:
        return _get(file, name)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise


def put(file: str | bytes | int, name: str, value: bytes) -> None:
    """Set an attribute.

    Raises:
        Unsupported: the file system does not keep it (ENOTSUP).
        OSError: anything else, with the path.
    """
    try:
        if isinstance(file, int):
            os.setxattr(file, name, value)
        else:
            os.setxattr(file, name, value, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            where = f"descriptor {file}" if isinstance(file, int) else os.fsdecode(file)
            raise Unsupported(
                f"the file system of {where} does not keep the extended attribute {name}",
                hint="use a data root on ext4, xfs or btrfs",
            ) from error
        raise


def names(file: str | bytes | int) -> list[str]:
    """All attribute names, sorted; empty where the file system keeps none."""
    try:
        found = os.listxattr(file) if isinstance(file, int) else os.listxattr(file, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    return sorted(found)


def read_all(file: str | bytes | int) -> dict[str, bytes]:
    """Every attribute with its value, names sorted; one that vanished meanwhile is left out."""
    found: dict[str, bytes] = {}
    for name in names(file):
        value = get(file, name)
        if value is not None:
            found[name] = value
    return found


def drop(file: str | bytes | int, name: str) -> None:
    """Remove an attribute. An absent one is fine."""
    try:
        if isinstance(file, int):
            os.removexattr(file, name)
        else:
            os.removexattr(file, name, follow_symlinks=False)
    except OSError as error:
        if error.errno not in ABSENT:
            raise


def _get(file: str | bytes | int, name: str) -> bytes:
    if isinstance(file, int):
        return os.getxattr(file, name)
    return os.getxattr(file, name, follow_symlinks=False)
