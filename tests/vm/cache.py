"""What is expensive to make and outlives the checkout: kernels, their modules, the machine's first file system.

Everything is made in a directory beside its place and renamed to it, one process at a time: what is there is whole.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def root() -> Path:
    """The cache of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lamina" / "vm"


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """The lock file, waited for."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kept(place: Path, make: Callable[[Path], None]) -> Path:
    """`place`, which `make` has filled now or in an earlier run; it is given a directory to fill."""
    if place.exists():
        return place
    with held(place.with_name(f".{place.name}.lock")):
        if place.exists():
            return place
        stage = place.with_name(f".{place.name}.stage")
        shutil.rmtree(stage, ignore_errors=True)  # of one that was killed
        stage.mkdir()
        try:
            make(stage)
            stage.rename(place)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return place
