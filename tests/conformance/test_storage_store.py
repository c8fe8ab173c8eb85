"""The layer store on every driver: tars come out bit for bit, what was written is told and applied as it was."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from lamina.errors import AlreadyExists, DataLoss, LayerInUse, NoSuchLayer
from lamina.layers.store import LayerStore
from lamina.oci.digest import ChainId
from lamina.rootfs.diff import Change, ChangeKind
from tests.conformance.conftest import Bench
from tests.conformance.trees import (
    Append,
    Chmod,
    Chown,
    Edit,
    HardLink,
    MakeDir,
    Remove,
    Rename,
    SetXattr,
    Shown,
    Symlink,
    Write,
    apply_edits,
    shown,
)

pytestmark = pytest.mark.root

Entry = tuple[str, bytes, bytes]  # name, type, content or target


def tar_of(*entries: Entry, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.mode = kind, 1_600_000_000, 0o755 if kind == tarfile.DIRTYPE else 0o640
            info.uid, info.gid = 3, 4
            if kind == tarfile.CHRTYPE:
                info.devmajor, info.devminor = 1, 3
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


BASE = tar_of(
    ("./", tarfile.DIRTYPE, b""),
    ("d/", tarfile.DIRTYPE, b""),
    ("d/file", tarfile.REGTYPE, b"content" * 1000),
    ("d/" + "long" * 60, tarfile.REGTYPE, b"a long name"),
    ("d/linked", tarfile.LNKTYPE, b"d/file"),
    ("link", tarfile.SYMTYPE, b"d/file"),
    ("gone", tarfile.REGTYPE, b"soon"),
    ("null", tarfile.CHRTYPE, b""),
    ("fifo", tarfile.FIFOTYPE, b""),
    ("hidden/", tarfile.DIRTYPE, b""),
    ("hidden/old", tarfile.REGTYPE, b"old"),
)
UPPER = tar_of(
    ("d/", tarfile.DIRTYPE, b""),
    ("d/new", tarfile.REGTYPE, b""),
    (".wh.gone", tarfile.REGTYPE, b""),
    (".wh.never-was", tarfile.REGTYPE, b""),
    ("hidden/", tarfile.DIRTYPE, b""),
    ("hidden/.wh..wh..opq", tarfile.REGTYPE, b""),
    ("hidden/new", tarfile.REGTYPE, b"new"),
    form=tarfile.PAX_FORMAT,
)


def opened(bench: Bench) -> LayerStore:
    store = LayerStore(bench.root / "image" / bench.driver.name / "layerdb", bench.driver, bench.mounts)
    assert store.load() == []
    return store


@pytest.fixture
def store(bench: Bench) -> LayerStore:
    return opened(bench)


def chain_of(store: LayerStore, *tars: bytes) -> ChainId:
    chain: ChainId | None = None
    for tar in tars:
        chain = store.register(io.BytesIO(tar), chain).chain_id
    assert chain is not None
    return chain


def tar_from(store: LayerStore, chain: ChainId) -> bytes:
    out = io.BytesIO()
    store.write_tar(chain, out)
    return out.getvalue()


def test_layer_tars_come_out_bit_for_bit(store: LayerStore, bench: Bench) -> None:
    base = chain_of(store, BASE)
    upper = store.register(io.BytesIO(UPPER), base).chain_id
    assert (tar_from(store, base), tar_from(store, upper)) == (BASE, UPPER)
    bench.reopen()
    again = opened(bench)
    assert (tar_from(again, base), tar_from(again, upper)) == (BASE, UPPER)


def test_a_tar_with_trailing_bytes_and_an_empty_one_come_out_too(store: LayerStore) -> None:
    for tar in (BASE + bytes(10240) + b"after the end", bytes(1024)):
        assert tar_from(store, chain_of(store, tar)) == tar


def test_an_applied_tar_shows_what_it_says(store: LayerStore, bench: Bench) -> None:
    layer = store.get(chain_of(store, BASE, UPPER))
    tree = bench.shows(layer.cache_id)
    assert {name for name in tree if "long" not in name} == {
        ".", "d", "d/file", "d/linked", "d/new", "link", "null", "fifo", "hidden", "hidden/new",
    }  # fmt: skip
    assert tree["d/file"].links == ("d/file", "d/linked")
    assert (tree["d/new"].uid, tree["d/new"].gid, tree["d/new"].mode) == (3, 4, 0o640)
    assert (tree["null"].kind, tree["fifo"].kind) == ("c", "p")


def test_the_same_layer_twice_is_one_layer(store: LayerStore, bench: Bench) -> None:
    first, again = chain_of(store, BASE), chain_of(store, BASE)
    assert first == again
    assert len(store.layers()) == len(bench.driver.cache_ids()) == 1
    assert store.release(first) == ()
    assert store.release(first) == (first,)
    assert bench.driver.cache_ids() == frozenset()


def test_a_released_layer_takes_the_parents_that_nobody_holds_along(store: LayerStore, bench: Bench) -> None:
    base = chain_of(store, BASE)
    upper = store.register(io.BytesIO(UPPER), base).chain_id
    assert store.release(base) == ()
    assert store.release(upper) == (upper, base)
    assert bench.driver.cache_ids() == frozenset()
    with pytest.raises(NoSuchLayer):
        store.get(base)


PING = bytes.fromhex("0100000200200000000000000000000000000000")
"""The only attribute that Docker carries in the tar of a diff."""
EDITS: tuple[Edit, ...] = (
    Append("d/new", b"more"),
    Write("added", b"a" * 5000, 0o755),
    MakeDir("added-dir", 0o2711),
    Write("added-dir/f", b"f"),
    HardLink("added-link", "added"),
    Symlink("added-symlink", "/nowhere"),
    SetXattr("added", "security.capability", PING),
    Remove("link"),
    Remove("hidden"),
    MakeDir("hidden"),
    Write("hidden/newer", b"newer"),
    Chown("null", 7, 8),
    Chmod("fifo", 0o600),
    Rename("d/file", "moved"),
    Remove("d/linked"),
)


def test_what_is_committed_shows_what_was_written(store: LayerStore, bench: Bench) -> None:
    """graphtest's DiffApply: the diff of a writable layer, applied on the same parent, is the same tree."""
    parent = chain_of(store, BASE, UPPER)
    rw = store.create_rw("c", parent, prepare=None)
    tree = store.mount_rw("c")
    apply_edits(tree, EDITS)
    written = shown(tree)
    store.unmount_rw("c")
    layer = store.register_rw("c")
    committed = bench.shows(layer.cache_id)
    assert rounded(committed) == rounded(written)
    assert layer.parent == parent
    assert bench.driver.usage(layer.cache_id).size_bytes == bench.driver.usage(rw.mount_id).size_bytes
    out = io.BytesIO()
    store.write_tar(layer.chain_id, out)
    assert store.register(io.BytesIO(out.getvalue()), parent).chain_id == layer.chain_id


