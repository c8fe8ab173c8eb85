"""Files out of and into containers."""

import asyncio
import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard

from lamina.containers.record import Container, MountPoint
from lamina.containers.state import Status
from lamina.engine.copy import CopyIn, CopyOut, Roots, StatPath
from lamina.errors import Conflict, InvalidArgument, NoSuchContainer, NotFound, PermissionDenied
from lamina.jsonvalue import JsonObject
from lamina.kernel.mounts import mount_table
from tests.unit.engine.stores import Stores, tar_of

pytestmark = pytest.mark.root


def copy_in(stores: Stores, ref: str, path: str, data: bytes, *, keep: bool = True, own: bool = False) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]

    verb = CopyIn(stores.containers, Roots(stores.layers, stores.volumes), stores.workers, stores)
    asyncio.run(verb(ref, path, chunks(), no_overwrite_dir_non_dir=keep, copy_uid_gid=own))


def copy_out(stores: Stores, ref: str, path: str) -> tuple[JsonObject, dict[str, bytes]]:
    async def run() -> tuple[JsonObject, bytes]:
        verb = CopyOut(stores.containers, Roots(stores.layers, stores.volumes), stores.workers, stores)
        stat, chunks = await verb(ref, path)
        return stat, b"".join([chunk async for chunk in chunks])

    stat, data = asyncio.run(run())
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            found[member.name] = file.read() if file else b""
    return stat, found


def look(stores: Stores, ref: str, path: str) -> JsonObject:
    return asyncio.run(StatPath(stores.containers, Roots(stores.layers, stores.volumes), stores.workers)(ref, path))


def mounts(stores: Stores) -> list[str]:
    return [entry.target for entry in mount_table() if entry.target.startswith(str(stores.root))]


def with_volume(stores: Stores, container: Container, *, rw: bool = True) -> Path:
    """Have the container's /data on a volume; the volume's directory."""
    volume = stores.volumes.create("vol")
    container.mounts["/data"] = MountPoint("volume", "", "/data", rw=rw, name="vol")
    return volume.mountpoint


def test_what_goes_in_comes_out_again(stores: Stores) -> None:
    box = stores.container()
    before = mounts(stores)
    copy_in(stores, "box", "/etc", tar_of({"copied": b"content", "deep/er": b"x" * 3_000_000}))
    stat, files = copy_out(stores, "box", "/etc/copied")
    assert files == {"copied": b"content"}
    assert (stat["name"], stat["size"], stat["mode"]) == ("copied", 7, 0o644)
    assert copy_out(stores, box.id, "/etc/deep/.")[1] == {".": b"", "./er": b"x" * 3_000_000}
    assert look(stores, "box", "/etc")["name"] == "etc"
    assert [action for _, action, _, _ in stores.told] == ["extract-to-dir", "archive-path", "archive-path"]
    assert mounts(stores) == before


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_a_compressed_archive_is_taken_apart_here_and_no_program_of_the_container_runs(stores: Stores, pack) -> None:
    box = stores.container()
    for program in ("xz", "bzip2", "gzip", "unpigz", "zstd"):
        stores.write(box, f"usr/bin/{program}", "#!/bin/sh\ntouch /tmp/ran\n")
    copy_in(stores, "box", "/", pack(tar_of({"file": b"content"})))
    assert stores.read(box, "file") == "content"
    assert not os.path.exists("/tmp/ran")


def test_a_volume_gets_what_is_copied_to_its_place(stores: Stores) -> None:
    box = stores.container()
    volume = with_volume(stores, box)
    copy_in(stores, "box", "/data", tar_of({"f": b"live"}))
    assert (volume / "f").read_bytes() == b"live"
    assert copy_out(stores, "box", "/data/f")[1] == {"f": b"live"}
    with pytest.raises(NotFound):
        copy_out(stores, "box", "/data/old")
    assert stores.read(box, "data/old") == "old"


