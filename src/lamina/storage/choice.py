"""Which storage driver a data root was moved to: one small file that outweighs every guess (blocking).

A migration leaves the old driver's directory beside the new one until it is confirmed, and vfs leaves nothing that a
daemon would choose it by. `<root>/lamina/storage.json` says which one counts. dockerd ignores the file. Who writes it
keeps a story of its own in `details`; here it is only carried.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from lamina.errors import CorruptRecord, InvalidArgument
from lamina.jsonvalue import JsonObject, go_json, mapping, parse_object, text
from lamina.kernel import durable

PLACE = "lamina/storage.json"
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Choice:
    """`driver` has the data root; `aside` is the driver of a second store that is being made or kept, "" for none."""

    driver: str
    aside: str = ""
    details: JsonObject = field(default_factory=dict)


def read_choice(root: Path) -> Choice | None:
    """What was put down; None for a data root that was never moved.

    Raises:
        CorruptRecord: the file cannot be understood. Guessing could show an old state as the present one.
    """
    place = root / PLACE
    try:
        data = place.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        found = parse_object(data, what=str(place), max_bytes=_MAX_BYTES)
        choice = Choice(text(found, "driver"), text(found, "aside"), mapping(found, "details"))
    except InvalidArgument as error:
        raise CorruptRecord(str(error), hint="name the driver that has your images: --storage-driver NAME") from error
    if not choice.driver:
        raise CorruptRecord(f"{place} names no driver", hint="name the driver that has your images")
    return choice


def write_choice(root: Path, choice: Choice) -> None:
    """Put it down; when this returns it is on disk."""
    durable.make_dirs((root / PLACE).parent, 0o700)
    record: JsonObject = {"driver": choice.driver, "aside": choice.aside, "details": choice.details}
    durable.write_file(root / PLACE, go_json(record), 0o600)


def drop_choice(root: Path) -> None:
    """Forget it: what lies in the data root says the same. Again is fine."""
    place = root / PLACE
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
        durable.fsync_dir(place.parent)
    with contextlib.suppress(OSError):
        place.parent.rmdir()
