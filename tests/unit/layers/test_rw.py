import io
import os
import shutil
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lamina.errors import AlreadyExists, InvalidArgument, NoSuchLayer, NotFound
from lamina.kernel.mounts import mount_table
from lamina.layers.init import init_layer
from lamina.layers.store import LayerStore
from lamina.oci.digest import EMPTY_LAYER_DIFF_ID, ChainId, Digest
from lamina.rootfs.diff import Change, ChangeKind
from lamina.storage.mounting import Mounts
from lamina.storage.select import choose_driver
from tests.unit.changeset.tars import DIRECTORY, FILE, make

from .conftest import OpenStore

pytestmark = pytest.mark.root

IMAGE = make(
    [
        ("etc", DIRECTORY, 0o755, ""),
        ("etc/motd", FILE, 0o644, b"hello\n"),
        ("data", DIRECTORY, 0o755, ""),
        ("data/old", FILE, 0o644, b"old"),
        ("gone", FILE, 0o644, b"gone"),
    ]
)


@pytest.fixture
def image(store: LayerStore) -> ChainId:
    return store.register(io.BytesIO(IMAGE), None).chain_id


def edit(store: LayerStore, name: str) -> None:
    """A changed file, a new one, a deleted one, and a directory deleted and made again."""
    root = store.mount_rw(name)
    try:
        (root / "etc/motd").write_text("changed\n")
        (root / "etc/new").write_text("new")
        os.link(root / "etc/new", root / "etc/newer")
        (root / "gone").unlink()
        shutil.rmtree(root / "data")
        (root / "data").mkdir()
        (root / "data/fresh").write_text("")
    finally:
        store.unmount_rw(name)


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as shown:
        return shown.getnames()


def test_a_writable_layer_shows_the_image_and_the_init_layer(
    store: LayerStore, image: ChainId, layerdb: Path, driver_home: Path
) -> None:
    layer = store.create_rw("c1", image, prepare=init_layer)
    assert layer.init_id == f"{layer.mount_id}-init"
    root = store.mount_rw("c1")
    assert (root / "etc/motd").read_text() == "hello\n"
    assert os.readlink(root / "etc/mtab") == "/proc/mounts"
    store.unmount_rw("c1")
    place = layerdb / "mounts" / "c1"
    assert {path.name: path.read_text() for path in place.iterdir()} == {
        "mount-id": layer.mount_id,
        "init-id": layer.init_id,
        "parent": image,
    }
    assert layer.mount_id != "c1"
    assert store.rw_names() == ["c1"]
    store.remove_rw("c1")
    assert not place.exists()
    assert not (driver_home / layer.mount_id).exists()
    assert not (driver_home / str(layer.init_id)).exists()
    assert store.remove_rw("c1") == ()
    with pytest.raises(NotFound):
        store.rw("c1")


def test_changes_are_told_against_the_init_layer(store: LayerStore, image: ChainId) -> None:
    store.create_rw("c1", image, prepare=init_layer)
    assert store.rw_changes("c1") == []
    edit(store, "c1")
    assert store.rw_changes("c1") == [
        Change(ChangeKind.MODIFY, "/data"),
        Change(ChangeKind.ADD, "/data/fresh"),
        Change(ChangeKind.DELETE, "/data/old"),
        Change(ChangeKind.MODIFY, "/etc"),
        Change(ChangeKind.MODIFY, "/etc/motd"),
        Change(ChangeKind.ADD, "/etc/new"),
        Change(ChangeKind.ADD, "/etc/newer"),
        Change(ChangeKind.DELETE, "/gone"),
    ]
    assert store.rw_usage("c1").size_bytes == len("changed\n") + len("new")


def test_a_commit_of_the_changes_shows_the_same_tree(store: LayerStore, image: ChainId) -> None:
    store.create_rw("c1", image, prepare=init_layer)
    edit(store, "c1")
    layer = store.register_rw("c1")
    assert layer.parent == image
    store.create_rw("c2", layer.chain_id, prepare=None)
    root = store.mount_rw("c2")
    try:
        assert sorted(os.listdir(root)) == ["data", "etc"]
        assert sorted(os.listdir(root / "etc")) == ["motd", "new", "newer"]
        assert (root / "etc/motd").read_text() == "changed\n"
        assert os.listdir(root / "data") == ["fresh"]
        assert (root / "etc/new").stat().st_ino == (root / "etc/newer").stat().st_ino
    finally:
        store.unmount_rw("c2")


def test_a_layer_that_changed_nothing_is_the_empty_layer(store: LayerStore, image: ChainId) -> None:
    store.create_rw("c1", image, prepare=init_layer)
    assert store.register_rw("c1").diff_id == EMPTY_LAYER_DIFF_ID


def test_the_changes_as_a_tar_have_dockerds_order_and_whiteouts(
    store: LayerStore, image: ChainId, driver_name: str
) -> None:
    store.create_rw("c1", image, prepare=init_layer)
    edit(store, "c1")
    out = io.BytesIO()
    store.rw_tar("c1", out)
    hidden = ["data/.wh..wh..opq", "data/fresh"] if driver_name == "overlay2" else ["data/fresh", "data/.wh.old"]
    assert names(out.getvalue()) == ["data", *hidden, "etc", "etc/motd", "etc/new", "etc/newer", ".wh.gone"]


