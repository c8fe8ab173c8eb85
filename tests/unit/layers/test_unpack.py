import gzip
import hashlib
import io
import os
import random
import tarfile
import threading
import tracemalloc
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.changeset.compression import StreamLimits
from lamina.changeset.tarcodec import TarLimits
from lamina.changeset.whiteout import WhiteoutDialect
from lamina.errors import (
    DataLoss,
    DigestMismatch,
    InvalidArgument,
    LaminaError,
    SizeMismatch,
    StorageFull,
    UnsafeArchive,
)
from lamina.layers import assemble
from lamina.layers.unpack import Limits, Unpacked, UnpackTarget, directory_bytes, unpack
from lamina.oci.digest import Digest, digest_of
from tests.unit.changeset.tars import (
    DIFF_1,
    DIFF_2,
    DIRECTORY,
    FILE,
    LAYER_1,
    LAYER_2,
    SPLIT_1,
    SPLIT_2,
    SYMLINK,
    Row,
    make,
    trees,
)


@pytest.fixture
def target(tmp_path: Path) -> UnpackTarget:
    (tmp_path / "layer").mkdir()
    return UnpackTarget(tmp_path / "layer", tmp_path / "tar-split.json.gz", WhiteoutDialect.NONE)


def mine(tar: bytes) -> bytes:
    """The same archive, owned by whoever runs the test."""
    if os.geteuid() == 0:
        return tar
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(tar)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for info in old:
            info.uid, info.gid = os.geteuid(), os.getegid()
            new.addfile(info, old.extractfile(info) if info.isreg() else None)
    return out.getvalue()


def back(target: UnpackTarget, done: Unpacked) -> bytes:
    out = io.BytesIO()
    assemble.write_tar(target.tar_split, target.directory, done.diff_id, out)
    return out.getvalue()


@pytest.mark.root
@pytest.mark.parametrize("dialect", [WhiteoutDialect.OVERLAY, WhiteoutDialect.AUFS, WhiteoutDialect.NONE])
@pytest.mark.parametrize(
    ("tar", "diff_id", "split", "sizes"),
    [(LAYER_1, DIFF_1, SPLIT_1, (607, 606)), (LAYER_2, DIFF_2, SPLIT_2, (513, 513))],
)
def test_digest_size_and_record_are_dockerds(
    tmp_path: Path, tar: bytes, diff_id: str, split: str, sizes: tuple[int, int], dialect: WhiteoutDialect
) -> None:
    (tmp_path / "layer").mkdir()
    target = UnpackTarget(tmp_path / "layer", tmp_path / "split", dialect)
    done = unpack(io.BytesIO(gzip.compress(tar)), target)
    assert done.diff_id == diff_id
    assert done.layer_bytes == sizes[dialect is WhiteoutDialect.NONE]
    assert hashlib.sha256(zlib.decompress(target.tar_split.read_bytes(), 31)).hexdigest() == split
    assert back(target, done) == tar


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, lambda data: zstandard.ZstdCompressor().compress(data)],
    ids=["plain", "gzip", "zstd"],
)
def test_both_digests_come_out_of_one_pass(target: UnpackTarget, pack) -> None:
    tar = mine(LAYER_1)
    packed = pack(tar)
    seen: list[int] = []
    done = unpack(
        io.BytesIO(packed),
        target,
        expected_digest=digest_of(packed),
        expected_bytes=len(packed),
        progress=seen.append,
    )
    assert (done.digest, done.stream_bytes) == (digest_of(packed), len(packed))
    assert (done.diff_id, done.tar_bytes) == (digest_of(tar), len(tar))
    assert seen[-1] == len(packed)
    assert back(target, done) == tar


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    trees(),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.binary(max_size=20),
)
def test_any_tree_goes_in_and_comes_out_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], form: int, junk: bytes
) -> None:
    try:
        tar = mine(make(rows, form)) + junk
    except ValueError:  # ustar cannot hold this name
        return
    place = tmp_path_factory.mktemp("unpack")
    (place / "layer").mkdir()
    target = UnpackTarget(place / "layer", place / "split", WhiteoutDialect.NONE)
    done = unpack(io.BytesIO(tar), target)
    assert done.diff_id == digest_of(tar)
    assert back(target, done) == tar
    assert assemble.tar_bytes(target.tar_split) == len(tar)
    with tarfile.open(fileobj=io.BytesIO(tar)) as shown:
        for info in shown:
            path = target.directory / info.name
            if info.isreg():
                content = shown.extractfile(info)
                assert content is not None
                assert path.read_bytes() == content.read()
            elif info.issym():
                assert os.readlink(path) == info.linkname
            assert os.path.lexists(path)


