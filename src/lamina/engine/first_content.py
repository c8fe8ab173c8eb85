"""What a container's root and new volumes hold before its first start (blocking; an engine module without async).

All of it is read from the image through the init layer, which is mounted for its filling anyway: a second mount is
needed only when the working directory has to be made.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from lamina.errors import InvalidArgument
from lamina.kernel.openat import make_dirs_in_root, open_in_root
from lamina.layers.init import init_layer
from lamina.volumes.store import Volume, VolumeStore


class _Kind(Enum):
    """What there is at a name of the image."""

    ABSENT = "absent"
    DIRECTORY = "directory"
    OTHER = "other"


class FirstContent:
    """Fills the init layer and the empty volumes of one new container."""

    def __init__(self, volumes: VolumeStore, fresh: Sequence[tuple[Volume, str]], working_directory: str) -> None:
        """`fresh` are volumes with the place in the image that they are filled from."""
        self._volumes = volumes
        self._fresh = fresh
        self._working_directory = working_directory
        self.lacks_working_directory: bool | None = None
        """Known once `prepare` has looked; None when its work was copied from an earlier container's."""

    @property
    def alike(self) -> str | None:
        """What decides, besides the image, what `prepare` does; None when it also fills volumes."""
        return None if self._fresh else self._working_directory or "/"

    def prepare(self, tree: Path) -> None:
        """Fill the init layer mounted at `tree`, then the volumes from what the image shows there.

        Raises:
            InvalidArgument: a volume would hide a file, or the working directory is one.
        """
        init_layer(tree)
        self.lacks_working_directory = False
        root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for volume, inside in self._fresh:
                if self._kind(root, inside) is _Kind.OTHER:
                    raise InvalidArgument(f"cannot mount volume over existing file, file exists {inside}")
                self._volumes.populate(volume, tree, inside)
            if self._working_directory:
                self._look_for_working_directory(root)
        finally:
            os.close(root)

    def _look_for_working_directory(self, root: int) -> None:
        kind = self._kind(root, self._working_directory)
        if kind is _Kind.OTHER:
            raise InvalidArgument(f"Cannot mkdir: {self._working_directory} is not a directory")
        self.lacks_working_directory = kind is _Kind.ABSENT

    def make_working_directory(self, tree: Path) -> None:
        """Make it in the writable layer mounted at `tree`."""
        root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(make_dirs_in_root(root, self._working_directory))
        except (NotADirectoryError, FileNotFoundError) as error:
            raise InvalidArgument(f"Cannot mkdir: {self._working_directory} is not a directory") from error
        finally:
            os.close(root)

    @staticmethod
    def _kind(root: int, inside: str) -> _Kind:
        try:
            fd = open_in_root(root, inside, os.O_PATH)
        except OSError as error:
            # A file where a directory of the path must be is for whoever makes the directory to tell.
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return _Kind.ABSENT
            raise
        try:
            return _Kind.DIRECTORY if stat.S_ISDIR(os.fstat(fd).st_mode) else _Kind.OTHER
        finally:
            os.close(fd)
