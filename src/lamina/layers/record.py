"""What is written per layer and per writable layer, in Docker's files (blocking).

`layerdb/sha256/<chain>/{diff,size,cache-id,parent,tar-split.json.gz}` and `layerdb/mounts/<name>/{mount-id,init-id,
parent}`. Source: moby layer/filestore.go. Values have no newline; readers trim white space.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import CorruptRecord, InvalidDigest
from lamina.ids import CacheId
from lamina.kernel.durable import begin_writing, fsync_dir
from lamina.oci.digest import ChainId, DiffId, parse_digest

TAR_SPLIT = "tar-split.json.gz"
_MAX_BYTES = 4096
_MOUNT_ID = re.compile(r"[0-9a-f]{64}(-init)?")


@dataclass(frozen=True, slots=True)
class Layer:
    """A registered, read-only changeset on its parent. `size_bytes` is this layer alone."""

    chain_id: ChainId
    diff_id: DiffId
    parent: ChainId | None
    cache_id: CacheId
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RwLayer:
    """A writable layer. `init_id` is the layer between it and the image, None when there is none."""

    name: str
    mount_id: CacheId
    init_id: CacheId | None
    parent: ChainId | None


def read_layer(directory: Path, chain_id: ChainId) -> Layer:
    """Read a chain directory.

    Raises:
        CorruptRecord: a file is missing, empty or holds something else.
    """
    try:
        diff_id = DiffId(parse_digest(_read(directory, "diff")))
        parent_text = _read(directory, "parent", missing="")
        parent = ChainId(parse_digest(parent_text)) if parent_text else None
        size = _read(directory, "size")
    except InvalidDigest as error:
        raise CorruptRecord(f"layer record {directory}: {error}") from error
    cache_id = read_cache_id(directory)
    if not size.isdecimal():
        raise CorruptRecord(f"layer record {directory}: its size is {size!r}")
    if cache_id is None:
        raise CorruptRecord(f"layer record {directory} names no cache id")
    return Layer(chain_id, diff_id, parent, cache_id, int(size))


def read_cache_id(directory: Path) -> CacheId | None:
    """The driver's id that a chain directory (whole or not) names; None when it names none that is safe as a name."""
    text = _read(directory, "cache-id", missing="")
    if not text or "/" in text or text in {".", ".."}:
        return None
    return CacheId(text)


def write_layer(directory: Path, layer: Layer) -> None:
    """Complete a write-set: after this everything in it is on disk. The tar-split is already there and synced."""
    _write(directory, "diff", layer.diff_id, sync=True)
    _write(directory, "size", str(layer.size_bytes), sync=True)
    _write(directory, "cache-id", layer.cache_id, sync=True)
    if layer.parent is not None:
        _write(directory, "parent", layer.parent, sync=True)
    fsync_dir(directory)


def write_cache_id(directory: Path, cache_id: CacheId) -> None:
    """Note in a write-set which driver layer belongs to it, so that a crash leaves a trace."""
    _write(directory, "cache-id", cache_id, sync=False)


def read_rw(directory: Path) -> RwLayer:
    """Read a mount directory.

    Raises:
        CorruptRecord: an id is missing or is none.
    """
    mount_id = _read(directory, "mount-id")
    init_id = _read(directory, "init-id", missing="")
    parent = _read(directory, "parent", missing="")
    if not _MOUNT_ID.fullmatch(mount_id) or (init_id and not _MOUNT_ID.fullmatch(init_id)):
        raise CorruptRecord(f"mount record {directory} names a layer that cannot be one")
    try:
        chain = ChainId(parse_digest(parent)) if parent else None
    except InvalidDigest as error:
        raise CorruptRecord(f"mount record {directory}: {error}") from error
    return RwLayer(directory.name, CacheId(mount_id), CacheId(init_id) if init_id else None, chain)


def write_rw(directory: Path, layer: RwLayer) -> None:
    """Write a mount directory in Docker's order; it is on disk with whatever is synced next."""
    directory.mkdir(0o755, parents=True)
    _write(directory, "mount-id", layer.mount_id, sync=False)
    if layer.init_id is not None:
        _write(directory, "init-id", layer.init_id, sync=False)
    if layer.parent is not None:
        _write(directory, "parent", layer.parent, sync=False)


def _read(directory: Path, name: str, *, missing: str | None = None) -> str:
    try:
        with open(directory / name, "rb") as file:
            return file.read(_MAX_BYTES).decode("ascii").strip()
    except (FileNotFoundError, NotADirectoryError) as error:
        if missing is not None:
            return missing
        raise CorruptRecord(f"record {directory} has no file {name}") from error
    except UnicodeDecodeError as error:
        raise CorruptRecord(f"record {directory}: {name} holds no text") from error


def _write(directory: Path, name: str, text: str, *, sync: bool) -> None:
    fd = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
        os.fchmod(fd, 0o644)
        if sync:
            os.fsync(fd)
        else:
            begin_writing(fd)
    finally:
        os.close(fd)
