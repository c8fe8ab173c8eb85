"""Over the real drivers, so as root; the rules themselves hold for any."""

import gzip
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lamina.errors import Conflict, DataLoss, InvalidArgument, LaminaError, NoSuchLayer, UnsafeArchive
from lamina.layers.pool import WorkerPool
from lamina.layers.store import LayerStore
from lamina.layers.unpack import unpack
from lamina.oci.digest import ChainId, Digest, hex_of
from lamina.storage.mounting import Mounts
from lamina.storage.select import choose_driver
from tests.unit.changeset.tars import CHAIN_2, DIFF_1, DIFF_2, DIRECTORY, FILE, LAYER_1, LAYER_2, SYMLINK, make

from .conftest import OpenStore

pytestmark = pytest.mark.root

ABSENT = ChainId(Digest("sha256:" + "9" * 64))


def put(store: LayerStore, tar: bytes, parent: ChainId | None = None) -> ChainId:
    return store.register(io.BytesIO(tar), parent).chain_id


def tar_of(store: LayerStore, chain: ChainId) -> bytes:
    out = io.BytesIO()
    store.write_tar(chain, out)
    return out.getvalue()


def test_layers_have_dockerds_ids_sizes_and_files(store: LayerStore, layerdb: Path, driver_name: str) -> None:
    first = store.register(io.BytesIO(gzip.compress(LAYER_1)), None)
    second = store.register(io.BytesIO(LAYER_2), first.chain_id)
    assert (first.chain_id, first.diff_id, first.parent) == (DIFF_1, DIFF_1, None)
    assert (second.chain_id, second.diff_id, second.parent) == (CHAIN_2, DIFF_2, DIFF_1)
    assert (first.size_bytes, second.size_bytes) == (607 if driver_name == "overlay2" else 606, 513)
    place = layerdb / "sha256" / hex_of(second.chain_id)
    assert sorted(os.listdir(place)) == ["cache-id", "diff", "parent", "size", "tar-split.json.gz"]
    assert (place / "diff").read_text() == DIFF_2
    assert (place / "parent").read_text() == DIFF_1
    assert (place / "size").read_text() == "513"
    assert (place / "cache-id").read_text() == second.cache_id
    assert {oct(path.stat().st_mode & 0o777) for path in place.iterdir()} == {"0o644"}
    assert oct(place.stat().st_mode & 0o777) == "0o700"
    assert not (layerdb / "sha256" / hex_of(first.chain_id) / "parent").exists()
    assert os.listdir(layerdb / "tmp") == []


def test_what_went_in_comes_out_and_shows_in_the_tree(store: LayerStore) -> None:
    first = put(store, LAYER_1)
    second = put(store, LAYER_2, first)
    assert tar_of(store, first) == LAYER_1
    assert tar_of(store, second) == LAYER_2
    assert store.tar_bytes(second) == len(LAYER_2)
    store.create_rw("c", second, prepare=None)
    root = store.mount_rw("c")
    try:
        assert sorted(os.listdir(root)) == ["data", "etc"]
        assert os.listdir(root / "etc") == []
        assert os.listdir(root / "data") == ["c"]
    finally:
        store.unmount_rw("c")


def test_the_same_content_is_kept_once(store: LayerStore, driver_home: Path) -> None:
    first = store.register(io.BytesIO(LAYER_1), None)
    again = store.register(io.BytesIO(gzip.compress(LAYER_1)), None)
    assert again == first
    assert len(store.layers()) == 1
    assert [name for name in os.listdir(driver_home) if len(name) == 64] == [first.cache_id]
    assert store.release(first.chain_id) == ()
    assert store.release(first.chain_id) == (first.chain_id,)


def test_the_same_changes_on_another_parent_are_another_layer(store: LayerStore) -> None:
    base = put(store, LAYER_1)
    other = put(store, make([("x", FILE, 0o644, b"x")]))
    assert put(store, LAYER_2, base) != put(store, LAYER_2, other)