def test_what_is_read_only_refuses(stores: Stores) -> None:
    fixed = stores.container("fixed", host_config={"ReadonlyRootfs": True})
    volume = with_volume(stores, fixed)
    with pytest.raises(PermissionDenied, match="container rootfs is marked read-only"):
        copy_in(stores, "fixed", "/etc", tar_of({"f": b"x"}))
    copy_in(stores, "fixed", "/data", tar_of({"f": b"x"}))
    with_volume(stores, fixed, rw=False)
    with pytest.raises(PermissionDenied, match="mounted volume is marked read-only"):
        copy_in(stores, "fixed", "/data", tar_of({"g": b"x"}))
    assert os.listdir(volume) == ["f"]


def test_what_is_mounted_is_not_replaced(stores: Stores, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("own")
    box = stores.container()
    box.hosts_path = str(hosts)
    assert copy_out(stores, "box", "/etc/hosts")[1] == {"hosts": b"own"}
    with pytest.raises(Conflict, match="device or resource busy"):
        copy_in(stores, "box", "/etc", tar_of({"hosts": b"planted"}))
    assert hosts.read_text() == "own"
    assert stores.read(box, "etc/hosts") == ""


def test_the_containers_own_user_can_be_given_what_is_made(stores: Stores) -> None:
    box = stores.container(user="app")
    copy_in(stores, "box", "/tmp/..", tar_of({"f": b"x"}), own=True)
    root = stores.layers.mount_rw(box.id)
    assert (root / "f").stat()[4:6] == (12, 34)
    stores.layers.unmount_rw(box.id)


def test_what_is_not_there_is_told_in_dockers_words(stores: Stores) -> None:
    stores.container()
    for attempt in (copy_out, look):
        with pytest.raises(NotFound, match="Could not find the file /none in container box"):
            attempt(stores, "box", "/none")
    with pytest.raises(NotFound, match="Could not find the file /none in container box"):
        copy_in(stores, "box", "/none", tar_of({"f": b""}))
    with pytest.raises(InvalidArgument, match="extraction point is not a directory"):
        copy_in(stores, "box", "/etc/passwd", tar_of({"f": b""}))
    with pytest.raises(NoSuchContainer):
        look(stores, "absent", "/")


def test_what_is_no_archive_is_refused(stores: Stores) -> None:
    stores.container()
    with pytest.raises(InvalidArgument):
        copy_in(stores, "box", "/", b"this is no tar archive" * 100)


def test_a_container_on_its_way_out_is_left_alone(stores: Stores) -> None:
    stores.container().state.status = Status.REMOVING
    with pytest.raises(Conflict):
        look(stores, "box", "/")


def test_a_symlink_to_the_host_leads_into_the_container(stores: Stores, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("key")
    box = stores.container()
    root = stores.layers.mount_rw(box.id)
    (root / "evil").symlink_to(secret)
    (root / "evil2").symlink_to("../../../../../../../.." + str(secret))
    for name in ("evil", "evil2"):
        with pytest.raises(NotFound):
            copy_out(stores, "box", f"/{name}/key")
        with pytest.raises(NotFound):
            copy_in(stores, "box", f"/{name}", tar_of({"planted": b"x"}))
        assert look(stores, "box", f"/{name}")["linkTarget"] == str(secret)
    stores.layers.unmount_rw(box.id)
    assert os.listdir(secret) == ["key"]


def test_a_reader_that_goes_away_leaves_nothing_mounted(stores: Stores) -> None:
    stores.container()
    copy_in(stores, "box", "/", tar_of({"big": b"x" * 30_000_000}))
    before = mounts(stores)

    async def run() -> None:
        verb = CopyOut(stores.containers, Roots(stores.layers, stores.volumes), stores.workers, stores)
        _, chunks = await verb("box", "/big")
        async for _ in chunks:
            break
        await chunks.aclose()

    asyncio.run(run())
    assert mounts(stores) == before
