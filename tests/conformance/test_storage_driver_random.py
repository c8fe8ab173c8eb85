"""Any order of create, edit, seal, branch, remove and restart, compared with plain directories after each step."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from lamina.errors import LayerInUse
from lamina.ids import CacheId
from lamina.kernel.mounts import unmount
from lamina.layers.rw import keeps_upper
from lamina.rootfs.copytree import copy_tree
from lamina.rootfs.diff import changes
from lamina.rootfs.own_changes import own_changes
from lamina.rootfs.remove import remove_tree
from lamina.storage.driver import TellsChanges
from tests.conformance.conftest import SLOW, Bench, mounts_below
from tests.conformance.hosts import STORAGE, Host
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
    Symlink,
    Write,
    shown,
)

pytestmark = pytest.mark.root

NAMES = st.sampled_from(["a", "b", "c", "\udcff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o4711, 0o1777])
TIMES = st.sampled_from([1_000_000_000, 1_000_000_001, 5_500_000_000])
EDITS = st.one_of(
    st.builds(Write, PATHS, st.sampled_from([b"", b"x", b"longer"]), MODES, TIMES),
    st.builds(Append, PATHS, st.just(b"+"), TIMES),
    st.builds(MakeDir, PATHS, MODES),
    st.builds(MakeDir, PATHS, MODES),
    st.builds(Symlink, PATHS, NAMES),
    st.builds(HardLink, PATHS, PATHS),
    st.builds(Node, PATHS, st.just(stat.S_IFIFO)),
    st.builds(Remove, PATHS),
    st.builds(Rename, PATHS, PATHS),
    st.builds(Chmod, PATHS, MODES),
    st.builds(Chown, PATHS, st.integers(0, 2), st.integers(0, 2)),
    st.builds(SetXattr, PATHS, st.just("user.note"), st.sampled_from([b"1", b"2"])),
)
FILLED: tuple[Edit, ...] = (
    MakeDir("a"),
    MakeDir("a/a"),
    MakeDir("a/b"),
    MakeDir("b"),
    Write("a/a/a", b"1"),
    Write("a/a/b", b"2"),
    Write("a/b/c", b"3"),
    Write("a/c", b"4"),
    Write("b/a", b"5"),
    Symlink("b/b", "a"),
    Write("c", b"6"),
    HardLink("b/c", "c"),
)


def fits(root: Path, edit: Edit) -> bool:
    """Edits whose result is defined: overlay breaks a hard link when it copies up, so linked files stay as they are."""
    if isinstance(edit, HardLink):
        return not stat.S_ISDIR(os.lstat(root / edit.existing).st_mode)
    if not isinstance(edit, Append | Chmod | Chown | SetXattr | Rename):
        return True
    status = os.lstat(root / edit.path)
    if isinstance(edit, Append) and not stat.S_ISREG(status.st_mode):
        return False
    if stat.S_ISLNK(status.st_mode) and not isinstance(edit, Rename | Chown):
        return False
    return stat.S_ISDIR(status.st_mode) or status.st_nlink == 1


class Layers(RuleBasedStateMachine):
    """The machine; `host` and the disk it works on are set by the test."""

    host: Host
    disk: Path

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=self.disk, prefix="r"))
        self.ground = ExitStack()
        self.root = self.ground.enter_context(self.host.ground(self.place / "ground")) / "root"
        self.given = set(mounts_below(self.place))
        self.bench = Bench(self.host, self.root)
        self.parents: dict[str, str | None] = {}
        self.sealed: set[str] = set()
        self.made = 0

    def oracle(self, name: str) -> Path:
        return self.place / "oracle" / name

    @initialize(edits=st.lists(EDITS, max_size=8))
    def begin_with_a_branch(self, edits: list[Edit]) -> None:
        """A filled base, a sealed change on it, and an open layer on top: what most images look like."""
        for number, parent in enumerate((None, "layer-0", "layer-1")):
            self.add(parent)
            self.apply(f"layer-{number}", [*FILLED, *edits] if parent is None else edits[number:])
            if number < 2:
                self.bench.driver.seal(CacheId(f"layer-{number}"), durable=False)
                self.sealed.add(f"layer-{number}")

    @rule(data=st.data())
    def create(self, data: st.DataObject) -> None:
        parent = data.draw(st.sampled_from([None, *sorted(self.sealed)]))
        self.add(parent)

    def add(self, parent: str | None) -> None:
        name = f"layer-{self.made}"
        self.made += 1
        self.bench.layer(name, parent)
        self.parents[name] = parent
        if parent is None:
            self.oracle(name).mkdir(parents=True)
        else:
            copy_tree(self.oracle(parent), self.oracle(name))
        self.compare(name)

    @precondition(lambda self: self.parents.keys() - self.sealed)
    @rule(data=st.data(), edits=st.lists(EDITS, min_size=1, max_size=6))
    def edit(self, data: st.DataObject, edits: list[Edit]) -> None:
        self.apply(data.draw(st.sampled_from(sorted(self.parents.keys() - self.sealed))), edits)

    def apply(self, name: str, edits: list[Edit]) -> None:
        for edit in edits:
            try:
                if not fits(self.oracle(name), edit):
                    continue
                edit.apply(self.oracle(name))
            except (OSError, shutil.Error):
                continue  # makes no sense on this tree
            self.bench.edit(name, edit)
        self.compare(name)
        self.compare_changes(name)

    @precondition(lambda self: self.parents)
    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.parents)))
        self.bench.driver.seal(CacheId(name), durable=False)
        self.sealed.add(name)
        self.compare(name)

    @precondition(lambda self: self.parents)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.parents)))
        if name in self.parents.values():
            with pytest.raises(LayerInUse):
                self.bench.driver.remove(CacheId(name))
            self.compare(name)
            return
        self.bench.driver.remove(CacheId(name))
        del self.parents[name]
        self.sealed.discard(name)
        remove_tree(self.oracle(name))
        assert self.bench.driver.cache_ids() == self.parents.keys()

    @rule()
    def restart(self) -> None:
        self.bench.reopen()
        assert self.bench.driver.cache_ids() == self.parents.keys()

    def compare(self, name: str) -> None:
        expected, found = shown(self.oracle(name), with_links=False), self.bench.shows(name, with_links=False)
        expected.pop("."), found.pop(".")
        assert found == expected

    def compare_changes(self, name: str) -> None:
        parent = self.parents[name]
        if parent is None:
            return
        expected = changes(self.oracle(name), self.oracle(parent))
        assert self.bench.changes(name, parent) == expected
        upper, cache_id = keeps_upper(self.bench.driver), CacheId(name)
        if upper is not None:
            assert own_changes(upper.upper(cache_id), upper.dialect, upper.lowers(cache_id)) == expected
        if isinstance(self.bench.driver, TellsChanges):
            touched = self.bench.driver.touched(cache_id, CacheId(parent))
            assert touched is not None
            assert self.bench.changes(name, parent, touched) == expected

    def teardown(self) -> None:
        try:
            for name in self.parents:
                self.compare(name)
            self.bench.close()
            assert self.left_mounted() == []
        finally:
            for place in reversed(self.left_mounted()):
                unmount(Path(place), detach=True)
            self.ground.close()
            remove_tree(self.place)

    def left_mounted(self) -> list[str]:
        return [place for place in mounts_below(self.place) if place not in self.given]


@pytest.mark.parametrize("host", STORAGE, ids=lambda host: host.name)
def test_any_order_of_operations_shows_what_plain_directories_show(host: Host, disk: Path) -> None:
    host.require()
    machine = type(f"Layers_{host.name}", (Layers,), {"host": host, "disk": disk})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=5 if SLOW else host.examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
