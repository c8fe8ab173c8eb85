"""Reading archives as they stream in."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.errors import DataLoss, LaminaError, UnsafeArchive
from lamina.images.archive_intake import take_in
from tests.unit.images.stores import link, pieces, tar

LAYER = tar(("file", b"x" * 3000))


class Kept:
    def __init__(self) -> None:
        self.data = bytearray()
        self.state = "open"

    def write(self, piece: memoryview) -> None:
        self.data += piece

    def done(self) -> None:
        self.state = "done"

    def abandon(self) -> None:
        self.state = "abandoned"


class Shelf:
    def __init__(self) -> None:
        self.layers: dict[str, Kept] = {}

    def begin(self, name: str, size_bytes: int) -> Kept:
        self.layers[name] = Kept()
        return self.layers[name]


@pytest.mark.parametrize("size", [1, 511, 512, 513, 100_000])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_layers_and_documents_are_told_apart_whatever_comes_round_them(size: int, compress) -> None:
    packed = gzip.compress(LAYER)
    archive = tar(
        ("manifest.json", b"[]"), ("a/layer.tar", LAYER), ("b/layer.tar", packed), ("e/layer.tar", bytes(1024)),
        link("c/layer.tar", "../a/layer.tar"), ("a/VERSION", b"1.0"), ("empty", b""),
    )  # fmt: skip
    shelf = Shelf()
    contents = take_in(pieces(compress(archive), size), shelf)
    assert {name: bytes(kept.data) for name, kept in shelf.layers.items()} == {
        "a/layer.tar": LAYER, "b/layer.tar": packed, "e/layer.tar": bytes(1024),
    }  # fmt: skip
    assert {kept.state for kept in shelf.layers.values()} == {"done"}
    assert contents.documents == {"manifest.json": b"[]", "a/VERSION": b"1.0", "empty": b""}
    assert contents.resolve("c/layer.tar") == "a/layer.tar"


def test_an_archive_that_breaks_off_is_told_and_the_layer_abandoned() -> None:
    shelf = Shelf()
    with pytest.raises(DataLoss):
        take_in(pieces(tar(("a/layer.tar", LAYER))[:2000], 512), shelf)
    assert shelf.layers["a/layer.tar"].state == "abandoned"


def test_links_in_a_circle_lead_nowhere() -> None:
    contents = take_in(pieces(tar(link("a", "b"), link("b", "a")), 512), Shelf())
    with pytest.raises(UnsafeArchive):
        contents.resolve("a")


@pytest.mark.parametrize(
    "member",
    [
        ("../x", b""),
        ("/etc/passwd", b"x"),
        link("layer.tar", "/etc/shadow"),
        link("layer.tar", "../../etc/shadow"),
        link("layer.tar", "../x", tarfile.LNKTYPE),
    ],
)
def test_names_that_lead_out_are_refused(member) -> None:
    with pytest.raises(UnsafeArchive):
        take_in(pieces(tar(member), 512), Shelf())


def test_documents_are_bounded_in_number_and_size() -> None:
    big = b"{" + b" " * (8 << 20)
    contents = take_in(pieces(tar(("note", big), ("manifest.json", b"[]")), 1 << 20), Shelf())
    assert list(contents.documents) == ["manifest.json"]
    many = tar(*[(f"{number}", b"{" + b" " * (3 << 20)) for number in range(12)])
    with pytest.raises(UnsafeArchive):
        take_in(pieces(many, 1 << 20), Shelf())


def test_too_many_layers_are_refused() -> None:
    with pytest.raises(UnsafeArchive, match="more than 2000 layers"):
        take_in(pieces(tar(*[(f"{number}/layer.tar", bytes(512)) for number in range(2001)]), 1 << 20), Shelf())


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=1500), st.integers(0, 3000), st.integers(1, 700))
def test_no_bytes_break_the_reader(noise: bytes, at: int, size: int) -> None:
    archive = tar(("manifest.json", b"[]"), ("a/layer.tar", LAYER))
    damaged = archive[:at] + noise + archive[at + len(noise) :]
    try:
        take_in(pieces(damaged, size), Shelf())
    except LaminaError:
        return
