"""The hello-world image: made here from nothing, the same to the bit on every machine (blocking: it writes files).

An index of two platforms; each image has two layers, so that there is a stack to look at: the program, and the file
that it changes when it runs, so that there is a copy-up to look at.
"""

from __future__ import annotations

import hashlib
import struct
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from lamina.jsonvalue import JsonObject, JsonValue, go_json
from lamina.kernel import durable
from lamina.oci import mediatype
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import DiffId, Digest, ImageId, digest_of, hex_of
from lamina.oci.manifest import encode_index, encode_manifest
from lamina.oci.platform import Platform
from lamina.registry.hello_program import ARCHITECTURES, Greeting, build

REPOSITORY = "library/hello-world"
TAG = "latest"
GREETINGS_PATH = "/greetings.txt"

_CREATED_S = 1_767_225_600
_CREATED = "2026-01-01T00:00:00Z"
_MESSAGE = """\
Hello from Lamina!

If you can read this, every part of the engine has done its work:

 1. The client asked the daemon for an image, over a socket.
 2. The daemon asked a registry which image suits this machine ({platform}).
 3. It fetched the layers, checked their digests and unpacked each into a
    directory of its own. Those directories are read-only from now on.
 4. It laid a thin writable layer on top: that is all this container owns.
 5. A runtime started this program in it, with its own view of the system.
 6. What the program prints travels back through the daemon to you.

The program has also added a line to /greetings.txt. That file belongs to a
layer of the image, so the kernel copied it up into the writable layer first;
the image is as it was. Look at it:  lamina diff CONTAINER
"""
_LINE = b"A container was here, and changed its own copy of this file.\n"
_FILE = b"This file came with the image.\n"


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """The image of one platform; `layers` are (diff id, gzip blob), lowest first."""

    platform: Platform
    config: bytes
    layers: tuple[tuple[DiffId, bytes], ...]
    manifest: bytes

    @property
    def image_id(self) -> ImageId:
        return ImageId(digest_of(self.config))

    @property
    def manifest_digest(self) -> Digest:
        return digest_of(self.manifest)


@dataclass(frozen=True, slots=True)
class HelloWorld:
    """All of it: the images of every platform and the index that names them."""

    images: tuple[PlatformImage, ...]
    index: bytes

    @property
    def digest(self) -> Digest:
        return digest_of(self.index)

    def blobs(self) -> Mapping[Digest, bytes]:
        """Layers and configs by digest; what two platforms share is there once."""
        found: dict[Digest, bytes] = {}
        for image in self.images:
            for blob in (*(gzip for _, gzip in image.layers), image.config):
                found[digest_of(blob)] = blob
        return found


def make() -> HelloWorld:
    """Build the image."""
    images = tuple(_platform_image(architecture) for architecture in ARCHITECTURES)
    manifests = [
        Descriptor(mediatype.OCI_MANIFEST, image.manifest_digest, len(image.manifest), image.platform)
        for image in images
    ]
    return HelloWorld(images, encode_index(manifests, media_type=mediatype.OCI_INDEX))


def message(architecture: str) -> bytes:
    """What the program of this architecture prints."""
    return _MESSAGE.format(platform=f"linux/{architecture}").encode()


def _platform_image(architecture: str) -> PlatformImage:
    program = build(architecture, Greeting(message(architecture), _LINE, GREETINGS_PATH.encode()))
    tars = (_tar("hello", program, 0o755), _tar(GREETINGS_PATH.lstrip("/"), _FILE, 0o644))
    layers = tuple((DiffId(digest_of(tar)), _gzip(tar)) for tar in tars)
    config = _config(architecture, tuple(diff_id for diff_id, _ in layers))
    manifest = encode_manifest(
        Descriptor(mediatype.OCI_CONFIG, digest_of(config), len(config)),
        [Descriptor(mediatype.OCI_LAYER_GZIP, digest_of(blob), len(blob)) for _, blob in layers],
        media_type=mediatype.OCI_MANIFEST,
    )
    return PlatformImage(Platform("linux", architecture), config, layers, manifest)


def _config(architecture: str, diff_ids: tuple[DiffId, ...]) -> bytes:
    steps: list[tuple[str, bool]] = [
        ("add /hello: the program, written byte by byte", False),
        (f"add {GREETINGS_PATH}: the file that the program changes", False),
        ('CMD ["/hello"]', True),
    ]
    history: list[JsonValue] = []
    for step, is_empty in steps:
        entry: JsonObject = {"created": _CREATED, "created_by": step}
        if is_empty:
            entry["empty_layer"] = True
        history.append(entry)
    config: JsonObject = {
        "architecture": architecture,
        "config": {
            "Env": ["PATH=/"],
            "Cmd": ["/hello"],
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": "hello-world"},
        },
        "created": _CREATED,
        "history": history,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]},
    }
    return go_json(config)


def _tar(name: str, content: bytes, mode: int) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = len(content), mode, _CREATED_S
    body = header.tobuf(tarfile.USTAR_FORMAT) + content
    return body + bytes(-len(body) % 512) + bytes(1024)


def _gzip(data: bytes) -> bytes:
    """A gzip file of stored blocks: compressors differ from machine to machine, and the digest must not."""
    out = BytesIO()
    out.write(b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff")  # no name, no time, unknown system
    blocks = [data[at : at + 0xFFFF] for at in range(0, len(data), 0xFFFF)]
    for number, block in enumerate(blocks, start=1):
        out.write(struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ 0xFFFF) + block)
    out.write(struct.pack("<II", zlib.crc32(data), len(data)))
    return out.getvalue()


def write_oci_layout(hello: HelloWorld, directory: Path) -> None:
    """Write an OCI image layout; `directory` must not exist."""
    blobs = directory / "blobs" / "sha256"
    durable.make_dirs(blobs, 0o755)
    everything = [*hello.blobs().values(), *(image.manifest for image in hello.images), hello.index]
    for blob in everything:
        durable.write_file(blobs / hashlib.sha256(blob).hexdigest(), blob, 0o644)
    top = Descriptor(
        mediatype.OCI_INDEX,
        hello.digest,
        len(hello.index),
        annotations={"org.opencontainers.image.ref.name": TAG},
    )
    durable.write_file(directory / "index.json", encode_index([top], media_type=mediatype.OCI_INDEX), 0o644)
    durable.write_file(directory / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644)


def docker_archive(image: PlatformImage, name: str = "hello-world:latest") -> bytes:
    """The tar that `docker load` reads, of one platform."""
    config_name = f"{hex_of(image.image_id)}.json"
    layer_names: list[JsonValue] = []
    out = BytesIO()
    for diff_id, blob in image.layers:
        layer_name = f"{hex_of(diff_id)}/layer.tar"
        layer_names.append(layer_name)
        out.write(_member(layer_name, zlib.decompress(blob, wbits=31)))
    out.write(_member(config_name, image.config))
    manifest: list[JsonValue] = [{"Config": config_name, "RepoTags": [name], "Layers": layer_names}]
    out.write(_member("manifest.json", go_json(manifest)))
    return out.getvalue() + bytes(1024)


def _member(name: str, content: bytes) -> bytes:
    return _tar(name, content, 0o644)[:-1024]