def test_a_layer_goes_when_its_last_hold_goes_and_takes_its_parents_along(store: LayerStore, layerdb: Path) -> None:
    first = put(store, LAYER_1)
    second = put(store, LAYER_2, first)
    assert store.release(first) == ()
    assert store.exists(first)
    store.hold(second)
    assert store.release(second) == ()
    assert store.release(second) == (second, first)
    assert not store.exists(first)
    assert os.listdir(layerdb / "sha256") == []
    with pytest.raises(NoSuchLayer):
        store.release(second)
    with pytest.raises(NoSuchLayer):
        store.hold(ABSENT)


def test_a_reopened_store_shows_the_same_layers(store: LayerStore, open_store: OpenStore) -> None:
    second = put(store, LAYER_2, put(store, LAYER_1))
    store.create_rw("c1", second, prepare=None)
    again = open_store()
    assert {layer.chain_id: layer for layer in again.layers()} == {layer.chain_id: layer for layer in store.layers()}
    assert again.rw("c1") == store.rw("c1")
    assert tar_of(again, second) == LAYER_2
    again.hold(second)
    assert again.release(second) == ()  # the writable layer holds it
    assert again.remove_rw("c1") == (second, ChainId(Digest(DIFF_1)))


def test_a_failed_layer_leaves_nothing(store: LayerStore, layerdb: Path, driver_home: Path) -> None:
    before = sorted(os.listdir(driver_home))
    tar = make([("big", FILE, 0o644, os.urandom(2 << 20)), ("../x", FILE, 0o644, b"")])
    with pytest.raises(UnsafeArchive):
        put(store, tar)
    assert store.layers() == []
    assert os.listdir(layerdb / "tmp") == []
    assert sorted(os.listdir(driver_home)) == before


def test_an_unknown_parent_is_refused(store: LayerStore) -> None:
    with pytest.raises(NoSuchLayer):
        put(store, LAYER_1, ABSENT)


def test_a_chain_has_only_so_many_layers(tmp_path: Path, layerdb: Path, driver_name: str) -> None:
    driver = choose_driver(tmp_path / "root", driver_name, {})
    store = LayerStore(layerdb, driver, Mounts(driver), max_depth=5)
    chain: ChainId | None = None
    for number in range(5):
        chain = put(store, make([(f"f{number}", FILE, 0o644, b"")]), chain)
    with pytest.raises(InvalidArgument, match="max depth exceeded"):
        put(store, make([("one more", FILE, 0o644, b"")]), chain)
    assert len(store.layers()) == 5
    assert chain is not None
    assert len(store.release(chain)) == 1  # every layer below is still held by its registration


def test_layers_of_one_image_are_staged_side_by_side_where_the_driver_can(store: LayerStore) -> None:
    if not store.can_stage_early:
        staged = store.stage(None)
        unpacked = unpack(io.BytesIO(LAYER_2), staged.target)
        with pytest.raises(Conflict, match="staged on its parent"):
            store.commit(staged, put(store, LAYER_1), unpacked)
        return
    upper, lower = store.stage(), store.stage()
    upper_done = unpack(io.BytesIO(LAYER_2), upper.target)
    lower_done = unpack(io.BytesIO(LAYER_1), lower.target)
    first = store.commit(lower, None, lower_done)
    second = store.commit(upper, first.chain_id, upper_done)
    assert second.chain_id == CHAIN_2
    assert tar_of(store, second.chain_id) == LAYER_2


def test_many_threads_registering_the_same_layers_get_one_copy(store: LayerStore) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            put(store, LAYER_2, put(store, LAYER_1))
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.layers()) == 2
    for _ in range(8):
        store.release(ChainId(Digest(DIFF_1)))
    gone = [chain for _ in range(8) for chain in store.release(ChainId(Digest(CHAIN_2)))]
    assert gone == [CHAIN_2, DIFF_1]


def test_discarding_twice_is_fine(store: LayerStore, driver_home: Path) -> None:
    before = sorted(os.listdir(driver_home))
    staged = store.stage()
    store.discard(staged)
    store.discard(staged)
    assert sorted(os.listdir(driver_home)) == before


