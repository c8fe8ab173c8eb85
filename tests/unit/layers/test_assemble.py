import io
import os
from pathlib import Path

import pytest

from lamina.changeset.whiteout import WhiteoutDialect
from lamina.errors import CorruptRecord, DataLoss
from lamina.layers.assemble import tar_bytes, write_tar
from lamina.layers.unpack import UnpackTarget, unpack
from lamina.oci.digest import DiffId, Digest
from tests.unit.changeset.tars import FILE, SYMLINK, make

from .test_unpack import mine

TAR = mine(make([("d/small", FILE, 0o644, b"small"), ("d/big", FILE, 0o644, os.urandom(3 << 20))]))


@pytest.fixture
def layer(tmp_path: Path) -> tuple[Path, Path, DiffId]:
    (tmp_path / "layer").mkdir()
    target = UnpackTarget(tmp_path / "layer", tmp_path / "split", WhiteoutDialect.NONE)
    return target.tar_split, target.directory, unpack(io.BytesIO(TAR), target).diff_id


def test_the_tar_comes_out_to_the_byte(layer: tuple[Path, Path, DiffId]) -> None:
    out = io.BytesIO()
    assert write_tar(*layer, out) == len(TAR)
    assert out.getvalue() == TAR
    assert tar_bytes(layer[0]) == len(TAR)


@pytest.mark.parametrize("name", ["d/small", "d/big"])
def test_a_changed_file_is_named(layer: tuple[Path, Path, DiffId], name: str) -> None:
    with open(layer[1] / name, "r+b") as file:
        file.write(b"X")
    with pytest.raises(DataLoss, match=f"checksum failed for '{name}'"):
        write_tar(*layer, io.BytesIO())


@pytest.mark.parametrize("size", [0, 2, 5 << 20])
def test_a_file_of_another_length_is_named(layer: tuple[Path, Path, DiffId], size: int) -> None:
    os.truncate(layer[1] / "d/small", size)
    with pytest.raises(DataLoss, match="'d/small'"):
        write_tar(*layer, io.BytesIO())


def test_a_file_that_is_gone_is_named(layer: tuple[Path, Path, DiffId]) -> None:
    (layer[1] / "d/big").unlink()
    with pytest.raises(DataLoss, match="'d/big' cannot be read"):
        write_tar(*layer, io.BytesIO())


def test_a_symlink_in_the_place_of_a_file_is_not_followed(layer: tuple[Path, Path, DiffId], tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"small")
    (layer[1] / "d/small").unlink()
    (layer[1] / "d/small").symlink_to(tmp_path / "secret")
    with pytest.raises(DataLoss):
        write_tar(*layer, io.BytesIO())


def test_a_fifo_in_the_place_of_a_file_does_not_block(layer: tuple[Path, Path, DiffId]) -> None:
    (layer[1] / "d/small").unlink()
    os.mkfifo(layer[1] / "d/small")
    with pytest.raises(DataLoss):
        write_tar(*layer, io.BytesIO())


def test_a_record_of_another_layer_is_noticed(layer: tuple[Path, Path, DiffId]) -> None:
    with pytest.raises(DataLoss, match="could not verify layer data"):
        write_tar(layer[0], layer[1], DiffId(Digest("sha256:" + "1" * 64)), io.BytesIO())


def test_a_missing_or_damaged_record_is_told(layer: tuple[Path, Path, DiffId]) -> None:
    layer[0].write_bytes(layer[0].read_bytes()[:-20])
    with pytest.raises((CorruptRecord, DataLoss)):
        write_tar(*layer, io.BytesIO())
    layer[0].unlink()
    with pytest.raises(CorruptRecord):
        write_tar(*layer, io.BytesIO())


def test_names_through_symlinks_are_read_inside_the_layer(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    target = UnpackTarget(tmp_path / "layer", tmp_path / "split", WhiteoutDialect.NONE)
    tar = mine(
        make([("usr/bin/ls", FILE, 0o755, b"ls"), ("bin", SYMLINK, 0o777, "/usr/bin"), ("bin/cp", FILE, 0o755, b"cp")])
    )
    done = unpack(io.BytesIO(tar), target)
    out = io.BytesIO()
    write_tar(target.tar_split, target.directory, done.diff_id, out)
    assert out.getvalue() == tar
    assert (target.directory / "usr/bin/cp").read_bytes() == b"cp"
