"""A data root with everything in it that a migration could lose, and what identifies it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lamina.ids import CacheId
from lamina.layers.pool import WorkerPool
from lamina.migration.records import containers
from lamina.migration.stores import Store, opened
from tests.conformance.trees import (
    Append,
    Chmod,
    Chown,
    Edit,
    HardLink,
    MakeDir,
    Node,
    Remove,
    Rename,
    SetXattr,
    Shown,
    Symlink,
    Write,
    apply_edits,
    shown,
)
from tests.e2e import images
from tests.e2e.engines import PATIENCE, Engine

T = TypeVar("T")

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw=ep, revision 2: what ping has."""
ODD = os.fsdecode(b"odd-\xff\xfe-name")
SPARSE_BYTES = 64 << 20


def _pax(entries: Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for header, data in entries:
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return out.getvalue()


def _entry(
    name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, data: bytes = b"", *, link: str = "",
    xattrs: Mapping[str, bytes] | None = None, device: tuple[int, int] = (0, 0), owner: int = 0,
) -> tuple[tarfile.TarInfo, bytes]:  # fmt: skip
    header = tarfile.TarInfo(name)
    header.type, header.mode, header.linkname, header.mtime = kind, mode, link, 1_600_000_000
    header.uid = header.gid = owner
    header.devmajor, header.devminor = device
    header.pax_headers = {
        "mtime": "1600000000.123456789",
        **{f"SCHILY.xattr.{key}": value.decode("latin-1") for key, value in (xattrs or {}).items()},
    }
    return header, data


def middle_layer() -> bytes:
    """Everything that a layer can hold, and whiteouts of what lies below."""
    directory, symlink, link = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    return _pax(
        [
            _entry("etc", directory, 0o755),
            _entry("etc/.wh.group", mode=0),
            _entry("opt", directory, 0o2775, owner=7),
            _entry("opt/tool", mode=0o4755, data=b"#!/bin/sh\n" * 500, xattrs={"user.kind": b"tool"}),
            _entry("opt/ping", mode=0o755, data=b"ping", xattrs={"security.capability": CAPABILITY}),
            _entry("opt/other-name", link, link="opt/tool"),
            _entry("opt/link", symlink, 0o777, link="/does/not/exist"),
            _entry("opt/null", tarfile.CHRTYPE, 0o666, device=(1, 3)),
            _entry("opt/pipe", tarfile.FIFOTYPE, 0o600),
            _entry(f"opt/{ODD}", data=b"odd"),
            _entry("opt/empty", directory, 0o700),
            _entry("opt/big", data=bytes(range(256)) * 4096),
            _entry("srv", directory, 0o755),
            _entry("srv/a", data=b"a"),
            _entry("srv/b", data=b"b"),
            _entry("srv/deep", directory, 0o755),
            _entry("srv/deep/er", directory, 0o755),
            _entry("srv/deep/er/leaf", data=b"leaf"),
        ]
    )


def top_layer() -> bytes:
    """An opaque directory, a file that became a directory and a directory that became a file."""
    directory = tarfile.DIRTYPE
    return _pax(
        [
            _entry("srv", directory, 0o751),
            _entry("srv/.wh..wh..opq", mode=0),
            _entry("srv/only", data=b"only"),
            _entry("opt", directory, 0o2775, owner=7),
            _entry("opt/pipe", directory, 0o755),
            _entry("opt/pipe/inside", data=b"was a pipe"),
            _entry("opt/empty", data=b"was a directory"),
        ]
    )


SHARED_EDITS: tuple[Edit, ...] = (
    Write("new file", b"new\n" * 1000, 0o640),
    SetXattr("new file", "user.note", b"\x00\x01binary"),
    HardLink("second name", "new file"),
    HardLink("bin/third name", "new file"),
    Append("etc/passwd", b"me:x:1000:1000::/:/bin/sh\n"),
    Write("capable", b"x", 0o755),
    SetXattr("capable", "security.capability", CAPABILITY),
    SetXattr("home", "user.dir", b"on a directory"),
    Node("device", stat.S_IFCHR, os.makedev(1, 5), 0o620),
    Node("block", stat.S_IFBLK, os.makedev(7, 3), 0o600),
    Node("fifo", stat.S_IFIFO, 0, 0o644),
    Node("socket", stat.S_IFSOCK, 0, 0o755),
    Symlink("dangling", "../../nowhere"),
    MakeDir("setgid", 0o2775),
    Chown("setgid", 3, 4),
    Write("setgid/mine", b"group zero"),
    Chown("setgid/mine", 0, 0),
    Write(ODD, b"not UTF-8"),
    MakeDir(f"d-{ODD}"),
    Write(f"d-{ODD}/x", b"y"),
    Write("x" * 255, b"long"),
    Remove("var"),
    MakeDir("var"),
    Write("var/again", b"made again"),
    Chmod("tmp", 0o700),
    Chown("root", 12, 34),
    Remove("bin/vi"),
    Write("usr/setuid", b"s", 0o4711),
)
EDITS: Mapping[str, tuple[Edit, ...]] = {
    "plain": SHARED_EDITS,
    "layered": (
        *SHARED_EDITS,
        Append("opt/other-name", b"more"),  # of two names of one inode
        HardLink("opt/a link to the image", "opt/big"),
        Remove("opt/ping"),
        Remove("srv/a"),
        Rename("srv/deep", "srv/moved"),
        Remove("opt/empty"),
        Write("opt/empty", b"now a file"),
        Remove("opt/link"),
        MakeDir("opt/link"),
        Write("opt/link/file", b"in a directory that was a link"),
    ),
}
"""What the two containers wrote: one on a single layer, one on several."""


@dataclass(frozen=True)
class Made:
    """What a data root shows, whatever driver it has."""

    tars: Mapping[str, str]
    framing: Mapping[str, str]
    records: Mapping[str, str]
    trees: Mapping[str, Mapping[str, Shown]]


def build(engine: Engine) -> None:
    """Three images that share layers and two stopped containers, made by a daemon; their edits by hand."""
    config: dict[str, object] = {"Cmd": ["sh", "-c", "cat /mark"], "Env": ["PATH=/bin"]}
    base, middle, top = images.busybox_layer(), middle_layer(), top_layer()
    engine.start()
    for tag, layers in (("one:1", [base]), ("two:1", [base, middle]), ("three:1", [base, middle, top])):
        engine.docker("load", stdin=images.archive(tag, layers, config))
    engine.docker("tag", "two:1", "second/name:tag")
    for name, image in (("plain", "one:1"), ("layered", "two:1")):
        command = f"echo {name} >/mark; cat /mark"
        engine.docker("run", "--name", name, "--net", "none", image, "sh", "-c", command)
    engine.stop()
    edit(engine)


def edit(engine: Engine) -> None:
    """What the containers are said to have written is written, through the driver's own mounts."""
    assert engine.data_root is not None
    root = engine.data_root
    with WorkerPool() as pool, opened(root, engine.storage_driver, options_of(engine), pool) as store:
        for container_id, record in containers(root).items():
            mount_id = store.layers.rw(container_id).mount_id
            with store.mounts.mounted(mount_id) as tree:
                apply_edits(tree, EDITS[record.name])
                with (tree / "sparse").open("wb") as file:
                    file.seek(SPARSE_BYTES)
                    file.write(b"end")
                os.utime(tree / "sparse", ns=(1, 1_500_000_000_000_000_001))


def options_of(engine: Engine) -> dict[str, str]:
    """The storage options that an engine is started with."""
    given = [word.removeprefix("--storage-opt=") for word in engine.arguments if word.startswith("--storage-opt=")]
    return dict(option.split("=", 1) for option in given)


def observe(root: Path, driver: str, options: Mapping[str, str] | None = None) -> Made:
    """Open the store and look at everything in it."""
    with WorkerPool() as pool, opened(root, driver, options or {}, pool) as store:
        assert store.warnings == ()
        tars, framing = {}, {}
        trees: dict[str, Mapping[str, Shown]] = {}
        for layer in store.layers.layers():
            out = _Hashed()
            store.layers.write_tar(layer.chain_id, out)
            tars[layer.chain_id] = out.hash.hexdigest()
            with store.layers.reading(layer.chain_id) as (tar_split, _):
                framing[layer.chain_id] = hashlib.sha256(tar_split.read_bytes()).hexdigest()
            trees[layer.chain_id] = _tree(store, layer.cache_id)
        for container_id, record in containers(root).items():
            assert record.driver == driver
            trees[record.name] = _tree(store, store.layers.rw(container_id).mount_id)
        return Made(tars, framing, _records(store.images), trees)


class _Hashed:
    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self.hash.update(data)


def _tree(store: Store, cache_id: CacheId) -> Mapping[str, Shown]:
    with store.mounts.mounted(cache_id) as tree:
        sparse = tree / "sparse"
        if sparse.exists():
            status = sparse.stat()
            assert status.st_size == SPARSE_BYTES + 3
            assert status.st_blocks * 512 < SPARSE_BYTES // 4, "holes were filled"
        found = dict(shown(tree))
    del found["."]  # every overlay2 layer's root is 0755 root:root, as dockerd makes it
    return found


def _records(store: Path) -> dict[str, str]:
    """Image configs, tags and the cache of digests, file by file."""
    found = {}
    for name in ("imagedb", "distribution"):
        for place in sorted((store / name).rglob("*")):
            if place.is_file():
                found[str(place.relative_to(store))] = hashlib.sha256(place.read_bytes()).hexdigest()
    found["tags"] = json.dumps(json.loads((store / "repositories.json").read_text()), sort_keys=True)
    return found


def migrate(
    root: Path, *arguments: str, check: bool = True, prefix: Sequence[str] = (), host: str = "unix:///nowhere"
) -> subprocess.CompletedProcess[str]:
    """`lamina system migrate` on this data root; `host` is where its daemon listens, if it has one."""
    argv = [
        *prefix, sys.executable, "-m", "lamina", "-H", host, "system", "migrate", "--data-root", str(root), *arguments
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120 * PATIENCE, check=False)
    if check:
        assert done.returncode == 0, f"{argv[3:]}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def told(engine: Engine) -> dict[str, str]:
    """What the docker client is told: ids, tags, changes, saved images to the byte."""
    found = {
        "images": "\n".join(sorted(engine.out("images", "-a", "--no-trunc", "--digests", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}}").splitlines())),
        "containers": "\n".join(sorted(engine.out("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}} {{.Image}} {{.Command}}").splitlines())),
    }  # fmt: skip
    for name in EDITS:
        found[f"diff {name}"] = "\n".join(sorted(engine.out("diff", name).splitlines()))
    for tag in ("one:1", "two:1", "three:1"):
        found[f"save {tag}"] = hashlib.sha256(engine.docker("save", tag).stdout).hexdigest()
    return found


def started(engine: Engine, look: Callable[[Engine], T]) -> T:
    """The daemon runs for as long as somebody looks."""
    engine.start()
    try:
        return look(engine)
    finally:
        engine.stop()
