"""`dm.mountopt`: words of mount(8) as what mount(2) takes (no I/O)."""

from __future__ import annotations

# linux/mount.h, with the words of mount(8) that set each flag, or clear it
_SET = {
    "ro": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "sync": 0x10,
    "dirsync": 0x80,
    "noatime": 0x400,
    "nodiratime": 0x800,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
    "lazytime": 1 << 25,
}
_CLEAR = {
    "rw": 0x1,
    "suid": 0x2,
    "dev": 0x4,
    "exec": 0x8,
    "async": 0x10,
    "atime": 0x400,
    "diratime": 0x800,
    "norelatime": 1 << 21,
    "nostrictatime": 1 << 24,
    "nolazytime": 1 << 25,
}


def split_options(*given: str) -> tuple[int, str]:
    """The MS_* bits, and the file system's own options; later words win. `defaults` means nothing."""
    flags = 0
    own: list[str] = []
    for word in ",".join(given).split(","):
        if word in _SET:
            flags |= _SET[word]
        elif word in _CLEAR:
            flags &= ~_CLEAR[word]
        elif word and word != "defaults":
            own.append(word)
    return flags, ",".join(own)
