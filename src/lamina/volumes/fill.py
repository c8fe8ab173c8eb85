"""What an image has at a volume's place, copied into the empty volume (blocking).

Attack in mind: the place is a symlink, or has one on its way, that would lead out of the container's root.
"""

from __future__ import annotations

import os
from pathlib import Path

from lamina.kernel.openat import open_in_root
from lamina.rootfs.copytree import copy_tree
from lamina.rootfs.remove import remove_tree


def fill_from_image(data: Path, rootfs: Path, inside: str) -> bool:
    """Copy the directory `inside`, with its owner and mode, into `data` if that is empty. True when it did.

    An image that has no directory there leaves the volume as it is. On error the volume is empty again.
    """
    if any(os.scandir(data)):
        return False
    root_fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        source = open_in_root(root_fd, inside, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    finally:
        os.close(root_fd)
    try:
        _copy(Path(f"/proc/self/fd/{source}"), data)
    finally:
        os.close(source)
    return True


def _copy(source: Path, data: Path) -> None:
    try:
        copy_tree(source, data)
    except BaseException:
        for name in os.listdir(data):
            remove_tree(data / name)
        raise
