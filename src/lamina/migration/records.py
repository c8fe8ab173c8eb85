"""What is not layers: which driver each container's record names, image configs, tags, the cache of digests (blocking).

Records are changed as JSON, key by key, so that whatever another engine wrote beside stays.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lamina.containers.size_limit import size_limit
from lamina.containers.store import CONFIG, HOST_CONFIG, MAX_RECORD_BYTES
from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject, go_json, mapping, parse_object, text
from lamina.kernel import durable
from lamina.rootfs.copytree import copy_tree
from lamina.rootfs.remove import remove_tree

_ID = re.compile(r"[0-9a-f]{64}")
_TREES = ("imagedb", "distribution")
_TAGS = "repositories.json"
_MAX_TAGS_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """One container as its record tells it. `limit_bytes` bounds its writable layer, None for no limit."""

    id: str
    name: str
    driver: str
    limit_bytes: int | None


def containers(root: Path) -> dict[str, ContainerRecord]:
    """Every container with a readable record, by id. Docker takes one without a driver for aufs."""
    found: dict[str, ContainerRecord] = {}
    for container_id, record in _records(root):
        try:
            name, driver = text(record, "Name").removeprefix("/"), text(record, "Driver") or "aufs"
        except InvalidArgument:
            continue
        found[container_id] = ContainerRecord(container_id, name, driver, _limit(root, container_id))
    return found


def set_driver(root: Path, ids: Iterable[str], driver: str) -> None:
    """Let these containers' records name this driver, durably. Again is fine; those that are gone are passed over."""
    wanted = set(ids)
    for container_id, record in _records(root):
        if container_id in wanted and record.get("Driver") != driver:
            place = root / "containers" / container_id / CONFIG
            mode = stat.S_IMODE(place.stat().st_mode)
            durable.write_file(place, go_json({**record, "Driver": driver}) + b"\n", mode)


def forget_containers(root: Path, ids: Iterable[str]) -> None:
    """Remove the records of these containers."""
    for container_id in ids:
        place = root / "containers" / container_id
        gone = place.with_name(f".gone-{container_id}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(place, gone)
            remove_tree(gone)


def copy_image_records(old: Path, new: Path) -> None:
    """Give the store `new` the images, tags and digests of `old`, file by file; on disk with the next sync."""
    durable.make_dirs(new)
    for name in _TREES:
        remove_tree(new / name)
        if (old / name).is_dir():
            copy_tree(old / name, new / name)
    try:
        tags = (old / _TAGS).read_bytes()
    except FileNotFoundError:
        (new / _TAGS).unlink(missing_ok=True)
    else:
        durable.write_file(new / _TAGS, tags, 0o600)


def images(store: Path) -> frozenset[str]:
    """The image ids (without algorithm) that have a config."""
    place = store / "imagedb/content/sha256"
    return frozenset(name for name in os.listdir(place) if _ID.fullmatch(name)) if place.is_dir() else frozenset()


def tags(store: Path) -> dict[str, str]:
    """References and the ids of their images."""
    try:
        document = parse_object((store / _TAGS).read_bytes(), what=_TAGS, max_bytes=_MAX_TAGS_BYTES)
    except FileNotFoundError:
        return {}
    found: dict[str, str] = {}
    repositories = mapping(document, "Repositories")
    for name in repositories:
        for reference, image in mapping(repositories, name).items():
            found[reference] = str(image)
    return found


def _records(root: Path) -> Iterator[tuple[str, JsonObject]]:
    directory = root / "containers"
    for name in sorted(os.listdir(directory)) if directory.is_dir() else ():
        if not _ID.fullmatch(name):
            continue
        try:
            data = (directory / name / CONFIG).read_bytes()
            yield name, parse_object(data, what=CONFIG, max_bytes=MAX_RECORD_BYTES)
        except (OSError, InvalidArgument):
            continue  # no engine loads it either


def _limit(root: Path, container_id: str) -> int | None:
    try:
        data = (root / "containers" / container_id / HOST_CONFIG).read_bytes()
        return size_limit(parse_object(data, what=HOST_CONFIG, max_bytes=MAX_RECORD_BYTES))
    except (OSError, InvalidArgument):
        return None
