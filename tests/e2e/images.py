"""Images that tests make themselves, from Debian's static busybox alone: no image is fetched from anywhere."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

BUSYBOX = Path("/bin/busybox")

PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
GROUP = "root:x:0:\nwheel:x:10:root\ndaemon:x:1:\nstaff:x:50:daemon\nnogroup:x:65534:\n"


def layer(entries: Iterable[tuple[str, str, int, bytes | str]]) -> bytes:
    """A layer tar from (name, kind, mode, content or link target); kinds: dir file link hard."""
    kinds = {"dir": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind, mode, content in entries:
            header = tarfile.TarInfo(name)
            header.type, header.mode, header.mtime = kinds[kind], mode, 1_700_000_000
            if kind == "file":
                data = content if isinstance(content, bytes) else content.encode()
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
            else:
                header.linkname = str(content)
                tar.addfile(header)
    return buffer.getvalue()


@cache
def busybox_layer() -> bytes:
    """busybox with all its names, users, groups and the usual directories."""
    names = subprocess.run([BUSYBOX, "--list"], capture_output=True, check=True, text=True).stdout.split()
    entries: list[tuple[str, str, int, bytes | str]] = [
        (name, "dir", mode, "") for name, mode in
        [("bin", 0o755), ("etc", 0o755), ("home", 0o755), ("root", 0o700), ("tmp", 0o1777), ("usr", 0o755),
         ("usr/bin", 0o755), ("usr/sbin", 0o755), ("var", 0o755), ("sbin", 0o755)]
    ]  # fmt: skip
    entries += [("etc/passwd", "file", 0o644, PASSWD), ("etc/group", "file", 0o644, GROUP)]
    entries.append(("bin/busybox", "file", 0o755, BUSYBOX.read_bytes()))
    entries += [(f"bin/{name}", "link", 0o777, "busybox") for name in sorted(set(names)) if name != "busybox"]
    return layer(entries)


def archive(tag: str, layers: list[bytes], config: Mapping[str, object]) -> bytes:
    """A `docker save` archive of one image."""
    diff_ids = ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]
    image = json.dumps(
        {
            "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": f"layer {n}"} for n in range(len(layers))],
        }
    ).encode()
    image_id = hashlib.sha256(image).hexdigest()
    names = [f"{digest[7:]}/layer.tar" for digest in diff_ids]
    manifest = json.dumps([{"Config": f"{image_id}.json", "RepoTags": [tag], "Layers": names}]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in [
            *dict(zip(names, layers, strict=True)).items(),
            (f"{image_id}.json", image),
            ("manifest.json", manifest),
        ]:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


@cache
def busybox(tag: str = "busybox:latest") -> bytes:
    """`docker load` input for a small usable system."""
    return archive(
        tag,
        [busybox_layer()],
        {"Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
    )


@cache
def with_volume() -> bytes:
    """An image that declares a volume holding a file, a user, a working directory and an entrypoint."""
    top = layer(
        [("data", "dir", 0o751, ""), ("data/seed", "file", 0o604, "from the image\n"), ("work", "dir", 0o755, "")]
    )
    config = {
        "Env": ["PATH=/bin", "COLOR=blue"], "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["cat /data/seed"],
        "Volumes": {"/data": {}}, "WorkingDir": "/work", "User": "daemon:staff", "Labels": {"kind": "test"},
        "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT",
    }  # fmt: skip
    return archive("with-volume:1", [busybox_layer(), top], config)


def compressed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def unpack_busybox(target: Path) -> Path:
    """The root of the busybox image, for the tests that need no layers."""
    with tarfile.open(fileobj=io.BytesIO(busybox_layer())) as layer_tar:
        for member in layer_tar:
            layer_tar.extract(member, target, filter="tar")
    return target
