"""Limits of single layers by project quotas, with the projects numbered as Docker numbers them (blocking).

A project is one more than the highest found when the home was opened, on it, its layers and their directories; numbers
are not used again. So both engines can share a root: what one has limited, the other neither frees nor takes over.
Source: moby quota/projectquota.go.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from lamina.errors import InvalidArgument, Unsupported
from lamina.kernel.quota import (
    limit_project,
    make_device_node,
    project_of,
    require_quotas,
    set_project,
    usage_of_project,
)

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kKmMgGtTpP]?)(?:[iI]?[bB])?")
_HIGHEST = (1 << 32) - 2


class QuotaControl:
    """The projects of one home. Thread-safe."""

    def __init__(self, home: Path) -> None:
        """Make the device's node in the home, and see whether quotas are on.

        Raises:
            Unsupported: they are not.
        """
        try:
            self._device = make_device_node(home)
        except OSError as error:
            raise Unsupported(
                f"project quotas of {home} are out of reach: {error.strerror}", hint="run as root"
            ) from error
        base = project_of(home)
        self._lock = threading.Lock()
        self._next = max([base, *(project_of(place) for place in _below(home))]) + 1
        try:
            require_quotas(self._device, self._next, home)  # dockerd asks with the first: that one loses its limit
        except Unsupported:
            self._device.unlink()
            raise

    def limit(self, directories: Sequence[Path], limit_bytes: int) -> None:
        """Let what is made in the empty `directories` from now on take `limit_bytes` in all; again changes the limit.

        Raises:
            InvalidArgument: no bytes at all.
            Unsupported: all project numbers are taken.
        """
        if limit_bytes <= 0:
            raise InvalidArgument("a layer's size must be more than 0 bytes")
        with self._lock:
            project = project_of(directories[0])
            if not project:
                project = self._next
                self._next += 1
        if project > _HIGHEST:
            raise Unsupported("there are no project numbers left on the file system of the data root")
        limit_project(self._device, project, limit_bytes)
        for directory in directories:
            set_project(directory, project)

    def limit_of(self, directory: Path) -> int:
        """In bytes; 0 for none."""
        project = project_of(directory)
        if not project:
            return 0
        try:
            return usage_of_project(self._device, project).limit_bytes
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def forgetting(self, directory: Path) -> Iterator[None]:
        """When the directory is gone, so is the limit of its project."""
        project = project_of(directory) if directory.is_dir() else 0
        yield
        if project and not directory.exists():
            limit_project(self._device, project, 0)


def control_of(home: Path) -> QuotaControl | None:
    """None where quotas are not on."""
    try:
        return QuotaControl(home)
    except Unsupported:
        return None


def _below(home: Path) -> Iterator[Path]:
    """The directories in the home, and those in them."""
    for outer in _directories(home):
        yield outer
        yield from _directories(outer)


def _directories(place: Path) -> list[Path]:
    try:
        with os.scandir(place) as listing:
            return [Path(entry.path) for entry in listing if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def size_option(key: str, value: str) -> int | None:
    """The bytes of an option like `overlay2.size=20G`; None for 0, which is no limit. Source: go-units RAMInBytes.

    Raises:
        InvalidArgument: it is no size.
    """
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise InvalidArgument(f"invalid size {value[:80]!r} of storage option {key}", hint=f"for example {key}=20G")
    scale = 1024 ** " kmgtp".index(found[2].lower() or " ")
    return int(float(found[1]) * scale) or None