def test_a_sparse_file_comes_out_packed_as_it_went_in(target: UnpackTarget) -> None:
    from tests.unit.changeset.test_sparse import pax_1

    tar = pax_1(b"2\n1024\n512\n8192\n3\n", b"A" * 512 + b"end", 9000)
    done = unpack(io.BytesIO(tar), target) if os.geteuid() == 0 else None
    if done is not None:
        assert (target.directory / "sparse").stat().st_size == 9000
        assert back(target, done) == tar


def test_a_whiteout_with_content_comes_out_as_it_went_in(target: UnpackTarget) -> None:
    tar = mine(make([(".wh.gone", FILE, 0o644, b"not empty"), ("f", FILE, 0o644, b"1")]))
    done = unpack(io.BytesIO(tar), target)
    assert os.listdir(target.directory) == ["f"]
    assert back(target, done) == tar


def test_an_empty_layer_is_a_layer(target: UnpackTarget) -> None:
    done = unpack(io.BytesIO(bytes(1024)), target)
    assert done.diff_id == "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    assert (done.layer_bytes, done.entries) == (0, 0)
    assert back(target, done) == bytes(1024)


def test_a_stream_that_is_not_what_was_announced_is_refused(target: UnpackTarget) -> None:
    packed = gzip.compress(mine(LAYER_1))
    wrong = Digest("sha256:" + "0" * 64)
    cases: list[tuple[type[LaminaError], dict]] = [
        (DigestMismatch, {"expected_digest": wrong}),
        (SizeMismatch, {"expected_bytes": len(packed) - 1}),
        (SizeMismatch, {"expected_bytes": len(packed) + 1}),
    ]
    for error, announced in cases:
        with pytest.raises(error):
            unpack(io.BytesIO(packed), target, **announced)
        target.tar_split.unlink()


