"""What the btrfs driver stands on: a file system of its own in an image file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.grounds import image_file


@contextmanager
def btrfs(place: Path) -> Iterator[Path]:
    with image_file(place, ("mkfs.btrfs", "-q"), size_bytes=4 << 30) as ground:
        yield ground


@contextmanager
def tiny_btrfs(place: Path) -> Iterator[Path]:
    """As small as a btrfs can be."""
    with image_file(place, ("mkfs.btrfs", "-q", "--mixed"), size_bytes=24 << 20) as ground:
        yield ground


def no_btrfs() -> str:
    if "\tbtrfs\n" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        return "this kernel has no btrfs"
    return ""
