import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.changeset.entry import Entry, EntryKind
from lamina.changeset.tarcodec import TarReader
from lamina.changeset.tarheader import END, encode_header, padding

NAMES = st.binary(min_size=1, max_size=400).filter(lambda name: b"\0" not in name and name.strip(b"/"))


def back(data: bytes) -> Entry:
    entry = TarReader(iter([data])).next_entry()
    assert entry is not None
    return entry


@given(
    NAMES,
    st.sampled_from([EntryKind.FILE, EntryKind.SYMLINK, EntryKind.HARD_LINK, EntryKind.FIFO]),
    st.binary(max_size=300).filter(lambda link: b"\0" not in link),
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 2),
    st.integers(0, 2**40),
)
def test_a_header_reads_back_as_the_entry(
    name: bytes, kind: EntryKind, link: bytes, mode: int, owner: int, size: int
) -> None:
    entry = Entry(kind, name, mode=mode, uid=owner, gid=owner // 2, mtime_ns=1_700_000_000_000_000_000)
    if kind is EntryKind.FILE:
        entry.size_bytes = entry.stored_bytes = size
    elif kind is not EntryKind.FIFO:
        entry.link = link
    assert back(encode_header(entry)) == entry


def test_what_fits_is_plain_ustar_and_what_does_not_has_a_pax_header_before() -> None:
    short = encode_header(Entry(EntryKind.FILE, b"etc/hosts", mode=0o644))
    assert len(short) == 512
    assert short[257:265] == b"ustar\x0000"
    assert short[100:108] == b"0000644\0"
    split = encode_header(Entry(EntryKind.FILE, b"d" * 90 + b"/" + b"f" * 90))
    assert len(split) == 512
    assert split[345:435] == b"d" * 90
    long = encode_header(Entry(EntryKind.FILE, b"d" * 90 + b"/" + b"f" * 120))
    assert long[156:157] == b"x"
    assert long[0:100].startswith(b"d" * 90 + b"/PaxHead")
    assert len(long) == 3 * 512


def test_tarfile_reads_it_too() -> None:
    data = b"".join(
        (
            encode_header(Entry(EntryKind.DIRECTORY, b"d/", mode=0o755)),
            encode_header(Entry(EntryKind.FILE, "d/ü".encode(), mode=0o600, size_bytes=3)),
            b"abc" + padding(3),
            encode_header(Entry(EntryKind.CHARACTER_DEVICE, b"d/null", major=1, minor=3)),
            END,
        )
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        directory, file, device = tar.getmembers()
        assert (directory.name, directory.isdir(), directory.mode) == ("d", True, 0o755)
        content = tar.extractfile(file)
        assert content is not None
        assert (file.name, content.read()) == ("d/ü", b"abc")
        assert (device.devmajor, device.devminor, device.ischr()) == (1, 3, True)


@pytest.mark.parametrize("size", range(80, 130))
def test_the_length_of_a_pax_record_counts_itself(size: int) -> None:
    name = b"\xc3\xbc" * size
    assert back(encode_header(Entry(EntryKind.FILE, name))).name == name


def test_capabilities_travel_as_pax_records() -> None:
    entry = Entry(EntryKind.FILE, b"ping", xattrs=((b"security.capability", b"\x01\0\0\2\n=\0bin"),))
    assert back(encode_header(entry)).xattrs == entry.xattrs
