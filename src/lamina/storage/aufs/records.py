"""The files that describe a layer of aufs: `layers/<id>` as dockerd writes it, `sealed/<id>` beside it (blocking).

`layers/<id>` holds the ids below, nearest first, one a line; dockerd goes by it alone, and so do we. `sealed` is ours.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lamina.ids import CacheId
from lamina.kernel.durable import begin_writing
from lamina.rootfs.remove import remove_tree

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
REMOVING = "-removing"
_TEMPORARY = ".tmp-"


@dataclass(slots=True)
class Record:
    """One layer: the layers below it, nearest first.

    `damage` says what is wrong with its file (empty: nothing): such a layer can only be removed.
    """

    cache_id: CacheId
    below: tuple[CacheId, ...]
    sealed: bool
    damage: str = ""


def read_record(home: Path, cache_id: CacheId) -> Record | None:
    """The layer's record, or None when there is no such layer."""
    try:
        with open(home / "layers" / cache_id, encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, IsADirectoryError):
        return None
    below = tuple(CacheId(line) for line in lines if line)
    wrong = [line for line in below if not ID.fullmatch(line)]
    damage = f"it names {wrong[0][:80]!r} as a layer below" if wrong else ""
    return Record(cache_id, () if wrong else below, os.path.exists(home / "sealed" / cache_id), damage)


def read_records(home: Path) -> dict[CacheId, Record]:
    """Every layer whose directory of changes is there; a layer that stands on a missing one is marked."""
    found: dict[CacheId, Record] = {}
    for name in os.listdir(home / "layers"):
        record = read_record(home, CacheId(name)) if ID.fullmatch(name) else None
        if record is not None and os.path.isdir(home / "diff" / name):
            found[record.cache_id] = record
    for record in found.values():
        missing = [below for below in record.below if below not in found]
        if missing and not record.damage:
            record.damage = f"the layer {missing[0]} below it is gone"
    return found


def write_below(home: Path, cache_id: CacheId, below: tuple[CacheId, ...]) -> None:
    """Write `layers/<id>`, new or over the old one; on disk with whatever is synced next."""
    temporary = home / "layers" / f"{_TEMPORARY}{cache_id}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)
        data = "".join(f"{one}\n" for one in below).encode("ascii")
        if os.write(fd, data) != len(data):
            raise OSError(28, "no space left on device", os.fspath(temporary))
        begin_writing(fd)
        os.rename(temporary, home / "layers" / cache_id)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def drop_leftovers(home: Path, present: set[CacheId]) -> None:
    """Finish what a crash left: removals half done, creations half done, marks of layers that are gone.

    A directory of changes without record is removed only when it is empty, as a creation leaves it: one with content
    means that its record was lost.
    """
    for part in ("diff", "mnt"):
        for name in os.listdir(home / part):
            if name.endswith(REMOVING):
                remove_tree(home / part / name)
            elif name not in present:
                with suppress(OSError):  # not empty, a mount, or no directory
                    os.rmdir(home / part / name)
    for name in os.listdir(home / "layers"):
        is_ours = name.startswith(_TEMPORARY) or ID.fullmatch(name)
        if name not in present and is_ours and not os.path.lexists(home / "diff" / name):
            os.unlink(home / "layers" / name)
    for name in os.listdir(home / "sealed"):
        if name not in present:
            os.unlink(home / "sealed" / name)


def remove_files(home: Path, cache_id: CacheId) -> None:
    """Remove a layer: what cannot be seen any more is moved aside first, so that the next start finds it."""
    aside = _move_aside(home / "diff" / cache_id)
    for part in ("layers", "sealed"):
        with suppress(FileNotFoundError):
            os.unlink(home / part / cache_id)
    remove_tree(aside)
    remove_tree(_move_aside(home / "mnt" / cache_id))


def _move_aside(place: Path) -> Path:
    aside = place.with_name(place.name + REMOVING)
    remove_tree(aside)
    with suppress(FileNotFoundError):
        os.rename(place, aside)
    return aside
