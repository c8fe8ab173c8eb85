"""Deep stacks of layers: the topmost name wins, through more layers than any kernel stacks by itself."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Bench
from tests.conformance.trees import (
    Write,
)

pytestmark = pytest.mark.root


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