# --- what a crash leaves -----------------------------------------------------------------------------------------------


def reopened(tmp_path: Path, driver_name: str) -> tuple[LayerStore, list[str]]:
    driver = choose_driver(tmp_path / "root", driver_name, {})
    store = LayerStore(tmp_path / "root" / "image" / driver_name / "layerdb", driver, Mounts(driver))
    return store, store.load()


def test_a_staged_layer_is_thrown_away_at_the_next_start(
    store: LayerStore, layerdb: Path, driver_home: Path, open_store: OpenStore
) -> None:
    kept = put(store, LAYER_1)
    staged = store.stage(kept)
    unpack(io.BytesIO(LAYER_2), staged.target)
    again = open_store()
    assert [layer.chain_id for layer in again.layers()] == [kept]
    assert os.listdir(layerdb / "tmp") == []
    assert not (driver_home / staged.cache_id).exists()
    assert put(again, LAYER_2, kept) == CHAIN_2


def test_a_removal_is_finished_at_the_next_start(
    store: LayerStore, layerdb: Path, driver_home: Path, open_store: OpenStore
) -> None:
    layer = store.register(io.BytesIO(LAYER_1), None)
    place = layerdb / "sha256" / hex_of(layer.chain_id)
    place.rename(place.with_name(f"{place.name}-{'a' * 64}-removing"))
    again = open_store()
    assert again.layers() == []
    assert os.listdir(layerdb / "sha256") == []
    assert not (driver_home / layer.cache_id).exists()


def test_a_removal_spares_the_driver_layer_of_a_live_one(
    store: LayerStore, layerdb: Path, driver_home: Path, open_store: OpenStore
) -> None:
    layer = store.register(io.BytesIO(LAYER_1), None)
    stale = layerdb / "sha256" / f"{hex_of(layer.chain_id)}-{'a' * 64}-removing"
    stale.mkdir()
    (stale / "cache-id").write_text(layer.cache_id)
    assert tar_of(open_store(), layer.chain_id) == LAYER_1
    assert not stale.exists()


@pytest.mark.parametrize("damage", ["empty", "no diff", "bad size", "evil cache id", "other diff", "lost data"])
def test_a_broken_record_counts_as_absent_and_can_be_made_again(
    store: LayerStore, layerdb: Path, driver_home: Path, tmp_path: Path, driver_name: str, damage: str
) -> None:
    layer = store.register(io.BytesIO(LAYER_1), None)
    child = put(store, LAYER_2, layer.chain_id)
    place = layerdb / "sha256" / hex_of(layer.chain_id)
    if damage == "empty":
        for path in place.iterdir():
            path.unlink()
    elif damage == "no diff":
        (place / "diff").unlink()
    elif damage == "bad size":
        (place / "size").write_text("many")
    elif damage == "evil cache id":
        (place / "cache-id").write_text("../../etc")
    elif damage == "other diff":
        (place / "diff").write_text(DIFF_2)
    else:
        (place / "cache-id").write_text("f" * 64)
    again, warnings = reopened(tmp_path, driver_name)
    assert again.layers() == []
    assert any(hex_of(layer.chain_id) in warning for warning in warnings)
    assert any(child in warning for warning in warnings)
    assert put(again, LAYER_1) == layer.chain_id
    assert tar_of(again, layer.chain_id) == LAYER_1
    final, _ = reopened(tmp_path, driver_name)
    assert tar_of(final, layer.chain_id) == LAYER_1


