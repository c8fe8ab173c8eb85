from pathlib import Path

import pytest

from lamina.errors import CorruptRecord
from lamina.ids import CacheId
from lamina.layers import record
from lamina.layers.record import Layer, RwLayer
from lamina.oci.digest import ChainId, DiffId, Digest

A, B = (Digest("sha256:" + digit * 64) for digit in "ab")


def test_a_layer_record_reads_back(tmp_path: Path) -> None:
    for parent in (None, ChainId(B)):
        place = tmp_path / str(parent)
        place.mkdir()
        layer = Layer(ChainId(A), DiffId(B), parent, CacheId("c" * 64), 42)
        record.write_layer(place, layer)
        assert record.read_layer(place, ChainId(A)) == layer
        assert (place / "size").read_bytes() == b"42"


def test_white_space_around_values_is_fine(tmp_path: Path) -> None:
    record.write_layer(tmp_path, Layer(ChainId(A), DiffId(B), None, CacheId("c"), 1))
    (tmp_path / "size").write_text(" 7\n")
    assert record.read_layer(tmp_path, ChainId(A)).size_bytes == 7


@pytest.mark.parametrize("name", ["diff", "size", "cache-id"])
@pytest.mark.parametrize("text", [None, "", "\xff", "-1/..", "sha256:A"])
def test_a_damaged_layer_record_is_told(tmp_path: Path, name: str, text: str | None) -> None:
    record.write_layer(tmp_path, Layer(ChainId(A), DiffId(B), None, CacheId("c"), 1))
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    if (name, text) == ("cache-id", "sha256:A"):
        assert record.read_layer(tmp_path, ChainId(A)).cache_id == text  # any name that is safe is taken
        return
    with pytest.raises(CorruptRecord):
        record.read_layer(tmp_path, ChainId(A))


@pytest.mark.parametrize("init", [None, CacheId("d" * 64 + "-init")])
def test_a_mount_record_reads_back(tmp_path: Path, init: CacheId | None) -> None:
    layer = RwLayer("box", CacheId("d" * 64), init, ChainId(A))
    record.write_rw(tmp_path / "box", layer)
    assert record.read_rw(tmp_path / "box") == layer


@pytest.mark.parametrize(
    ("name", "text"),
    [("mount-id", ""), ("mount-id", "../../etc"), ("init-id", "x"), ("parent", "nothing"), ("mount-id", "A" * 64)],
)
def test_a_damaged_mount_record_is_told(tmp_path: Path, name: str, text: str) -> None:
    record.write_rw(tmp_path / "box", RwLayer("box", CacheId("d" * 64), None, ChainId(A)))
    (tmp_path / "box" / name).write_text(text)
    with pytest.raises(CorruptRecord):
        record.read_rw(tmp_path / "box")
