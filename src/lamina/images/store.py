"""The image store: configs by image id, and what is remembered beside them (blocking).

On disk (Docker's `imagedb`): `content/sha256/<hex>` holds the config bytes; `metadata/sha256/<hex>/` holds `parent`,
`lastUpdated` and `builtLocally`, each only when there is something to say. Read once at start and kept in memory.
Each image holds the top of its layers. Source: moby image/store.go, image/fs.go.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

from lamina.errors import InvalidArgument, InvalidDigest, LaminaError, NoSuchImage
from lamina.images.holds import LayerHolds
from lamina.kernel import durable
from lamina.oci.config import ImageConfig, decode_config, image_id
from lamina.oci.digest import ChainId, Digest, ImageId, hex_of, parse_digest
from lamina.rootfs.remove import remove_tree

_HEX = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


@dataclass(eq=False, slots=True)
class _Kept:
    config: ImageConfig
    parent: ImageId | None = None
    last_updated: str = ""
    built_locally: bool = False
    children: set[ImageId] = field(default_factory=set)


class ImageStore:
    """Images by id; safe to use from several threads.

    Who only looks never waits for the disk: the event loop does look.
    """

    def __init__(self, directory: Path, layers: LayerHolds) -> None:
        self._content = directory / "content" / "sha256"
        self._metadata = directory / "metadata" / "sha256"
        self._layers = layers
        self._images: dict[ImageId, _Kept] = {}
        self._lock = threading.RLock()
        self._writing = threading.RLock()

    def load(self) -> list[str]:
        """Read what is on disk and take the holds; call once, before anything else.

        An image whose bytes, config or layers are not right is left out and its files stay.

        Returns:
            A warning per image left out.
        """
        durable.make_dirs(self._content, 0o700)
        durable.make_dirs(self._metadata, 0o700)
        warnings: list[str] = []
        for name in sorted(os.listdir(self._content)):
            if not _HEX.fullmatch(name):
                continue
            try:
                self._load_one(name)
            except (LaminaError, OSError) as error:
                warnings.append(f"image {name[:12]} is left out: {error}")
        for found in list(self._images):
            self._load_parent(found)
        return warnings

    def put(self, raw: bytes) -> ImageId:
        """Keep the image with these config bytes; again is fine. Its layers must be registered.

        Raises:
            InvalidManifest: the bytes are no image config.
            NoSuchLayer: its layers are not there.
        """
        config = decode_config(raw)
        with self._writing:
            if self.exists(config.image_id):
                return config.image_id
            with contextlib.ExitStack() as undo:
                self._hold(config.top, undo)
                durable.write_file(self._content / hex_of(config.image_id), raw, 0o600)
                undo.pop_all()
            with self._lock:
                self._images[config.image_id] = _Kept(config)
            return config.image_id

    def get(self, wanted: ImageId) -> ImageConfig:
        """The config of an image. Raises NoSuchImage."""
        return self._kept(wanted).config

    def exists(self, wanted: ImageId) -> bool:
        with self._lock:
            return wanted in self._images

    def ids(self) -> list[ImageId]:
        """Every image, in no order that means anything."""
        with self._lock:
            return list(self._images)

    def delete(self, wanted: ImageId) -> tuple[ChainId, ...]:
        """Forget an image and release its layers; its children lose their parent.

        Returns:
            The layers that went away, uppermost first.

        Raises:
            NoSuchImage: it is not there.
        """
        with self._writing:
            kept = self._kept(wanted)
            for child in self.children(wanted):
                with contextlib.suppress(FileNotFoundError):
                    (self._meta(child) / "parent").unlink()
            remove_tree(self._meta(wanted))
            (self._content / hex_of(wanted)).unlink(missing_ok=True)
            durable.fsync_dir(self._content)
            with self._lock:
                for child in kept.children:
                    self._images[child].parent = None
                del self._images[wanted]
                if kept.parent in self._images:
                    self._images[kept.parent].children.discard(wanted)
        # Without a lock: a large layer takes its time to go, and nobody else should wait for it.
        top = kept.config.top
        return self._layers.release(top) if top is not None else ()

    def parent(self, wanted: ImageId) -> ImageId | None:
        """The image this one was made from here, if that is known."""
        return self._kept(wanted).parent

    def set_parent(self, child: ImageId, parent: ImageId) -> None:
        """Remember that `child` was made from `parent`; both must be there. Raises NoSuchImage."""
        with self._writing:
            kept, above = self._kept(child), self._kept(parent)
            self._write_meta(child, "parent", parent.encode())
            with self._lock:
                if kept.parent in self._images:
                    self._images[kept.parent].children.discard(child)
                kept.parent = parent
                above.children.add(child)

    def children(self, wanted: ImageId) -> list[ImageId]:
        """The images made from this one here."""
        with self._lock:
            kept = self._images.get(wanted)
            return sorted(kept.children) if kept else []

    def last_updated(self, wanted: ImageId) -> str:
        """When the image was last tagged (RFC 3339); "" when it never was."""
        return self._kept(wanted).last_updated

    def set_last_updated(self, wanted: ImageId, moment: str) -> None:
        """Remember when the image was tagged. Raises NoSuchImage."""
        with self._writing:
            kept = self._kept(wanted)
            self._write_meta(wanted, "lastUpdated", moment.encode())
            kept.last_updated = moment

    def built_locally(self, wanted: ImageId) -> bool:
        """Whether this engine made the image (commit, build)."""
        return self._kept(wanted).built_locally

    def set_built_locally(self, wanted: ImageId) -> None:
        """Remember that this engine made the image. Raises NoSuchImage."""
        with self._writing:
            kept = self._kept(wanted)
            self._write_meta(wanted, "builtLocally", b"\x01")
            kept.built_locally = True

    def resolve_prefix(self, text: str) -> ImageId:
        """The image whose id begins so (with or without `sha256:`).

        Raises:
            NoSuchImage: none, or more than one.
        """
        match = _PREFIX.fullmatch(text)
        if match is None:
            raise NoSuchImage(f"No such image: {text}")
        start = f"sha256:{match[1]}"
        with self._lock:
            whole = ImageId(Digest(start))
            if whole in self._images:
                return whole
            found = [candidate for candidate in self._images if candidate.startswith(start)]
        if len(found) > 1:
            raise NoSuchImage(
                f"No such image: {text}", hint=f"{len(found)} image ids begin with {text}: give more of it"
            )
        if not found:
            raise NoSuchImage(f"No such image: {text}")
        return found[0]

    def _kept(self, wanted: ImageId) -> _Kept:
        with self._lock:
            kept = self._images.get(wanted)
        if kept is None:
            raise NoSuchImage(f"No such image: {wanted}")
        return kept

    def _hold(self, top: ChainId | None, undo: contextlib.ExitStack) -> None:
        if top is not None:
            self._layers.hold(top)
            undo.callback(self._layers.release, top)

    def _load_one(self, name: str) -> None:
        raw = (self._content / name).read_bytes()
        if hex_of(image_id(raw)) != name:
            raise InvalidDigest("its config has other bytes than its id says")
        config = decode_config(raw)
        if config.os != "linux":
            raise InvalidArgument(f"it is for {config.os}")
        top = config.top
        if top is not None:
            if not self._layers.exists(top):
                raise InvalidArgument("its layers are not there")
            self._layers.hold(top)
        self._images[config.image_id] = _Kept(
            config,
            last_updated=self._read_meta(config.image_id, "lastUpdated").decode("ascii", "replace"),
            built_locally=bool(self._read_meta(config.image_id, "builtLocally")),
        )

    def _load_parent(self, child: ImageId) -> None:
        text = self._read_meta(child, "parent").decode("ascii", "replace").strip()
        try:
            parent = ImageId(parse_digest(text))
        except InvalidDigest:
            return
        if parent in self._images and parent != child:
            self._images[child].parent = parent
            self._images[parent].children.add(child)

    def _meta(self, wanted: ImageId) -> Path:
        return self._metadata / hex_of(wanted)

    def _read_meta(self, wanted: ImageId, key: str) -> bytes:
        try:
            return (self._meta(wanted) / key).read_bytes()
        except FileNotFoundError:
            return b""

    def _write_meta(self, wanted: ImageId, key: str, data: bytes) -> None:
        durable.make_dirs(self._meta(wanted), 0o700)
        durable.write_file(self._meta(wanted) / key, data, 0o600)
