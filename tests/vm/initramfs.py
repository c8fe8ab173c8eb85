"""The machine's first file system: busybox, the few modules that reach the host's root, and what to do there."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.vm import cache
from tests.vm.debian_kernel import Kernel, zstd

GUEST = Path(__file__).parent / "guest"
BUSYBOX = Path("/bin/busybox")
# What is needed before the host's root, where every other module lies, can be seen.
FIRST_MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "virtio_blk")

_DIRECTORY, _PROGRAM, _FILE = 0o040755, 0o100755, 0o100644


def base(kernel: Kernel) -> Path:
    """The part that is the same in every run with this kernel."""
    init = (GUEST / "init").read_bytes()
    inputs = repr((init, FIRST_MODULES, BUSYBOX.stat().st_mtime_ns)).encode()
    name = f"initramfs-{kernel.release}-{hashlib.sha256(inputs).hexdigest()[:12]}"

    def make(stage: Path) -> None:
        entries = [(name, _DIRECTORY, b"") for name in ("bin", "modules", "proc", "sys", "dev", "host", "top", "root")]
        entries += [("bin/busybox", _PROGRAM, BUSYBOX.read_bytes()), ("init", _PROGRAM, init)]
        for number, file in enumerate(kernel.module_files(*FIRST_MODULES)):
            entries.append((f"modules/{number:02}.ko", _FILE, plain_module(file)))
        (stage / "cpio").write_bytes(archive(entries))

    return cache.kept(cache.root() / name, make) / "cpio"


def session(files: Iterable[tuple[str, str]]) -> bytes:
    """The part of one run; the kernel unpacks archives one after the other."""
    return archive([("session", _DIRECTORY, b""), *((f"session/{name}", _FILE, text.encode()) for name, text in files)])


def plain_module(file: Path) -> bytes:
    """A module as busybox can load it: Debian 13 compresses them."""
    data = file.read_bytes()
    if file.suffix == ".xz":
        return lzma.decompress(data)
    return zstd(data) if file.suffix == ".zst" else data


def archive(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A cpio archive of (name, mode, content), not compressed.

    Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst, "newc".
    """
    return b"".join(_members([*entries, ("TRAILER!!!", 0, b"")]))


def _members(entries: Iterable[tuple[str, int, bytes]]) -> Iterator[bytes]:
    for inode, (name, mode, content) in enumerate(entries, 1):
        encoded = name.encode() + b"\0"
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        yield _padded(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        yield _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