CHILD = """
import io, os, sys
from pathlib import Path
from lamina.layers.store import LayerStore
from lamina.storage.mounting import Mounts
from lamina.storage.select import choose_driver

root, name, parent = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
driver = choose_driver(root, name, {})
store = LayerStore(root / "image" / name / "layerdb", driver, Mounts(driver))
store.load()
print("ready", flush=True)
while True:
    stream = os.fdopen(os.dup(0), "rb", buffering=0)
    layer = store.register(stream, parent)
    print(layer.chain_id, flush=True)
    break
"""


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 1.0])
def test_a_daemon_killed_while_it_registers_leaves_a_store_that_works(
    store: LayerStore, tmp_path: Path, driver_name: str, driver_home: Path, layerdb: Path, share: float
) -> None:
    base = put(store, LAYER_1)
    before = set(os.listdir(driver_home))
    tar = make([(f"d/file{number}", FILE, 0o644, os.urandom(20_000)) for number in range(100)])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "root"), driver_name, base],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.stdin.write(tar[: int(len(tar) * share)])
        child.stdin.flush()
        if share == 1.0:
            child.stdin.close()
        else:
            wait_for(lambda: any((layerdb / "tmp").iterdir()))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    again, warnings = reopened(tmp_path, driver_name)
    assert warnings == []
    assert tar_of(again, base) == LAYER_1
    assert os.listdir(layerdb / "tmp") == []
    leftovers = set(os.listdir(driver_home)) - before - {layer.cache_id for layer in again.layers()}
    assert leftovers == set()
    for layer in again.layers():
        tar_of(again, layer.chain_id)
    assert tar_of(again, put(again, tar, base)) == tar


def wait_for(condition) -> None:
    """Poll: another process is at work."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it never happened")


def test_damage_on_disk_is_told_and_not_passed_on(store: LayerStore, driver_home: Path, driver_name: str) -> None:
    layer = store.register(io.BytesIO(LAYER_1), None)
    inside = "diff/data/a" if driver_name == "overlay2" else "data/a"
    (driver_home / layer.cache_id / inside).write_bytes(b"B" * 600)
    with pytest.raises(DataLoss, match="'data/a'"):
        store.write_tar(layer.chain_id, io.BytesIO())


def test_a_symlink_of_one_layer_leads_the_next_one_nowhere(store: LayerStore, tmp_path: Path) -> None:
    base = put(store, make([("d", SYMLINK, 0o777, str(tmp_path)), ("e", SYMLINK, 0o777, "/../../../../../../etc")]))
    rows = [("d/cron", FILE, 0o644, b"x"), ("e/cron", FILE, 0o644, b"x"), ("d/..", DIRECTORY, 0o700, "")]
    mode = tmp_path.stat().st_mode
    for row in rows:
        try:
            put(store, make([row]), base)
        except LaminaError:
            continue
    assert not (tmp_path / "cron").exists()
    assert not Path("/etc/cron").exists()
    assert tmp_path.stat().st_mode == mode


def test_large_tars_are_put_together_by_a_worker(tmp_path: Path, driver_name: str) -> None:
    driver = choose_driver(tmp_path / "root", driver_name, {})
    tar = make([("big", FILE, 0o644, os.urandom(5 << 20)), ("small", FILE, 0o644, b"1")])
    with WorkerPool(1) as pool:
        store = LayerStore(tmp_path / "root" / "layerdb", driver, Mounts(driver), pool)
        chain = put(store, tar)
        assert tar_of(store, chain) == tar

        class Gone:
            def write(self, data: object, /) -> None:
                raise BrokenPipeError

        with pytest.raises(BrokenPipeError):
            store.write_tar(chain, Gone())
        assert tar_of(store, chain) == tar


def test_after_a_restart_layers_that_nobody_holds_go_and_held_ones_stay(
    store: LayerStore, open_store: OpenStore, driver_home: Path
) -> None:
    first = put(store, LAYER_1)
    second = put(store, LAYER_2, first)
    orphan = put(store, make([("orphan", FILE, 0o644, b"x")]), first)
    again = open_store()
    again.hold(second)
    kept = again.get(second).cache_id, again.get(first).cache_id
    assert again.remove_unheld() == (orphan,)
    assert again.remove_unheld() == ()
    assert {layer.chain_id for layer in again.layers()} == {first, second}
    assert {name for name in os.listdir(driver_home) if name != "l"} == set(kept)
    assert tar_of(again, second) == LAYER_2