def test_a_diff_of_ten_files_applies(store: LayerStore, bench: Bench) -> None:
    names = [f"f{number}" for number in range(10)]
    files = [(name, tarfile.REGTYPE, b"old") for name in names]
    parent = chain_of(store, tar_of(*files, ("extra", tarfile.REGTYPE, b"e"), ("var/lib/", tarfile.DIRTYPE, b"")))
    store.create_rw("c", parent, prepare=None)
    tree = store.mount_rw("c")
    apply_edits(tree, [*(Write(name, b"new and longer") for name in names), Remove("extra"), Remove("var/lib")])
    store.unmount_rw("c")
    layer = store.register_rw("c")
    found = bench.shows(layer.cache_id)
    assert set(found) == {".", "var", *names}
    assert all(found[name].content == b"new and longer" for name in names)
    assert bench.driver.usage(layer.cache_id).size_bytes == 140


def test_changes_are_told_against_the_init_layer(store: LayerStore) -> None:
    parent = chain_of(store, BASE)
    store.create_rw("c", parent, prepare=lambda tree: (tree / ".dockerenv").touch())
    tree = store.mount_rw("c")
    apply_edits(tree, [Write("new"), Remove("gone")])
    store.unmount_rw("c")
    assert store.rw_changes("c") == [Change(ChangeKind.DELETE, "/gone"), Change(ChangeKind.ADD, "/new")]
    with tarfile.open(fileobj=diff_of(store, "c")) as tar:
        assert tar.getnames() in ([".wh.gone", "new"], ["new", ".wh.gone"])


def diff_of(store: LayerStore, name: str) -> io.BytesIO:
    out = io.BytesIO()
    store.rw_tar(name, out)
    out.seek(0)
    return out


def test_layers_and_writable_layers_are_there_after_a_restart(store: LayerStore, bench: Bench) -> None:
    parent = chain_of(store, BASE, UPPER)
    store.create_rw("c", parent, prepare=None)
    apply_edits(store.mount_rw("c"), [Write("mine", b"m")])
    store.unmount_rw("c")
    bench.reopen()
    again = opened(bench)
    assert {layer.chain_id for layer in again.layers()} == {layer.chain_id for layer in store.layers()}
    assert again.rw_names() == ["c"]
    assert (again.mount_rw("c") / "mine").read_bytes() == b"m"
    again.unmount_rw("c")
    with pytest.raises(AlreadyExists):
        again.create_rw("c", parent, prepare=None)
    assert len(again.remove_rw("c")) == 2, "nobody else holds the layers below"
    assert bench.driver.cache_ids() == frozenset()


def test_a_layer_below_a_writable_one_stays(store: LayerStore, bench: Bench) -> None:
    parent = chain_of(store, BASE)
    store.create_rw("c", parent, prepare=None)
    assert store.release(parent) == ()
    with pytest.raises(LayerInUse):
        bench.driver.remove(store.get(parent).cache_id)
    assert store.remove_rw("c") == (parent,)


def test_a_file_that_was_changed_is_told_when_the_tar_is_read(store: LayerStore, bench: Bench) -> None:
    layer = store.get(chain_of(store, tar_of(("f", tarfile.REGTYPE, b"content"))))
    with store.reading(layer.chain_id) as (_, directory):
        try:
            (Path(directory) / "f").write_bytes(b"CONTENT")
        except OSError:
            return  # the driver lets nobody write there
    with pytest.raises(DataLoss):
        tar_from(store, layer.chain_id)


def rounded(tree: dict[str, Shown]) -> dict[str, Shown]:
    """Layers carry whole seconds."""
    found = {name: replace(one, mtime_ns=one.mtime_ns // 10**9) for name, one in tree.items()}
    found.pop(".")
    return found
