"""Volumes by name, labels and options, and which containers hold them."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lamina.errors import Conflict, CorruptRecord, InvalidArgument, NoSuchVolume, Unsupported
from lamina.kernel.mounts import is_mountpoint
from lamina.volumes.bolt import Bucket
from lamina.volumes.boltfile import BoltFile
from lamina.volumes.store import ANONYMOUS_LABEL, VolumeStore


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "root" / "volumes"


@pytest.fixture
def store(directory: Path) -> Iterator[VolumeStore]:
    found = VolumeStore(directory)
    found.open()
    yield found
    found.close()


def test_a_volume_is_a_directory_and_a_row(store: VolumeStore, directory: Path) -> None:
    volume = store.create("data", labels={"a": "b"})
    assert volume.mountpoint == directory / "data" / "_data"
    assert volume.mountpoint.stat().st_mode & 0o7777 == 0o755
    assert volume.mountpoint.parent.stat().st_mode & 0o7777 == 0o701
    assert directory.stat().st_mode & 0o7777 == 0o701
    assert (directory / "metadata.db").stat().st_mode & 0o7777 == 0o600
    assert (directory / "metadata.db").stat().st_size == 32768
    assert volume.labels == {"a": "b"}
    assert not volume.anonymous
    assert volume.created_at.endswith("Z")


def test_volumes_are_there_after_a_restart(store: VolumeStore, directory: Path) -> None:
    for number in range(150):
        store.create(f"volume{number}", labels={"number": str(number), "pad": "x" * 50})
    anonymous = store.create()
    store.remove("volume7")
    store.close()
    again = VolumeStore(directory)
    assert again.open() == []
    assert len(again.list()) == 150
    assert again.get("volume99").labels["number"] == "99"
    assert again.get(anonymous.name).anonymous
    again.close()


def test_an_anonymous_volume_has_a_random_name_and_the_label(store: VolumeStore) -> None:
    one, two = store.create(), store.create(None, labels={"x": "y"})
    assert one.name != two.name
    assert len(one.name) == 64
    assert one.labels == {ANONYMOUS_LABEL: ""}
    assert two.labels == {"x": "y", ANONYMOUS_LABEL: ""}


def test_creating_again_gives_the_one_that_is_there(store: VolumeStore) -> None:
    (store.create("data", labels={"a": "1"}).mountpoint / "file").write_text("kept")
    again = store.create("data", labels={"a": "2"})
    assert again.labels == {"a": "1"}
    assert (again.mountpoint / "file").read_text() == "kept"


@pytest.mark.parametrize("name", ["a", "../x", "a/b", ".hidden", "-x", "a b", "a\nb", "x" * 256, "ä" * 3])
def test_a_name_that_is_none_is_refused(store: VolumeStore, name: str) -> None:
    with pytest.raises(InvalidArgument):
        store.create(name)


def test_the_stores_own_files_are_no_volume_names(store: VolumeStore) -> None:
    with pytest.raises(Conflict):
        store.create("metadata.db")


def test_a_held_volume_is_not_removed(store: VolumeStore) -> None:
    store.create("data")
    store.hold("data", "c" * 64)
    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[c{64}\]"):
        store.remove("data")
    store.release("data", "c" * 64)
    store.release("data", "c" * 64)
    store.remove("data")
    with pytest.raises(NoSuchVolume, match="get data: no such volume"):
        store.remove("data")
    store.remove("data", force=True)


def test_removing_takes_the_data_along(store: VolumeStore, directory: Path) -> None:
    volume = store.create("data")
    (volume.mountpoint / "deep" / "er").mkdir(parents=True)
    (volume.mountpoint / "link").symlink_to("/etc")
    store.remove("data")
    assert {entry.name for entry in directory.iterdir()} <= {"metadata.db", "backingFsBlockDev"}
    assert Path("/etc/passwd").exists()


def test_a_directory_without_a_row_is_a_volume_and_a_row_without_directory_is_dropped(directory: Path) -> None:
    first = VolumeStore(directory)
    first.open()
    first.create("kept", labels={"a": "b"})
    first.create("lost", labels={"a": "b"})
    first.close()
    (directory / "lost" / "_data").rmdir()
    (directory / "lost").rmdir()
    (directory / "planted" / "_data").mkdir(parents=True)
    second = VolumeStore(directory)
    second.open()
    assert [volume.name for volume in second.list()] == ["kept", "planted"]
    second.close()
    file = BoltFile(directory / "metadata.db")
    bucket = file.root.items[b"volumes"]
    assert isinstance(bucket, Bucket)
    assert list(bucket.items) == [b"kept"]
    file.close()


def test_a_second_daemon_is_refused(store: VolumeStore, directory: Path) -> None:
    with pytest.raises(Conflict, match=f"data root {directory.parent} is in use by another daemon"):
        VolumeStore(directory).open()
    store.close()
    store.close()
    other = VolumeStore(directory)
    other.open()
    other.close()


def test_a_broken_row_is_a_warning_and_its_volume_stays(directory: Path) -> None:
    first = VolumeStore(directory)
    first.open()
    first.create("data")
    first.close()
    file = BoltFile(directory / "metadata.db")
    file.commit(Bucket({b"volumes": Bucket({b"data": b"{nonsense", b"deep": Bucket()}), b"other": b"kept"}))
    file.close()
    second = VolumeStore(directory)
    warnings = second.open()
    assert len(warnings) == 2
    assert second.get("data").labels == {}
    second.create("more")
    second.close()
    file = BoltFile(directory / "metadata.db")
    assert file.root.items[b"other"] == b"kept"
    file.close()


def test_a_database_that_is_none_is_refused_and_kept(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "metadata.db").write_bytes(b"something else" * 1000)
    with pytest.raises(CorruptRecord):
        VolumeStore(directory).open()
    assert (directory / "metadata.db").read_bytes() == b"something else" * 1000


def test_an_unknown_driver_is_named(store: VolumeStore) -> None:
    with pytest.raises(NoSuchVolume, match='plugin "nfs4u" not found'):
        store.create("data", driver="nfs4u")


def test_options_that_do_not_go_together_are_refused(store: VolumeStore) -> None:
    with pytest.raises(InvalidArgument, match='create data: missing required option: "device"'):
        store.create("data", options={"type": "tmpfs"})
    with pytest.raises(InvalidArgument, match="invalid option"):
        store.create("data", options={"colour": "red"})
    with pytest.raises(Unsupported, match="'nfs'"):
        store.create("data", options={"type": "nfs", "device": ":/x", "o": "addr=1.2.3.4"})
    with pytest.raises(Unsupported, match="quota"):
        store.create("data", options={"size": "10m"})
    assert store.list() == []


def test_making_and_removing_the_same_name_at_once_leaves_one_truth(store: VolumeStore, directory: Path) -> None:
    def churn() -> None:
        for _ in range(20):
            try:
                store.create("same")
                store.remove("same")
            except (Conflict, NoSuchVolume):
                continue  # the others were faster

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(churn) for _ in range(4)]:
            done.result()
    names = [volume.name for volume in store.list()]
    assert (directory / "same").exists() == (names == ["same"])
    store.close()
    again = VolumeStore(directory)
    assert again.open() == []
    assert [volume.name for volume in again.list()] == names
    again.close()


@pytest.mark.root
def test_a_tmpfs_volume_is_mounted_while_it_is_held(store: VolumeStore, directory: Path) -> None:
    volume = store.create("data", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000,nosuid"})
    assert (directory / "data" / "opts.json").read_bytes() == (
        b'{"MountType":"tmpfs","MountOpts":"size=1m,uid=1000,nosuid","MountDevice":"tmpfs","Quota":{"Size":0}}'
    )
    store.hold("data", "one")
    store.hold("data", "two")
    assert is_mountpoint(volume.mountpoint)
    assert volume.mountpoint.stat().st_uid == 1000
    assert os.statvfs(volume.mountpoint).f_blocks * 4096 == 1 << 20
    store.release("data", "one")
    assert is_mountpoint(volume.mountpoint)
    store.release("data", "two")
    assert not is_mountpoint(volume.mountpoint)
    store.remove("data")


@pytest.mark.root
def test_a_bind_volume_shows_the_hosts_directory_and_removing_it_spares_that(
    store: VolumeStore, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("mine")
    volume = store.create("data", options={"type": "none", "device": str(source), "o": "bind"})
    store.hold("data", "one")
    assert (volume.mountpoint / "file").read_text() == "mine"
    store.release("data", "one")
    store.remove("data")
    assert (source / "file").read_text() == "mine"


def test_a_volume_that_cannot_be_recorded_is_not_there(store: VolumeStore, directory: Path) -> None:
    assert store._file is not None
    os.dup2(os.open(directory / "metadata.db", os.O_RDONLY), store._file._fd)  # as on a read-only file system
    with pytest.raises(OSError, match="Bad file descriptor"):
        store.create("data", labels={"a": "b"}, options={"type": "tmpfs", "device": "tmpfs"})
    assert store.list() == []
    assert not (directory / "data").exists()
