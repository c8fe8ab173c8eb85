import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.changeset.entry import Entry, EntryKind
from lamina.changeset.tarcodec import TarLimits, TarReader
from lamina.errors import DataLoss, InvalidArgument, LaminaError, UnsafeArchive

from .tars import DIRECTORY, FILE, LAYER_1, LINK, SYMLINK, Row, make, trees

FORMATS = [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(data: bytes, size: int = 1 << 20, limits: TarLimits | None = None) -> list[tuple[Entry, bytes]]:
    reader = TarReader(cut(data, size), limits or TarLimits())
    found: list[tuple[Entry, bytes]] = []
    while (entry := reader.next_entry()) is not None:
        found.append((entry, b"".join(bytes(piece) for piece in reader.pieces())))
    return found


def rebuilt(data: bytes, size: int) -> bytes:
    """Framing and bodies put together again."""
    reader = TarReader(cut(data, size))
    out = b""
    while reader.next_entry() is not None:
        out += reader.take_framing()
        whole = reader.whole_body()
        out += bytes(whole) if whole is not None else b"".join(bytes(piece) for piece in reader.pieces())
    return out + reader.take_framing() + b"".join(reader.rest())


def member(**fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo("x")
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def header(**fields: object) -> bytes:
    return member(**fields).tobuf(tarfile.USTAR_FORMAT)


def with_pax(records: dict[str, str], **fields: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = member(**fields)
        info.pax_headers = records
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


def pax_block(body: bytes, flag: bytes = b"x") -> bytes:
    head = bytearray(header(name="pax", size=len(body)))
    head[156:157] = flag
    return resum(head) + body + bytes(-len(body) % 512)


def resum(block: bytes | bytearray) -> bytes:
    changed = bytearray(block)
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


@given(trees(), st.sampled_from(FORMATS), st.sampled_from([1, 511, 512, 700, 1 << 20]))
def test_entries_are_what_tarfile_shows_and_every_byte_is_kept(rows: list[Row], form: int, size: int) -> None:
    try:
        data = make(rows, form)
    except ValueError:  # ustar cannot hold this name
        return
    shown = read(data, size)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        wanted = tar.getmembers()
        assert [entry.name.decode().rstrip("/") for entry, _ in shown] == [one.name for one in wanted]
        for (entry, body), info in zip(shown, wanted, strict=True):
            assert (entry.mode, entry.uid, entry.gid) == (info.mode, info.uid, info.gid)
            assert entry.mtime_ns == info.mtime * 1_000_000_000
            assert entry.link.decode() == info.linkname
            assert (
                entry.kind.value
                == {FILE: "file", DIRECTORY: "directory", LINK: "hard link", SYMLINK: "symlink"}[info.type]
            )
            if info.isreg():
                content = tar.extractfile(info)
                assert content is not None
                assert body == content.read()
    assert rebuilt(data, size) == data


def test_bytes_after_the_end_are_kept() -> None:
    data = LAYER_1 + b"junk" * 1000
    assert rebuilt(data, 333) == data


def test_an_archive_may_end_without_empty_blocks() -> None:
    data = make([("a", FILE, 0o644, b"x" * 512)])[:1024]
    assert [entry.name for entry, _ in read(data)] == [b"a"]
    assert rebuilt(data, 100) == data
    assert read(b"") == []


def test_names_that_are_not_utf8_stay_as_they_are() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.addfile(member(name="caf\xe9"))
    assert read(buffer.getvalue())[0][0].name == b"caf\xe9"


@pytest.mark.parametrize("at", [600, 1024 - 100, 10])
def test_an_archive_that_ends_early_is_data_loss(at: int) -> None:
    data = make([("a", FILE, 0o644, b"x" * 700)])
    with pytest.raises(DataLoss):
        read(data[:at])


def test_what_is_no_tar_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="not a tar"):
        read(b"this is not an archive at all" * 100)
    with pytest.raises(InvalidArgument, match="empty header"):
        read(bytes(512) + LAYER_1)


def test_an_unknown_type_is_refused_by_name() -> None:
    block = bytearray(header(name="odd"))
    block[156:157] = b"Z"
    with pytest.raises(InvalidArgument, match="'odd' has the unknown type 'Z'"):
        read(resum(block))


def test_pax_records_count_before_the_header() -> None:
    records = {
        "path": "long/" * 60 + "name",
        "uid": "4000000",
        "mtime": "1700000000.123456789",
        "atime": "1700000001.5",
        "SCHILY.xattr.user.mine": "value",
    }
    entry = read(with_pax(records, size=3))[0][0]
    assert entry.name == b"long/" * 60 + b"name"
    assert entry.uid == 4_000_000
    assert entry.mtime_ns == 1_700_000_000_123_456_789
    assert entry.atime_ns == 1_700_000_001_500_000_000
    assert entry.xattrs == ((b"user.mine", b"value"),)


@pytest.mark.parametrize("mtime", ["-5", "-0.5", "99999999999999"])
def test_times_that_do_not_fit_are_the_epoch(mtime: str) -> None:
    assert read(with_pax({"mtime": mtime}))[0][0].mtime_ns == 0


@pytest.mark.parametrize(
    "body",
    [
        b"6 a=b\n",
        b"999999999 a=b\n",
        b"x a=b\n",
        b"8 path\0\n",
        b"10 noequal\n",
        b"0 =\n",
        b"13 path=a\0b\0\n\n",
        b"-4 a=b\n",
    ],
)
def test_a_broken_pax_header_is_refused(body: bytes) -> None:
    if body == b"6 a=b\n":
        assert read(pax_block(body) + header(name="x"))[0][0].name == b"x"
        return
    with pytest.raises(InvalidArgument):
        read(pax_block(body) + header(name="x"))


def test_a_global_header_is_shown_and_changes_nothing() -> None:
    data = pax_block(b"14 comment=ab\n", b"g") + make([("a", FILE, 0o644, b"1")])
    (first, _), (second, _) = read(data)
    assert first.kind is EntryKind.GLOBAL_HEADER
    assert second.name == b"a"
    assert rebuilt(data, 100) == data


def test_base_256_numbers_are_read() -> None:
    block = bytearray(header(name="a"))
    block[108:116] = b"\x80\0\0\0" + (3_000_000_000).to_bytes(4, "big")
    assert read(resum(block))[0][0].uid == 3_000_000_000


@pytest.mark.parametrize(
    "size",
    [b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7, b"\xff" * 12],
    ids=["2^63 bytes", "minus one byte"],
)
def test_impossible_sizes_are_refused(size: bytes) -> None:
    block = bytearray(header(name="huge"))
    block[124:136] = size
    with pytest.raises(UnsafeArchive, match="'huge' claims"):
        read(resum(block))


def test_an_owner_that_no_kernel_knows_is_refused() -> None:
    assert read(with_pax({"uid": str((1 << 32) - 2)}))[0][0].uid == (1 << 32) - 2
    for owner in ((1 << 32) - 1, 1 << 40):
        with pytest.raises(InvalidArgument, match="no user or group"):
            read(with_pax({"gid": str(owner)}))


def test_a_directory_with_a_size_has_no_body() -> None:
    block = bytearray(header(name="d/", type=tarfile.DIRTYPE))
    block[124:136] = b"00000001000\0"
    data = resum(block) + header(name="after")
    assert [(entry.name, entry.size_bytes) for entry, _ in read(data)] == [(b"d/", 0), (b"after", 0)]


def test_too_many_entries_are_refused() -> None:
    data = make([(str(number), FILE, 0o644, b"") for number in range(20)])
    assert len(read(data, limits=TarLimits(entries=21))) == 20
    with pytest.raises(UnsafeArchive, match="more than 10 entries"):
        read(data, limits=TarLimits(entries=10))


@pytest.mark.parametrize("flag", [b"x", b"L", b"K", b"g"])
def test_a_long_extension_is_refused_before_it_is_read(flag: bytes) -> None:
    block = bytearray(header(name="long", size=(1 << 20) + 1))
    block[156:157] = flag
    with pytest.raises(UnsafeArchive, match="not within"):
        read(resum(block))


@pytest.mark.parametrize("flag", [b"x", b"L", b"K", b"g"])
def test_an_extension_of_negative_size_does_not_turn_the_reader_back(flag: bytes) -> None:
    block = bytearray(header(name="back"))
    block[124:136] = b"\xff" * 11 + b"\0"
    block[156:157] = flag
    with pytest.raises(UnsafeArchive, match="not within"):
        read(resum(block) + LAYER_1)


def test_old_headers_without_magic_and_with_signed_sums_are_read() -> None:
    block = bytearray(header(name="old\xe9"))
    block[0:4] = b"old\xe9"
    block[257:265] = bytes(8)
    block[148:156] = b" " * 8
    signed = sum(value - 256 if value > 127 else value for value in block)
    block[148:156] = b"%06o\0 " % signed
    assert read(bytes(block))[0][0].name.startswith(b"old\xe9")


@given(st.binary(max_size=3000), st.integers(0, len(LAYER_1) - 1))
def test_rubbish_never_ends_in_anything_but_an_answer_or_our_error(noise: bytes, at: int) -> None:
    for data in (noise, LAYER_1[:at] + noise + LAYER_1[at + len(noise) :]):
        try:
            read(data, 257)
        except LaminaError:
            continue
