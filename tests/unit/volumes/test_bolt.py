"""The bbolt format."""

import contextlib
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.errors import CorruptRecord
from lamina.volumes.bolt import Bucket, Commit, Database, decode, fnv1a, new_file, plan_commit


def apply(data: bytes, commit: Commit) -> bytes:
    file = bytearray(data.ljust(commit.size_bytes, b"\0"))
    for offset, content in commit.pages.items():
        file[offset : offset + len(content)] = content
    file[commit.meta_offset : commit.meta_offset + len(commit.meta)] = commit.meta
    return bytes(file)


def volumes(count: int, size: int = 80) -> Bucket:
    rows: dict[bytes, bytes | Bucket] = {f"volume{n:05}".encode(): b"x" * size for n in range(count)}
    return Bucket({b"volumes": Bucket(rows)})


def as_plain(bucket: Bucket) -> dict[bytes, object]:
    return {key: as_plain(value) if isinstance(value, Bucket) else value for key, value in bucket.items.items()}


def test_a_new_file_has_no_key() -> None:
    data, database = new_file()
    assert len(data) == 4 * 4096
    assert decode(data) == database


@pytest.mark.parametrize("count", [0, 1, 5, 12, 40, 41, 500, 20_000])
def test_what_is_committed_is_read_back(count: int) -> None:
    data, database = new_file()
    commit = plan_commit(database, volumes(count))
    found = decode(apply(data, commit))
    assert as_plain(found.root) == as_plain(volumes(count))
    assert found == commit.database
    assert list(found.root.items[b"volumes"].items) == sorted(found.root.items[b"volumes"].items)


@pytest.mark.parametrize("size", [4000, 4096, 5000, 100_000])
def test_a_long_value_gets_overflow_pages(size: int) -> None:
    data, database = new_file()
    root = Bucket({b"volumes": Bucket({b"a": b"1", b"b": b"v" * size, b"c": b"3"})})
    assert as_plain(decode(apply(data, plan_commit(database, root))).root) == as_plain(root)


def test_a_commit_never_touches_a_page_in_use_and_leaves_the_old_state_readable() -> None:
    data, database = new_file()
    for count in (3, 60, 700, 20, 0, 300):
        before = decode(data)
        commit = plan_commit(database, volumes(count))
        touched = {
            page for offset, content in commit.pages.items()
            for page in range(offset // 4096, (offset + len(content)) // 4096)
        }  # fmt: skip
        assert not touched & before.in_use
        half = apply(data, Commit(commit.pages, 0, b"", commit.size_bytes, commit.database))
        assert as_plain(decode(half).root) == as_plain(before.root)
        torn = bytearray(half)
        torn[commit.meta_offset : commit.meta_offset + 40] = commit.meta[:40]
        assert as_plain(decode(bytes(torn)).root) == as_plain(before.root)
        data, database = apply(data, commit), commit.database


def test_the_file_stops_growing_when_the_content_does() -> None:
    data, database = new_file()
    sizes = set()
    for _ in range(50):
        commit = plan_commit(database, volumes(100))
        data, database = apply(data, commit), commit.database
        sizes.add(len(data))
    assert len(data) == max(sizes) <= 4 * 32768
    assert as_plain(decode(data).root) == as_plain(volumes(100))


def test_the_freelist_names_every_page_that_is_not_reachable() -> None:
    data, database = new_file()
    for count in (400, 10, 200):
        commit = plan_commit(database, volumes(count))
        data, database = apply(data, commit), commit.database
    meta = max((struct.unpack_from("<IIIIQQQQQ", data, at + 16) for at in (0, 4096)), key=lambda one: one[8])
    freelist, end = meta[6], meta[7]
    _, kind, listed, _ = struct.unpack_from("<QHHI", data, freelist * 4096)
    assert kind == 0x10
    free = set(struct.unpack_from(f"<{listed}Q", data, freelist * 4096 + 16))
    assert free | database.in_use == set(range(2, end))
    assert not free & database.in_use


nested = st.recursive(
    st.binary(max_size=300),
    lambda inner: st.dictionaries(st.binary(min_size=1, max_size=40), inner, max_size=30),
    max_leaves=60,
)


def as_bucket(tree: dict[bytes, object]) -> Bucket:
    return Bucket({key: as_bucket(value) if isinstance(value, dict) else value for key, value in tree.items()})


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(st.binary(min_size=1, max_size=40), nested, max_size=40), min_size=1, max_size=4))
def test_any_tree_survives_a_run_of_commits(trees: list[dict[bytes, object]]) -> None:
    data, database = new_file()
    for tree in trees:
        commit = plan_commit(database, as_bucket(tree))
        data, database = apply(data, commit), commit.database
        assert as_plain(decode(data).root) == tree


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_file_is_refused_or_read_but_never_loops(data: st.DataObject) -> None:
    file, database = new_file()
    file = apply(file, plan_commit(database, volumes(120)))
    at = data.draw(st.integers(8192, len(file) - 9))
    broken = bytearray(file)
    broken[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    with contextlib.suppress(CorruptRecord):
        decode(bytes(broken))


@pytest.mark.parametrize("data", [b"", b"x" * 100, bytes(65536)])
def test_what_is_no_database_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptRecord, match="no valid meta page"):
        decode(data)


def test_a_tree_that_contains_itself_is_refused() -> None:
    data, database = new_file()
    data = apply(data, plan_commit(database, volumes(500)))
    found = decode(data)
    broken = bytearray(data)
    for page in found.in_use:
        if struct.unpack_from("<H", data, page * 4096 + 8)[0] == 1:
            struct.pack_into("<Q", broken, page * 4096 + 16 + 8, page)
    with pytest.raises(CorruptRecord):
        decode(bytes(broken))


def test_the_checksum_is_fnv1a_of_64_bits() -> None:
    assert fnv1a(b"") == 0xCBF29CE484222325
    assert fnv1a(b"foobar") == 0x85944171F73967E8
    assert isinstance(new_file()[1], Database)
