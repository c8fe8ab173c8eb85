"""Deep stacks of layers: the topmost name wins, through more layers than any kernel stacks by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.ids import CacheId
from tests.conformance.conftest import SLOW, Bench
from tests.conformance.trees import Append, Chown, Edit, HardLink, MakeDir, Remove, Symlink, Write, apply_edits, shown

pytestmark = pytest.mark.root

DEPTH = 150 if SLOW else 400


class TestDeepStacks:
    def test_128_layers_mount(self, bench: Bench) -> None:
        bench.layer("layer-0", None, Write("base-file", b"base"), Write("top-id", b"0"), sealed=True)
        for number in range(1, 128):
            edits = (Write("top-id", str(number).encode()), Write(f"from-{number}", str(number).encode()))
            bench.layer(f"layer-{number}", f"layer-{number - 1}", *edits, sealed=True)
        bench.layer("rw", "layer-127", Write("mine", b"m"))
        tree = bench.shows("rw")
        assert tree["top-id"].content == b"127"
        assert tree["base-file"].content == b"base"
        assert all(tree[f"from-{number}"].content == str(number).encode() for number in range(1, 128))

    def test_400_layers_show_what_400_edits_make(self, bench: Bench, place: Path) -> None:
        """Through merged layers where the kernel does not stack so many."""
        oracle = place / "oracle"
        oracle.mkdir()
        parent = None
        for number in range(DEPTH):
            edits = periodic_edits(number)
            apply_edits(oracle, edits)
            bench.layer(f"layer-{number}", parent, *edits, sealed=True)
            parent = f"layer-{number}"
        bench.layer("rw", parent)
        expected, found = shown(oracle), bench.shows("rw")
        expected.pop("."), found.pop(".")
        assert found == expected
        bench.edit("rw", Append("d/early", b"!"), Remove("d/kept"), Write("top", b"mine"))
        assert bench.shows(parent or "")["d/early"].content == b"layer 3"
        before = bench.shows("rw")
        bench.reopen()
        assert bench.shows("rw") == before
        assert bench.driver.usage(CacheId(parent or "")).size_bytes < 1000

    def test_the_topmost_name_wins_whatever_it_is(self, bench: Bench) -> None:
        """One name as file, directory, symlink and nothing, from layer to layer."""
        turns: tuple[tuple[Edit, ...], ...] = (
            (MakeDir("n"), Write("n/first", b"1"), Write("other", b"0")),
            (Remove("n"), Write("n", b"a file")),
            (Remove("n"), MakeDir("n"), Write("n/second", b"2")),
            (Remove("n"),),
            (Symlink("n", "other"),),
            (Remove("n"), MakeDir("n"), MakeDir("n/deep"), Write("n/deep/third", b"3"), Append("other", b"4")),
            (Write("n/first", b"new"),),
        )
        views: list[set[str]] = []
        for number, edits in enumerate(turns):
            bench.layer(f"turn-{number}", f"turn-{number - 1}" if number else None, *edits, sealed=True)
            views.append({name for name in bench.shows(f"turn-{number}") if name.startswith("n")})
        assert views == [
            {"n", "n/first"},
            {"n"},
            {"n", "n/second"},
            set(),
            {"n"},
            {"n", "n/deep", "n/deep/third"},
            {"n", "n/deep", "n/deep/third", "n/first"},
        ]
        assert bench.shows("turn-6")["n/first"].content == b"new"
        assert bench.shows("turn-6")["other"].content == b"04"
        assert bench.shows("turn-4")["other"].content == b"0"


def periodic_edits(number: int) -> tuple[Edit, ...]:
    """Most layers of a deep stack change little; a few delete, replace and hide."""
    if number == 0:
        return (MakeDir("d"), Write("d/kept", b"from the bottom"), Write("top", b"0"), HardLink("d/top-too", "top"))
    if number == 3:
        return (Write("d/early", b"layer 3"), MakeDir("again"), Write("again/old"))
    if number % 40 == 39:
        return (Remove(f"d/f{number - 19}"), Remove("again"), MakeDir("again"), Write(f"again/{number}", b"a"))
    if number % 20 == 0:
        return (Write(f"d/f{number}", str(number).encode()), Write("top", str(number).encode()))
    if number % 20 == 10:
        return (Chown("d", number, 1), Remove("again"), Write("again", b"a file"), Remove("again"), MakeDir("again"))
    return ()
