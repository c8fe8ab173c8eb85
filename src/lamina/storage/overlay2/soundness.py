"""Whether what overlay2 keeps on disk is as it was written, and what of it can be mended (blocking).

A power cut, a full disk, a restored backup or a careless hand may have been at work. Short names are made again from
the layers they name; anything else is told with the file it is about, and only that layer suffers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

from lamina.errors import CorruptRecord
from lamina.kernel.durable import write_file
from lamina.storage.overlay2.links import is_lower, lower_links, lower_on
from lamina.storage.overlay2.records import Record, link_place, pointed_at

_REMEDY = "remove the image or container that uses it; an image can be pulled again"


def mend(home: str, records: Iterable[Record]) -> tuple[str, ...]:
    """Make lost and misdirected short names again; the warnings say what was found."""
    found: list[str] = []
    for record in records:
        wanted = f"../{record.cache_id}/diff"
        if not record.sound:
            found.append(f"the file {home}/{record.cache_id}/lower is damaged: the layer can only be removed")
        if not record.link:
            found.append(f"layer {record.cache_id} has lost its short name ({home}/{record.cache_id}/link)")
            continue
        place = link_place(home, record.link)
        points = pointed_at(place)
        if points == wanted:
            continue
        if points is not None:
            os.unlink(place)
        elif os.path.lexists(place):
            found.append(f"{place} is no symlink: layer {record.cache_id} cannot be used")
            continue
        os.symlink(wanted, place)
        found.append(f"the short name {place} of layer {record.cache_id} was lost or led elsewhere: it was made again")
    return tuple(found)


def mend_lowers(home: str, records: Collection[Record]) -> tuple[str, ...]:
    """Complete `lower` files that were cut off: the first entry names the parent, and its `lower` is the rest."""
    by_link = {record.link: record for record in records if record.link}
    mended: dict[str, str] = {}
    is_changing = True
    while is_changing:  # a parent may have been cut off too
        is_changing = False
        for record in records:
            parent = by_link.get(record.lower[2:28]) if record.lower else None
            if parent is None or not parent.sound or not is_lower(record.lower[:28]):
                continue
            whole = lower_on(parent.link, parent.lower)
            if len(record.lower) < len(whole) and whole.startswith(record.lower):
                record.lower, record.sound, is_changing = whole, True, True
                mended[record.cache_id] = whole
    for cache_id, whole in mended.items():
        write_file(Path(home, cache_id, "lower"), whole.encode("ascii"), 0o644)
    return tuple(f"the file {home}/{name}/lower was cut off: it was completed from its parent's" for name in mended)


def require_sound(home: str, record: Record) -> None:
    """Look at everything that mounting the layer relies on.

    Raises:
        CorruptRecord: with the file that is missing or is something else.
    """
    _require_directory(f"{home}/{record.cache_id}/diff", record)
    for link in lower_links(record.lower):
        place = link_place(home, link)
        points = pointed_at(place)
        if points is None:
            raise CorruptRecord(f"layer {record.cache_id} stands on a layer that is gone: {place}", hint=_REMEDY)
        layer, _, last = points.removeprefix("../").partition("/")
        if last != "diff" or layer in {"", ".."}:
            raise CorruptRecord(f"{place} leads out of the storage, to {points}", hint=_REMEDY)
        _require_directory(f"{home}/{layer}/diff", record)


def _require_directory(path: str, record: Record) -> None:
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptRecord(f"layer {record.cache_id} needs {path}, which is gone", hint=_REMEDY) from error
    if not stat.S_ISDIR(mode):
        raise CorruptRecord(f"layer {record.cache_id} needs {path}, which is no directory", hint=_REMEDY)