def test_a_stream_longer_than_announced_is_not_read_to_its_end(target: UnpackTarget) -> None:
    class Endless:
        given = 0

        def read(self, size: int, /) -> bytes:
            self.given += size
            return os.urandom(16) * (size // 16)

    endless = Endless()
    with pytest.raises(LaminaError):
        unpack(endless, target, expected_bytes=1 << 20)
    assert endless.given < 8 << 20


@pytest.mark.parametrize("cut", [100, 600, 3000])
def test_a_stream_that_ends_early_is_data_loss(target: UnpackTarget, cut: int) -> None:
    with pytest.raises(DataLoss):
        unpack(io.BytesIO(mine(LAYER_1)[:cut]), target)


def test_names_that_come_twice_are_refused_as_docker_does(target: UnpackTarget) -> None:
    tar = mine(make([("f", FILE, 0o644, b"1"), ("./f", FILE, 0o644, b"2")]))
    with pytest.raises(InvalidArgument, match="duplicates of file paths not supported"):
        unpack(io.BytesIO(tar), target)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x"])
def test_an_archive_that_would_leave_the_layer_is_refused_by_name(target: UnpackTarget, name: str) -> None:
    tar = mine(make([(name, FILE, 0o644, b"out")]))
    with pytest.raises(UnsafeArchive, match="would leave the layer"):
        unpack(io.BytesIO(tar), target)
    assert sorted(os.listdir(target.directory.parent)) == ["layer", "tar-split.json.gz"]


def test_bombs_are_stopped_and_memory_stays_small(target: UnpackTarget) -> None:
    bomb = gzip.compress(mine(make([("big", FILE, 0o644, bytes(48 << 20))])), 9)
    limits = Limits(stream=StreamLimits(free_bytes=1 << 20, ratio=100))
    tracemalloc.start()
    try:
        with pytest.raises(UnsafeArchive, match="bomb"):
            unpack(io.BytesIO(bomb), target, limits=limits)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_an_archive_of_too_many_names_is_stopped(target: UnpackTarget) -> None:
    tar = mine(make([(str(number), DIRECTORY, 0o755, "") for number in range(50)]))
    with pytest.raises(UnsafeArchive, match="more than 20 entries"):
        unpack(io.BytesIO(tar), target, limits=Limits(tar=TarLimits(entries=20)))


def test_a_full_disk_is_told_as_such(target: UnpackTarget) -> None:
    if not os.path.exists("/dev/full"):
        return
    full = UnpackTarget(target.directory, target.tar_split, WhiteoutDialect.NONE)
    os.symlink("/dev/full", full.directory / "through")

    class Full:
        def read(self, size: int, /) -> bytes:
            with open("/dev/full", "wb", buffering=0) as file:
                file.write(b"x")
            return b""

    with pytest.raises(StorageFull, match="no space left"):
        unpack(Full(), full)


def test_the_reading_thread_ends_with_the_unpacking(target: UnpackTarget) -> None:
    before = threading.active_count()
    with pytest.raises(InvalidArgument):
        unpack(io.BytesIO(os.urandom(4 << 20)), target)
    assert threading.active_count() == before


def test_what_reading_raises_is_raised(target: UnpackTarget) -> None:
    class Broken:
        def read(self, size: int, /) -> bytes:
            raise ConnectionResetError("the network")

    with pytest.raises(ConnectionResetError, match="the network"):
        unpack(Broken(), target)


def test_directory_bytes_counts_each_inode_once(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_bytes(b"x" * 100)
    os.link(tmp_path / "d/a", tmp_path / "b")
    (tmp_path / "s").symlink_to("1234567")
    assert directory_bytes(tmp_path) == 107


def test_an_entry_that_replaces_another_does_not_count_twice(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    target = UnpackTarget(tmp_path / "layer", tmp_path / "split", WhiteoutDialect.OVERLAY_USERXATTR)
    rows: list[Row] = [("d", SYMLINK, 0o777, "e"), ("e/f", FILE, 0o644, b"x" * 50), ("d/f", FILE, 0o644, b"y" * 20)]
    done = unpack(io.BytesIO(mine(make(rows))), target)
    assert done.layer_bytes == 20 + len("e")


@pytest.mark.root
def test_any_damaged_archive_is_refused_by_us_or_comes_out_to_the_byte(tmp_path: Path) -> None:
    """Headers are damaged and their sums put right again, so that the damage is reached."""
    from tests.unit.changeset.test_sparse import pax_1
    from tests.unit.changeset.test_tarcodec import resum, with_pax

    rng = random.Random(7)
    sound = [
        LAYER_1,
        LAYER_2,
        with_pax({"path": "x/" * 70 + "n", "SCHILY.xattr.user.a": "b", "mtime": "1.5"}, size=5),
        pax_1(b"2\n1024\n512\n8192\n3\n", b"A" * 512 + b"end", 9000),
    ]
    refused = 0
    for number in range(400):
        tar = bytearray(rng.choice(sound))
        for _ in range(rng.randrange(1, 4)):
            block = rng.randrange(len(tar) // 512) * 512
            at = block + rng.choice([rng.randrange(512), rng.randrange(100), rng.randrange(100, 160)])
            noise = rng.choice([rng.randbytes(8), b"\xff" * 12, bytes(8), b"/", b".", b"7"])
            tar[at : at + len(noise)] = noise
            tar[block : block + 512] = resum(tar[block : block + 512])
        (tmp_path / str(number)).mkdir()
        target = UnpackTarget(tmp_path / str(number), tmp_path / f"{number}.split", WhiteoutDialect.NONE)
        try:
            done = unpack(io.BytesIO(bytes(tar)), target)
        except LaminaError:
            refused += 1
            continue
        assert back(target, done) == bytes(tar)
    assert 0 < refused < 400
