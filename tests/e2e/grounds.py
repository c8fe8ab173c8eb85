"""The file system that an engine's data root lies on, where the driver asks for a certain one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.grounds_btrfs import btrfs, no_btrfs


@contextmanager
def data_root_for(driver: str) -> Iterator[Path | None]:
    """A data root for engines with this driver; None: any will do, and each engine makes its own."""
    if driver != "btrfs":
        yield None
        return
    if reason := no_btrfs():
        pytest.skip(f"btrfs: {reason}")
    home = Path(tempfile.mkdtemp(prefix="lamg", dir="/tmp"))
    try:
        with btrfs(home / "g") as ground:
            yield ground / "d"
    finally:
        shutil.rmtree(home)
