"""Stores and archives that the image tests work on."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lamina.errors import Conflict, NoSuchLayer
from lamina.images.loading import ImageLoader
from lamina.images.lookup import ImageLookup
from lamina.images.saving import ImageSaver
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.images.unpacking import SpoolUnpacker
from lamina.layers.pool import WorkerPool
from lamina.layers.store import LayerStore
from lamina.oci.digest import ChainId, DiffId, chain_of
from lamina.storage.driver import StorageDriver
from lamina.storage.mounting import Mounts
from lamina.storage.overlay2.driver import Overlay2
from lamina.storage.vfs.driver import Vfs

DRIVERS = {"overlay2": Overlay2, "vfs": Vfs}


@dataclass(frozen=True)
class Sized:
    size_bytes: int


class PlainLayers:
    """A layer store of names alone, for rules that need no files: who holds what, and what goes when nobody does."""

    def __init__(self) -> None:
        self.parents: dict[ChainId, ChainId | None] = {}
        self.holds: Counter[ChainId] = Counter()

    def add(self, diff_ids: Sequence[str]) -> None:
        parent: ChainId | None = None
        for chain in chain_of([DiffId(text) for text in diff_ids]):  # type: ignore[arg-type]
            self.parents.setdefault(chain, parent)
            parent = chain

    def exists(self, chain_id: ChainId) -> bool:
        return chain_id in self.parents

    def get(self, chain_id: ChainId) -> Sized:
        if chain_id not in self.parents:
            raise NoSuchLayer(chain_id)
        return Sized(100)

    def hold(self, chain_id: ChainId) -> None:
        self.get(chain_id)
        self.holds[chain_id] += 1

    def release(self, chain_id: ChainId) -> tuple[ChainId, ...]:
        if not self.holds[chain_id]:
            raise Conflict(chain_id)
        self.holds[chain_id] -= 1
        gone: list[ChainId] = []
        at: ChainId | None = chain_id
        while at is not None and not self.holds[at] and at not in self.parents.values():
            gone.append(at)
            at = self.parents.pop(at)
        return tuple(gone)


def diff(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def config(*layers: str, **more: object) -> bytes:
    """The bytes of a config with layers of these names."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [diff(name) for name in layers]},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": name} for name in layers],
        **more,
    }
    return json.dumps(document, separators=(",", ":")).encode()


@dataclass
class Plain:
    """Stores over `PlainLayers`."""

    directory: Path
    layers: PlainLayers = field(default_factory=PlainLayers)

    def __post_init__(self) -> None:
        self.images = ImageStore(self.directory / "imagedb", self.layers)
        self.tags = TagStore(self.directory / "repositories.json")
        self.lookup = ImageLookup(self.images, self.tags)
        assert self.images.load() == []
        assert self.tags.load() == []

    def add(self, *layers: str, **more: object):
        """An image whose layers exist; its id."""
        self.layers.add([diff(name) for name in layers])
        return self.images.put(config(*layers, **more))


class Real:
    """Stores on disk, as the daemon builds them."""

    def __init__(self, root: Path, driver_name: str, pool: WorkerPool) -> None:
        self.root = root
        self.driver: StorageDriver = DRIVERS[driver_name](root)
        image = root / "image" / driver_name
        self.layers = LayerStore(image / "layerdb", self.driver, Mounts(self.driver))
        self.images = ImageStore(image / "imagedb", self.layers)
        self.tags = TagStore(image / "repositories.json")
        self.lookup = ImageLookup(self.images, self.tags)
        assert [*self.layers.load(), *self.images.load(), *self.tags.load()] == []
        self.scratch = root / "tmp"
        self.scratch.mkdir(exist_ok=True)
        self.pool = pool
        self.loader = ImageLoader(
            self.layers, self.images, self.tags, unpack=SpoolUnpacker(self.pool), scratch=self.scratch
        )
        self.saver = ImageSaver(self.layers, self.images, self.tags, self.lookup)

    def close(self) -> None:
        self.driver.close()

    def load(self, archive: bytes, piece: int = 1 << 16, report=lambda _: None):
        return self.loader.load(pieces(archive, piece), report)

    def save(self, *names: str) -> bytes:
        out = io.BytesIO()
        self.saver.save(self.saver.find(names), out)
        return out.getvalue()

    def is_empty(self) -> bool:
        """No layer, no image, no tag, and nothing half made."""
        leftovers = [*self.scratch.iterdir(), *self.driver.cache_ids()]
        temporary = self.root / "image" / self.driver.name / "layerdb" / "tmp"
        leftovers += list(temporary.iterdir()) if temporary.exists() else []
        return not (leftovers or self.layers.layers() or self.images.ids() or self.tags.all())


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def tar(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    """A tar of files, and of whatever else is given as a header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            header = tarfile.TarInfo(member[0])
            header.size = len(member[1])
            archive.addfile(header, io.BytesIO(member[1]))
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def known_layers() -> tuple[bytes, bytes]:
    """The two layers whose ids a real dockerd computed."""
    plain, linked, folder = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
    first = [
        ("etc", folder, 0o755, b""),
        ("etc/hello", plain, 0o644, b"hello\n"),
        ("data", folder, 0o755, b""),
        ("data/a", plain, 0o644, b"A" * 600),
        ("data/b", plain, 0o600, b""),
        ("data/b2", linked, 0o600, b"data/b"),
        ("data/l", tarfile.SYMTYPE, 0o777, b"a"),
    ]
    second = [
        ("etc", folder, 0o755, b""),
        ("etc/.wh.hello", plain, 0o600, b""),
        ("data", folder, 0o700, b""),
        ("data/.wh..wh..opq", plain, 0o600, b""),
        ("data/c", plain, 0o644, b"C" * 513),
    ]
    return _ustar(first), _ustar(second)


def _ustar(entries: list[tuple[str, bytes, int, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, kind, mode, data in entries:
            header = tarfile.TarInfo(name)
            header.type, header.mode, header.mtime = kind, mode, 1_700_000_000
            if kind == tarfile.REGTYPE:
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
            else:
                header.linkname = data.decode()
                archive.addfile(header)
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config_of(layers: Sequence[bytes], **more: object) -> bytes:
    """A config for these layer tars; for the two known ones its id is known too."""
    names = ["one", "two", *[f"step {number}" for number in range(3, len(layers) + 1)]][: len(layers)]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": name} for name in names],
        **more,
    }
    return json.dumps(document, separators=(",", ":")).encode()


KNOWN_IMAGE = "sha256:572d3b79e9151fd6048994a9000604b1199390ae6b4a976cc2716c8ee8583316"


def docker_archive(
    layers: Sequence[bytes],
    *,
    names: Sequence[str] = ("known:1",),
    stored: Sequence[bytes] | None = None,
    image_config: bytes | None = None,
) -> bytes:
    """An archive in the old layout; `stored` are the layers as they lie in it (compressed ones, wrong ones)."""
    raw = image_config if image_config is not None else config_of(layers)
    where = [f"{number:064x}/layer.tar" for number in range(len(layers))]
    row = {"Config": f"{sha256(raw)[7:]}.json", "RepoTags": list(names) or None, "Layers": where}
    return tar(
        *zip(where, stored if stored is not None else layers, strict=True),
        (row["Config"], raw),
        ("manifest.json", json.dumps([row]).encode()),
    )
