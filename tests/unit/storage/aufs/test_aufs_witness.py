"""What our union writes and reads, seen by a program that others wrote: fuse-overlayfs knows aufs' names in branches.

There is no kernel with aufs for the tests, so this is the nearest thing to a second opinion on the format.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamina.ids import CacheId
from lamina.kernel.mounts import unmount
from lamina.storage.aufs.driver import Aufs
from lamina.storage.mounting import Mounts
from tests.conformance.grounds_aufs import no_union
from tests.conformance.trees import (
    Append,
    Chmod,
    Chown,
    Edit,
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

pytestmark = pytest.mark.root

LAYERS: tuple[tuple[Edit, ...], ...] = (
    (
        MakeDir("etc", 0o750), Write("etc/hosts", b"1"), Write("etc/passwd", b"2"), MakeDir("var"), MakeDir("var/log"),
        Write("var/log/a", b"a"), Write("var/log/b", b"b"), MakeDir("home"), Write("home/f", b"h"), Write("top", b"t"),
        Symlink("link", "etc"), Node("null", stat.S_IFCHR, os.makedev(1, 3), 0o666), MakeDir("gone"), Write("gone/x"),
    ),
    (
        Remove("etc/hosts"), Append("etc/passwd", b"+"), Remove("var/log"), MakeDir("var/log"), Write("var/log/c", b"c"),
        Remove("gone"), Rename("top", "home/top"), Chown("home/f", 7, 8), SetXattr("home/f", "user.note", b"n"),
        Remove("link"), MakeDir("link"), Write("link/in", b"now a directory"),
    ),
    (
        Write("etc/hosts", b"back"), Chmod("etc", 0o700), Remove("home"), Write("home", b"now a file"), MakeDir("gone"),
        Append("var/log/c", b"+"), Remove("null"), Write("odd \udcff name", b"o"),
    ),
)  # fmt: skip


@pytest.fixture(autouse=True)
def union() -> None:
    if reason := no_union():
        pytest.skip(f"aufs: {reason}")


@contextmanager
def witness(place: Path, branches: Sequence[Path]) -> Iterator[Path]:
    """The branches (uppermost first) as fuse-overlayfs shows them."""
    program = shutil.which("fuse-overlayfs")
    if program is None:
        pytest.skip("fuse-overlayfs is not installed")
    place.mkdir()
    lower = ":".join(os.fspath(branch) for branch in branches)
    subprocess.run([program, "-o", f"lowerdir={lower}", place], check=True, capture_output=True)
    try:
        yield place
    finally:
        unmount(place, detach=True)


def seen(tree: Path) -> dict[str, Shown]:
    """Without the root itself, whose metadata is the topmost branch's."""
    found = shown(tree, with_links=False)
    del found["."]
    return found


def test_what_our_union_writes_another_program_reads(tmp_path: Path) -> None:
    driver = Aufs(tmp_path)
    mounts = Mounts(driver)
    oracle = tmp_path / "oracle"
    oracle.mkdir()
    parent: CacheId | None = None
    for number, edits in enumerate(LAYERS):
        layer = CacheId(f"layer{number}")
        driver.create(layer, parent)
        with mounts.mounted(layer) as tree:
            apply_edits(tree, edits)
            apply_edits(oracle, edits)
            assert seen(tree) == seen(oracle)
        driver.seal(layer, durable=False)
        with witness(tmp_path / f"witness{number}", [driver.upper(layer), *driver.lowers(layer)]) as tree:
            assert seen(tree) == seen(oracle)
        parent = layer


def test_what_dockerd_would_have_written_is_shown_alike(tmp_path: Path) -> None:
    """Whiteouts as links of one inode, an opaque directory, pseudo-links and orphans: as aufs leaves them."""
    home = tmp_path / "aufs"
    base, own = home / "diff/base", home / "diff/own"
    for place in (
        base / "etc",
        base / "var/old",
        own / "var",
        own / ".wh..wh.orph",
        own / ".wh..wh.plnk",
        home / "layers",
    ):
        place.mkdir(parents=True)
    for place in (base / "etc/hosts", base / "etc/passwd", base / "var/old/f", base / "gone"):
        place.write_text(place.name)
    (own / ".wh..wh.aufs").touch(0o444)
    for name in (".wh.gone", "var/.wh..wh..opq"):
        os.link(own / ".wh..wh.aufs", own / name)
    (own / "etc").mkdir()
    os.link(own / ".wh..wh.aufs", own / "etc/.wh.hosts")
    (own / "etc/new").write_text("new")
    (own / "var/f").write_text("f")
    (own / ".wh..wh.plnk/123.4").write_text("linked")
    os.link(own / ".wh..wh.plnk/123.4", own / "var/linked")
    (home / "layers/base").write_text("")
    (home / "layers/own").write_text("base\n")
    driver = Aufs(tmp_path)
    with Mounts(driver).mounted(CacheId("own")) as tree:
        ours = seen(tree)
    assert sorted(ours) == ["etc", "etc/new", "etc/passwd", "var", "var/f", "var/linked"]
    with witness(tmp_path / "witness", [own, base]) as tree:
        assert seen(tree) == ours
