"""Which names inside a layer are safe, and their one clean spelling (pure).

Names are bytes. A clean name has no empty, `.` or `..` component and no slash at either end; the root is `b""`.
"""

from __future__ import annotations

from lamina.errors import UnsafeArchive

MAX_NAME_BYTES = 4095
"""PATH_MAX without its zero: linux/limits.h. A longer name could not be opened in one call by anybody."""
MAX_COMPONENT_BYTES = 255
"""NAME_MAX: linux/limits.h."""


def clean_name(name: bytes) -> bytes:
    """The one spelling of an entry's name, relative to the root of the layer.

    Absolute names are taken relative to the root, as Docker does; `a/../b` is `b`.

    Raises:
        UnsafeArchive: the name would leave the root, holds a NUL, or is too long for the kernel.
    """
    if len(name) > MAX_NAME_BYTES:
        raise UnsafeArchive(f"the name {shown(name)} is longer than {MAX_NAME_BYTES} bytes")
    if b"\0" in name:
        raise UnsafeArchive(f"the name {shown(name)} holds a NUL byte")
    kept: list[bytes] = []
    for part in name.split(b"/"):
        if not part or part == b".":
            continue
        if part == b"..":
            if not kept:
                raise UnsafeArchive(f"the name {shown(name)} would leave the layer")
            kept.pop()
            continue
        if len(part) > MAX_COMPONENT_BYTES:
            raise UnsafeArchive(f"a component of {shown(name)} is longer than {MAX_COMPONENT_BYTES} bytes")
        kept.append(part)
    return b"/".join(kept)


def shown(name: bytes) -> str:
    """A name for a message: quoted, control characters escaped, never longer than a line."""
    text = name.decode("utf-8", "backslashreplace")
    if len(text) > 120:
        text = text[:100] + "…" + text[-15:]
    return repr(text)
