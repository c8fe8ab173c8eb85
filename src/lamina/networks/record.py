"""What is kept about the networks: their ids, and which bridge this data root uses (blocking).

`<root>/network/files/lamina.json`; dockerd keeps its own `local-kv.db` beside it, which is left alone.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import InvalidArgument
from lamina.ids import new_network_id
from lamina.jsonvalue import go_json, parse_object, string_map, text
from lamina.kernel.durable import write_file

NETWORKS = ("bridge", "host", "none")


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """`ids` by network name; `bridge` is the interface of the last run, or empty."""

    ids: dict[str, str]
    created: str
    bridge: str = ""


def load_record(directory: Path, now: str) -> NetworkRecord:
    """Read the record, or make one. A broken file is replaced: nothing depends on the ids but their sameness."""
    path = directory / "lamina.json"
    with contextlib.suppress(FileNotFoundError, InvalidArgument):
        stored = parse_object(path.read_bytes(), what=str(path))
        record = NetworkRecord(string_map(stored, "Ids"), text(stored, "Created", now), text(stored, "Bridge"))
        if all(len(record.ids.get(name, "")) == 64 for name in NETWORKS):
            return record
    record = NetworkRecord({name: new_network_id() for name in NETWORKS}, now)
    save_record(directory, record)
    return record


def save_record(directory: Path, record: NetworkRecord) -> None:
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    encoded = go_json({"Ids": dict(record.ids), "Created": record.created, "Bridge": record.bridge})
    write_file(directory / "lamina.json", encoded, mode=0o600)
