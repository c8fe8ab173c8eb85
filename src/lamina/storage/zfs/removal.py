"""Datasets that have to go, and may not be able to yet (blocking).

A mount in a namespace that lags behind, a hold or somebody's clone keeps a dataset. What lets go soon is waited for.
What does not is renamed to `<id>-removing-<number>`, so that its name is free, and is removed as soon as it can be:
tried again at every start and after every removal. Nothing is ever removed by force or together with what depends on
it, so nothing can be lost.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable

from lamina.errors import LayerInUse
from lamina.kernel import zfs
from lamina.storage.zfs.datasets import destroy_with_snapshots

_PAUSES_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
_HELD = frozenset({errno.EBUSY, errno.EEXIST})


def destroy(dataset: str, *, has_snapshots: bool) -> bool:
    """Remove a dataset with its snapshots; false when something still holds it after half a second.

    `has_snapshots` says what to try first; either way snapshots are found. One that is not there counts as removed.
    """
    for pause_s in (0.0, *_PAUSES_S):
        time.sleep(pause_s)
        failed = _with_snapshots(dataset) if has_snapshots else _alone(dataset)
        if not failed:
            return True
        has_snapshots = True  # or it would be mounted
    return False


def put_aside(dataset: str) -> str:
    """Give up the name of a dataset that cannot go now; the new name.

    Raises:
        LayerInUse: it cannot even be renamed.
    """
    target = f"{dataset}-removing-{int.from_bytes(os.urandom(4), 'big')}"
    try:
        zfs.rename(dataset, target)
    except OSError as error:
        raise LayerInUse(
            f"the dataset {dataset} is held by something and cannot be removed: {error.strerror}",
            hint=f"see what holds it: zfs list -t all -r {dataset}; grep -l {dataset} /proc/*/mounts",
        ) from error
    return target


def finish(datasets: Iterable[str]) -> list[str]:
    """Try again what was put aside; returns what is still held. A clone before what it was made from."""
    left = list(datasets)
    while left:
        still = [dataset for dataset in left if _with_snapshots(dataset)]
        if len(still) == len(left):
            break
        left = still
    return left


def _alone(dataset: str) -> int:
    try:
        zfs.destroy(dataset)
    except FileNotFoundError:
        return 0
    except OSError as error:
        if error.errno not in _HELD:
            raise
        return error.errno
    return 0


def _with_snapshots(dataset: str) -> int:
    if not zfs.exists(dataset):
        return 0
    failed = destroy_with_snapshots(dataset)
    if failed and failed not in _HELD:
        raise OSError(failed, os.strerror(failed), dataset)
    return failed
