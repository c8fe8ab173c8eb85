"""The union beside a plain directory: random branches, random edits, the same answers and the same tree."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lamina.kernel import libc
from tests.unionfs.unions import Union

pytestmark = pytest.mark.root

NAMES = ["a", "b", "c", "d"]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
modes = st.sampled_from([0o600, 0o644, 0o755, 0o4755, 0o2711, 0o1777])
contents = st.sampled_from([b"", b"x", b"hello" * 10, b"y" * 4097])
entries = st.one_of(
    st.tuples(st.just("file"), contents, modes),
    st.tuples(st.just("directory"), st.just(b""), modes),
    st.tuples(st.just("opaque"), st.just(b""), modes),
    st.tuples(st.just("whiteout"), st.just(b""), modes),
    st.tuples(st.just("symlink"), st.just(b"to/nowhere"), modes),
    st.tuples(st.just("fifo"), st.just(b""), modes),
    st.tuples(st.just("twice"), st.just(b"linked"), modes),
)
trees = st.dictionaries(paths, entries, max_size=10)


def populate(root: Path, tree: dict[str, tuple[str, bytes, int]]) -> None:
    """Fill a branch; what does not fit (a name below a file) is left out."""
    previous: Path | None = None
    for name, (kind, content, mode) in sorted(tree.items()):
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                path.write_bytes(content)
                path.chmod(mode)
                previous = path
            elif kind in {"directory", "opaque"}:
                path.mkdir()
                path.chmod(mode)
                if kind == "opaque":
                    (path / ".wh..wh..opq").touch()
            elif kind == "whiteout":
                (path.parent / f".wh.{path.name}").touch()
            elif kind == "symlink":
                path.symlink_to(os.fsdecode(content))
            elif kind == "fifo":
                os.mkfifo(path)
            elif previous is not None:
                os.link(previous, path)
        except OSError:
            continue


def merged(branches: list[Path], target: Path) -> None:
    """What the branches (from the top) mean, made as a plain tree: the rules of AUFS, written down once more."""
    links: dict[tuple[Path, int], Path] = {}

    def fill(sources: list[Path], into: Path, tops: list[Path]) -> None:
        seen: set[str] = set()
        for source, top in zip(sources, tops, strict=True):
            hidden = set()
            names = sorted(os.listdir(source))
            for name in names:
                if name.startswith(".wh."):
                    hidden.add(name[4:])
                    continue
                if name in seen:
                    continue
                seen.add(name)
                at = source / name
                if at.is_dir() and not at.is_symlink():
                    (into / name).mkdir()
                    deeper, deeper_tops = collect(sources, tops, source, name)
                    fill(deeper, into / name, deeper_tops)
                    shutil.copystat(at, into / name)
                else:
                    copy_one(at, into / name, top)
            seen |= hidden
            if ".wh..wh..opq" in names:
                break

    def collect(sources: list[Path], tops: list[Path], first: Path, name: str) -> tuple[list[Path], list[Path]]:
        """The branches that a directory is merged from, `first` being the topmost."""
        found: list[Path] = []
        found_tops: list[Path] = []
        for source, top in list(zip(sources, tops, strict=True))[sources.index(first) :]:
            at = source / name
            if os.path.lexists(at):
                if at.is_symlink() or not at.is_dir():
                    break
                found.append(at)
                found_tops.append(top)
            if os.path.lexists(source / f".wh.{name}") or os.path.lexists(source / ".wh..wh..opq"):
                break
        return found, found_tops

    def copy_one(at: Path, to: Path, top: Path) -> None:
        status = os.lstat(at)
        key = (top, status.st_ino)
        if status.st_nlink > 1 and key in links:
            os.link(links[key], to, follow_symlinks=False)
            return
        links[key] = to
        if stat.S_ISFIFO(status.st_mode):
            os.mkfifo(to)
            to.chmod(stat.S_IMODE(status.st_mode))
        else:
            shutil.copy2(at, to, follow_symlinks=False)

    fill(branches, target, branches)


def snapshot(root: Path) -> dict[str, Any]:
    """Everything that can be seen of a tree; inode numbers only as far as they say what is one file.

    Link counts of files are left out: a read-only branch counts names that another branch hides.
    """
    found: dict[str, Any] = {}
    numbers: dict[int, str] = {}

    def visit(directory: Path, relative: str) -> None:
        for name in sorted(os.listdir(directory)):
            path, shown = directory / name, f"{relative}/{name}"
            status = os.lstat(path)
            row: list[Any] = [oct(status.st_mode), status.st_uid, status.st_gid]
            if stat.S_ISDIR(status.st_mode):
                row.append(("links", status.st_nlink))
            else:
                row += [status.st_size, numbers.setdefault(status.st_ino, shown)]
            if stat.S_ISREG(status.st_mode):
                row += [path.read_bytes(), {key: os.getxattr(path, key) for key in sorted(os.listxattr(path))}]
            elif stat.S_ISLNK(status.st_mode):
                row.append(os.readlink(path))
            found[shown] = row
            if stat.S_ISDIR(status.st_mode):
                visit(path, shown)

    visit(root, "")
    return found


class UnionBesideDirectory(RuleBasedStateMachine):
    """Does everything twice."""

    options = ""

    @initialize(trees_=st.lists(trees, min_size=1, max_size=4), writable_tree=trees)
    def begin(self, trees_: list[dict[str, tuple[str, bytes, int]]], writable_tree: dict[str, Any]) -> None:
        os.umask(0o022)
        self.home = Path(tempfile.mkdtemp(prefix="lu"))
        self.union = Union(self.home, len(trees_), options=self.options)
        self.union.prepare()
        populate(self.union.rw, writable_tree)
        for number, tree in enumerate(trees_, start=1):
            populate(self.union.lower(number), tree)
        self.plain = self.home / "plain"
        self.plain.mkdir()
        merged([self.union.rw, *(self.union.lower(number + 1) for number in range(len(trees_)))], self.plain)
        self.before = {number: tree_bytes(self.union.lower(number)) for number in range(1, len(trees_) + 1)}
        self.union.mount()
        self.opened: list[tuple[int, int]] = []

    def teardown(self) -> None:
        if not hasattr(self, "union"):
            return
        try:
            for pair in self.opened:
                for fd in pair:
                    os.close(fd)
            self.opened = []
            for number, before in self.before.items():
                assert tree_bytes(self.union.lower(number)) == before, "a read-only branch changed"
        finally:
            self.union.end()
            complaints = self.union.complaints()
            shutil.rmtree(self.home)
        assert complaints == ""

    def both(self, act: Callable[[Path], Any], *, may_refuse: bool = False) -> None:
        """Do the same in the union and in the plain directory."""
        try:
            here: Any = act(self.union.mnt)
        except OSError as error:
            if may_refuse and error.errno == errno.EXDEV:
                return
            here = errno.errorcode[error.errno or 0]
        try:
            there: Any = act(self.plain)
        except OSError as error:
            there = errno.errorcode[error.errno or 0]
        assert here == there

    @rule(name=paths, content=contents, mode=modes)
    def write(self, name: str, content: bytes, mode: int) -> None:
        def act(root: Path) -> None:
            fd = os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, mode)
            os.write(fd, content)
            os.close(fd)

        self.both(act)

    @rule(name=paths, content=contents)
    def append(self, name: str, content: bytes) -> None:
        def act(root: Path) -> None:
            fd = os.open(root / name, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
            os.write(fd, content)
            os.close(fd)

        self.both(act)

    @rule(name=paths)
    def make_directory(self, name: str) -> None:
        self.both(lambda root: os.mkdir(root / name))

    @rule(name=paths)
    def make_symlink(self, name: str) -> None:
        self.both(lambda root: os.symlink("somewhere", root / name))

    @rule(name=paths)
    def make_fifo(self, name: str) -> None:
        self.both(lambda root: os.mkfifo(root / name))

    @rule(name=paths)
    def remove(self, name: str) -> None:
        self.both(lambda root: os.unlink(root / name))

    @rule(name=paths)
    def remove_directory(self, name: str) -> None:
        self.both(lambda root: os.rmdir(root / name))

    @rule(name=paths)
    def remove_tree(self, name: str) -> None:
        def act(root: Path) -> None:
            if stat.S_ISDIR(os.lstat(root / name).st_mode):  # of a fifo, rmtree would wait for a writer
                shutil.rmtree(root / name)

        self.both(act)

    @rule(old=paths, new=paths, flags=st.sampled_from([0, 0, 0, libc.RENAME_NOREPLACE, libc.RENAME_EXCHANGE]))
    def rename(self, old: str, new: str, flags: int) -> None:
        self.both(lambda root: libc.renameat2(root / old, root / new, flags), may_refuse=True)

    @rule(old=paths, new=paths)
    def link(self, old: str, new: str) -> None:
        self.both(lambda root: os.link(root / old, root / new, follow_symlinks=False))

    @rule(name=paths, mode=modes)
    def chmod(self, name: str, mode: int) -> None:
        self.both(lambda root: os.chmod(root / name, mode))

    @rule(name=paths, uid=st.sampled_from([0, 1, 1000]))
    def chown(self, name: str, uid: int) -> None:
        self.both(lambda root: os.lchown(root / name, uid, uid))

    @rule(name=paths, size=st.sampled_from([0, 3, 7000]))
    def truncate(self, name: str, size: int) -> None:
        def act(root: Path) -> None:
            if not stat.S_ISFIFO(os.lstat(root / name).st_mode):
                os.truncate(root / name, size)

        self.both(act)

    @rule(name=paths, value=st.sampled_from([b"1", b"22"]))
    def set_attribute(self, name: str, value: bytes) -> None:
        def act(root: Path) -> None:
            if stat.S_ISREG(os.lstat(root / name).st_mode):
                os.setxattr(root / name, "user.mark", value)

        self.both(act)

    @rule(name=paths)
    def look(self, name: str) -> None:
        self.both(lambda root: os.lstat(root / name).st_mode)

    @rule(name=paths)
    def read_listing(self, name: str) -> None:
        self.both(lambda root: sorted(os.listdir(root / name)))

    @rule(name=paths, flags=st.sampled_from([os.O_RDONLY, os.O_RDWR]))
    def keep_open(self, name: str, flags: int) -> None:
        found: list[int] = []

        def act(root: Path) -> None:
            if stat.S_ISREG(os.lstat(root / name).st_mode):
                found.append(os.open(root / name, flags))

        self.both(act)
        if found:
            self.opened.append((found[0], found[1]))

    @precondition(lambda self: getattr(self, "opened", None))
    @rule(data=st.data(), content=contents)
    def use_open(self, data: st.DataObject, content: bytes) -> None:
        pair = data.draw(st.sampled_from(self.opened))
        results: list[Any] = []
        for fd in pair:
            row: list[Any] = []
            try:
                row.append(os.pwrite(fd, content, 3))
            except OSError as error:
                row.append(error.errno)
            os.fchmod(fd, 0o640)
            status = os.fstat(fd)
            row += [os.pread(fd, 20000, 0), status.st_size, status.st_nlink > 0, oct(status.st_mode)]
            results.append(row)
        assert results[0] == results[1]

    @precondition(lambda self: getattr(self, "opened", None))
    @rule()
    def close_one(self) -> None:
        for fd in self.opened.pop():
            os.close(fd)

    @precondition(lambda self: hasattr(self, "union"))
    @rule(kill=st.booleans())
    def mount_again(self, kill: bool) -> None:
        for pair in self.opened:
            for fd in pair:
                os.close(fd)
        self.opened = []
        if kill:
            self.union.kill()
        else:
            self.union.unmount()
        self.union.mount()

    @precondition(lambda self: hasattr(self, "union"))
    @invariant()
    def same(self) -> None:
        here, there = snapshot(self.union.mnt), snapshot(self.plain)
        assert here.keys() == there.keys()
        differing = {name: (here[name], there[name]) for name in here if here[name] != there[name]}
        assert not differing, str(differing)[:600]


def tree_bytes(root: Path) -> dict[str, Any]:
    """A branch as it lies on the disk, times and all, but for when it was read."""
    found: dict[str, Any] = {}
    for directory, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(directory) / name
            status = os.lstat(path)
            found[str(path)] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


class WithoutPassthrough(UnionBesideDirectory):
    options = "nopassthrough"


PHASES = tuple(set(Phase) - {Phase.explain}) if "CI" in os.environ else (Phase.explicit, Phase.reuse, Phase.generate)
RUNS = int(os.environ.get("LAMINA_UNION_RUNS", "12"))
TestUnionBesideDirectory = UnionBesideDirectory.TestCase
TestUnionBesideDirectory.settings = settings(max_examples=RUNS, stateful_step_count=25, deadline=None, phases=PHASES)
TestWithoutPassthrough = WithoutPassthrough.TestCase
TestWithoutPassthrough.settings = settings(max_examples=RUNS, stateful_step_count=25, deadline=None, phases=PHASES)