def test_the_whole_root_as_a_tar(store: LayerStore, image: ChainId) -> None:
    store.create_rw("c1", image, prepare=None)
    out = io.BytesIO()
    store.rw_tree_tar("c1", out)
    assert names(out.getvalue()) == ["data", "data/old", "etc", "etc/motd", "gone"]


def test_a_writable_layer_holds_its_chain(store: LayerStore, image: ChainId) -> None:
    store.create_rw("c1", image, prepare=None)
    assert store.release(image) == ()
    assert store.remove_rw("c1") == (image,)


def test_a_name_is_taken_once_and_must_be_one(store: LayerStore, image: ChainId) -> None:
    store.create_rw("c1", image, prepare=None)
    with pytest.raises(AlreadyExists):
        store.create_rw("c1", image, prepare=None)
    assert store.rw("c1").parent == image
    for name in ("", "..", "a/b"):
        with pytest.raises(InvalidArgument):
            store.create_rw(name, image, prepare=None)
    with pytest.raises(NoSuchLayer):
        store.create_rw("c2", ChainId(Digest("sha256:" + "0" * 64)), prepare=None)
    store.remove_rw("c1")
    assert store.release(image) == (image,)


def test_a_layer_without_image_is_fine(store: LayerStore) -> None:
    store.create_rw("c1", None, prepare=init_layer)
    assert store.rw_changes("c1") == []
    assert store.remove_rw("c1") == ()


def test_a_failed_creation_leaves_nothing(store: LayerStore, image: ChainId, layerdb: Path, driver_home: Path) -> None:
    before = sorted(os.listdir(driver_home))

    def failing(_: Path) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.create_rw("c1", image, prepare=failing)
    assert sorted(os.listdir(driver_home)) == before
    assert os.listdir(layerdb / "mounts") == []
    assert store.release(image) == (image,)


def test_a_creation_that_was_killed_is_cleaned_at_the_next_start(
    store: LayerStore, image: ChainId, layerdb: Path, driver_home: Path, tmp_path: Path, driver_name: str
) -> None:
    from .test_store import reopened

    layer = store.create_rw("c1", image, prepare=init_layer)
    store._driver.remove(layer.mount_id)
    again, warnings = reopened(tmp_path, driver_name)
    assert [warning for warning in warnings if "never finished" in warning]
    assert again.rw_names() == []
    assert os.listdir(layerdb / "mounts") == []
    assert not (driver_home / str(layer.init_id)).exists()


def test_a_writable_layer_survives_a_restart(store: LayerStore, image: ChainId, open_store: OpenStore) -> None:
    store.create_rw("c1", image, prepare=init_layer)
    edit(store, "c1")
    again = open_store()
    assert again.rw_changes("c1") == store.rw_changes("c1")


def in_a_process_that_dies(work: Callable[[], object]) -> None:
    """Run `work` in a child process that ends without undoing anything."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def test_a_daemon_killed_while_it_fills_an_init_layer_leaves_nothing_that_keeps_the_next_from_starting(
    store: LayerStore, image: ChainId, tmp_path: Path, driver_name: str, driver_home: Path
) -> None:
    in_a_process_that_dies(lambda: store.create_rw("c1", image, prepare=lambda tree: os._exit(0)))
    driver = choose_driver(tmp_path / "root", driver_name, {})
    again = LayerStore(tmp_path / "root" / "image" / driver_name / "layerdb", driver, Mounts(driver))
    assert again.load() == ["the writable layer c1 was never finished: removed"]
    assert again.rw_names() == []
    assert [name for name in os.listdir(driver_home) if name.endswith("-init")] == []
    assert not [entry for entry in mount_table() if entry.target.startswith(os.fspath(driver_home))]


def test_an_unfinished_layer_that_a_killed_daemon_had_mounted_is_removed(
    store: LayerStore, image: ChainId, open_store: OpenStore, driver_home: Path
) -> None:
    def make() -> None:
        store.create_rw("c1", image, prepare=init_layer)
        store.mount_rw("c1")

    in_a_process_that_dies(make)
    again = open_store()
    again.remove_unfinished_rw("c1")
    again.remove_unfinished_rw("c1")
    assert again.rw_names() == []
    assert not [entry for entry in mount_table() if entry.target.startswith(os.fspath(driver_home))]


def test_two_who_remove_a_layer_give_one_hold_back(store: LayerStore, image: ChainId) -> None:
    store.create_rw("c1", image, prepare=init_layer)
    with ThreadPoolExecutor(8) as threads:
        for going in [threads.submit(store.remove_rw, "c1") for _ in range(8)]:
            assert going.result() == ()
    assert store.exists(image)
    assert store.release(image) == (image,)


def test_a_layer_that_is_committed_is_removed_afterwards(store: LayerStore, image: ChainId) -> None:
    store.create_rw("c1", image, prepare=init_layer)
    root = store.mount_rw("c1")
    for number in range(300):
        (root / f"d{number}").mkdir()
        (root / f"d{number}" / "file").write_bytes(b"content")
    store.unmount_rw("c1")
    with ThreadPoolExecutor(2) as threads:
        committing = threads.submit(store.register_rw, "c1")
        while not committing.done() and not store._rw._readers:
            pass
        removing = threads.submit(store.remove_rw, "c1")
        layer, _ = committing.result(), removing.result()
    out = io.BytesIO()
    store.write_tar(layer.chain_id, out)
    assert sum(name.endswith("/file") for name in names(out.getvalue())) == 300
    with pytest.raises(NotFound):
        store.register_rw("c1")
