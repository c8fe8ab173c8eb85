import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lamina.changeset.entry import Entry, EntryKind
from lamina.changeset.whiteout import WhiteoutDialect
from lamina.errors import UnsafeArchive
from lamina.rootfs.apply import TreeWriter
from lamina.rootfs.remove import remove_tree
from tests.unit.changeset.tars import DIRECTORY, FILE, LINK, SYMLINK, Row, trees

OPAQUE = "trusted.overlay.opaque"
OVERLAY, AUFS, NONE = WhiteoutDialect.OVERLAY, WhiteoutDialect.AUFS, WhiteoutDialect.NONE
FIFO = tarfile.FIFOTYPE


class Bytes:
    """A body at hand."""

    def __init__(self, data: bytes, piece: int | None = None) -> None:
        self._data = data
        self._piece = piece

    def whole_body(self) -> memoryview | None:
        return memoryview(self._data) if self._piece is None else None

    def pieces(self) -> Iterator[memoryview]:
        size = self._piece or 1 << 20
        return (memoryview(self._data)[at : at + size] for at in range(0, len(self._data), size))


KINDS = {
    FILE: EntryKind.FILE,
    LINK: EntryKind.HARD_LINK,
    SYMLINK: EntryKind.SYMLINK,
    DIRECTORY: EntryKind.DIRECTORY,
    FIFO: EntryKind.FIFO,
}


def apply(root: Path, rows: list[Row], dialect: WhiteoutDialect = NONE, piece: int | None = None) -> TreeWriter:
    """Rows become entries that belong to whoever runs the test."""
    with TreeWriter(root, dialect) as tree:
        for name, kind, mode, data in rows:
            entry = Entry(
                KINDS[kind],
                os.fsencode(name),
                mode=mode,
                uid=os.geteuid(),
                gid=os.getegid(),
                mtime_ns=1_700_000_000_000_000_000,
            )
            if kind == FILE:
                assert isinstance(data, bytes)
                entry.size_bytes = entry.stored_bytes = len(data)
                body = Bytes(data, piece)
                if tree.is_plain_file(entry):
                    tree.write_file(entry, body)
                else:
                    tree.write(entry, body.pieces())
                continue
            entry.link = os.fsencode(data)
            tree.write(entry, iter(()))
        tree.finish()
        return tree


def shown(root: Path) -> dict[str, object]:
    """Every name below `root`: directories None, symlinks their target, files their content."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = None
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = stat.filemode(path.lstat().st_mode)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "outer" / "root"
    made.mkdir(parents=True)
    (tmp_path / "outer" / "secret").write_text("untouched")
    return made


@pytest.fixture(autouse=True)
def outside_is_untouched(root: Path) -> Iterator[None]:
    yield
    outer = root.parent
    assert sorted(os.listdir(outer)) == ["root", "secret"]
    assert (outer / "secret").read_text() == "untouched"
    assert (outer / "secret").stat().st_nlink == 1


def test_files_directories_and_links_are_made_as_told(root: Path) -> None:
    tree = apply(
        root,
        [
            ("d", DIRECTORY, 0o750, ""),
            ("d/f", FILE, 0o4711, b"content"),
            ("d/g", LINK, 0o4711, "d/f"),
            ("d/s", SYMLINK, 0o777, "/etc/passwd"),
            ("d/p", FIFO, 0o600, ""),
        ],
    )
    assert shown(root) == {"d": None, "d/f": b"content", "d/g": b"content", "d/s": "/etc/passwd", "d/p": "prw-------"}
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o750
    assert stat.S_IMODE((root / "d/f").stat().st_mode) == 0o4711
    assert (root / "d/f").stat().st_ino == (root / "d/g").stat().st_ino
    for name in ("d", "d/f", "d/s", "d/p"):
        assert (root / name).lstat().st_mtime_ns == 1_700_000_000_000_000_000, name
    assert (tree.file_bytes, tree.header_bytes) == (len("content") + len("/etc/passwd"), len("content"))


def test_modes_are_exact_whatever_the_umask(root: Path) -> None:
    before = os.umask(0o077)
    try:
        apply(root, [("f", FILE, 0o666, b""), ("d", DIRECTORY, 0o777, ""), ("a/b/c", FILE, 0o644, b"")])
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "f").stat().st_mode) == 0o666
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o777
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o755


def test_the_group_bit_of_a_directory_does_not_reach_what_is_made_inside(root: Path) -> None:
    apply(root, [("d", DIRECTORY, 0o2775, ""), ("d/f", FILE, 0o644, b""), ("d/e", DIRECTORY, 0o755, "")])
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o2775
    assert stat.S_IMODE((root / "d/e").stat().st_mode) == 0o755


def test_large_bodies_come_in_pieces(root: Path) -> None:
    apply(root, [("f", FILE, 0o644, b"0123456789" * 100)], piece=7)
    assert (root / "f").read_bytes() == b"0123456789" * 100


def test_later_entries_replace_earlier_ones_but_directories_merge(root: Path) -> None:
    (root / "old").mkdir()
    (root / "old/kept").write_text("kept")
    (root / "file").write_text("old")
    (root / "tree/deep").mkdir(parents=True)
    tree = apply(
        root,
        [
            ("old", DIRECTORY, 0o700, ""),
            ("old/new", FILE, 0o644, b"new"),
            ("file", DIRECTORY, 0o755, ""),
            ("file/inside", FILE, 0o644, b"1"),
            ("tree", FILE, 0o644, b"file now"),
        ],
    )
    assert shown(root) == {
        "old": None, "old/kept": b"kept", "old/new": b"new", "file": None, "file/inside": b"1", "tree": b"file now",
    }  # fmt: skip
    assert tree.replaced


@pytest.mark.parametrize("name", ["../x", "a/../../x", ".//..", "/../secret", "d/../../secret"])
@pytest.mark.parametrize("kind", [FILE, DIRECTORY, SYMLINK, LINK])
def test_a_name_that_leaves_the_root_is_refused(root: Path, name: str, kind: bytes) -> None:
    with pytest.raises(UnsafeArchive):
        apply(root, [("f", FILE, 0o644, b""), (name, kind, 0o644, b"x" if kind == FILE else "f")])


def test_absolute_names_are_taken_inside_the_root(root: Path) -> None:
    apply(root, [("/etc/passwd", FILE, 0o644, b"inside"), ("/d/", DIRECTORY, 0o755, "")])
    assert shown(root) == {"d": None, "etc": None, "etc/passwd": b"inside"}


@pytest.mark.parametrize("target", ["../../secret", "../secret", "d/../../secret"])
def test_a_hard_link_out_of_the_root_is_refused(root: Path, target: str) -> None:
    with pytest.raises(UnsafeArchive):
        apply(root, [("l", LINK, 0o644, target)])


def test_an_absolute_hard_link_is_taken_inside_the_root(root: Path) -> None:
    apply(root, [("etc/passwd", FILE, 0o644, b"inside"), ("l", LINK, 0o644, "/etc/passwd")])
    assert (root / "l").read_bytes() == b"inside"


def test_a_hard_link_through_a_symlink_stays_inside(root: Path) -> None:
    with pytest.raises(UnsafeArchive, match=r"'l'|'up'"):
        apply(root, [("up", SYMLINK, 0o777, ".."), ("l", LINK, 0o644, "up/secret")])
    assert not (root / "l").exists()


def test_a_hard_link_to_nothing_is_refused_by_name(root: Path) -> None:
    with pytest.raises(UnsafeArchive, match="'l' points to 'gone'"):
        apply(root, [("l", LINK, 0o644, "gone")])


@pytest.mark.parametrize("target", ["..", "../..", "/..", "../../../../../../"])
def test_writing_through_a_symlink_stays_inside(root: Path, target: str) -> None:
    apply(root, [("d", SYMLINK, 0o777, target), ("d/secret", FILE, 0o644, b"inside")])
    assert (root / "secret").read_bytes() == b"inside"


def test_an_absolute_symlink_means_the_root_of_the_layer(root: Path) -> None:
    apply(
        root,
        [("var/run", SYMLINK, 0o777, "/run"), ("run", DIRECTORY, 0o755, ""), ("var/run/pid", FILE, 0o644, b"1")],
    )
    assert (root / "run/pid").read_bytes() == b"1"
    assert os.readlink(root / "var/run") == "/run"


def test_a_symlink_from_a_lower_layer_is_not_followed_out(root: Path) -> None:
    (root / "d").symlink_to(root.parent)
    with pytest.raises(UnsafeArchive):
        apply(root, [("d/cron", FILE, 0o644, b"x")])
    (root / "e").symlink_to("../..")
    apply(root, [("e/secret", FILE, 0o644, b"inside")])
    assert (root / "secret").read_bytes() == b"inside"


def test_metadata_of_a_directory_entry_does_not_follow_a_symlink(root: Path) -> None:
    before = root.parent.stat().st_mode
    (root / "d").symlink_to("..")
    apply(root, [("d", DIRECTORY, 0o700, ""), ("d/", FILE, 0o600, b"")][:1])
    assert (root / "d").is_dir()
    assert not (root / "d").is_symlink()
    assert root.parent.stat().st_mode == before


@pytest.mark.parametrize("name", ["link/", "link/.", "link//"])
def test_a_trailing_slash_does_not_follow_a_symlink(root: Path, name: str) -> None:
    apply(root, [("link", SYMLINK, 0o777, "../secret"), (name, FILE, 0o644, b"mine")])
    assert not (root / "link").is_symlink()
    assert (root / "link").read_bytes() == b"mine"


def test_a_symlink_loop_is_refused(root: Path) -> None:
    with pytest.raises(UnsafeArchive):
        apply(root, [("a", SYMLINK, 0o777, "b"), ("b", SYMLINK, 0o777, "a"), ("a/x", FILE, 0o644, b"")])


def test_entries_below_a_file_are_refused(root: Path) -> None:
    with pytest.raises(UnsafeArchive, match="not a directory"):
        apply(root, [("f", FILE, 0o644, b""), ("f/x", FILE, 0o644, b"")])


def test_the_root_cannot_be_replaced(root: Path) -> None:
    for kind, data in ((FILE, b"x"), (SYMLINK, "x"), (LINK, "x")):
        with pytest.raises(UnsafeArchive):
            apply(root, [("./", kind, 0o644, data)])


def test_deep_directories_need_few_descriptors(root: Path) -> None:
    soft = len(os.listdir("/proc/self/fd"))
    name = "d/" * 1500
    with TreeWriter(root, OVERLAY) as tree:
        for depth in (10, 500, 1500):
            entry = Entry(EntryKind.FILE, name[: 2 * depth].encode() + b"f", uid=os.geteuid(), gid=os.getegid())
            tree.write_file(entry, Bytes(b""))
        assert len(os.listdir("/proc/self/fd")) - soft < 500
        tree.finish()
    assert len(os.listdir("/proc/self/fd")) == soft
    remove_tree(root / "d")  # pytest's own clean-up is recursive
    with pytest.raises(UnsafeArchive):
        apply(root, [("d/" * 100_000 + "f", FILE, 0o644, b"")])


def test_names_that_are_not_utf8_are_made_as_they_are(root: Path) -> None:
    with TreeWriter(root, NONE) as tree:
        entry = Entry(EntryKind.FILE, b"caf\xe9", uid=os.geteuid(), gid=os.getegid())
        tree.write_file(entry, Bytes(b""))
        tree.finish()
    assert os.listdir(os.fsencode(root)) == [b"caf\xe9"]


def test_sparse_files_get_their_holes(root: Path) -> None:
    entry = Entry(
        EntryKind.FILE,
        b"s",
        uid=os.geteuid(),
        gid=os.getegid(),
        size_bytes=10 << 20,
        stored_bytes=6,
        segments=((4096, 3), (1 << 20, 3)),
        is_sparse=True,
    )
    with TreeWriter(root, NONE) as tree:
        assert not tree.is_plain_file(entry)
        tree.write(entry, Bytes(b"onetwo", 4).pieces())
    found = (root / "s").read_bytes()
    assert len(found) == 10 << 20
    assert (found[4096:4099], found[1 << 20 : (1 << 20) + 3]) == (b"one", b"two")
    assert (root / "s").stat().st_blocks < 100


def test_marks_of_union_file_systems_are_stripped(root: Path) -> None:
    entry = Entry(
        EntryKind.FILE,
        b"f",
        uid=os.geteuid(),
        gid=os.getegid(),
        xattrs=((b"user.overlay.redirect", b"/etc"), (b"user.mine", b"1"), (b"trusted.overlay.opaque", b"y")),
    )
    with TreeWriter(root, NONE) as tree:
        tree.write_file(entry, Bytes(b""))
    assert not [name for name in os.listxattr(root / "f") if "overlay" in name]


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.."])
def test_a_whiteout_of_the_directory_itself_is_refused(root: Path, name: str) -> None:
    (root / "kept").write_text("x")
    with pytest.raises(UnsafeArchive):
        apply(root, [(name, FILE, 0o644, b"")])
    assert (root / "kept").exists()


# --- into a merged tree ------------------------------------------------------------------------------------------------


def lower(root: Path) -> None:
    (root / "d/sub").mkdir(parents=True)
    for name in ("a", "b", "d/x", "d/sub/y"):
        (root / name).write_text("lower")


def test_whiteouts_remove_from_a_merged_tree_only_what_they_name(root: Path) -> None:
    lower(root)
    apply(root, [(".wh.a", FILE, 0, b""), (".wh.gone", FILE, 0, b""), ("d/.wh.sub", FILE, 0, b"")])
    assert shown(root) == {"b": b"lower", "d": None, "d/x": b"lower"}


def test_an_opaque_mark_empties_a_merged_directory_of_what_was_below(root: Path) -> None:
    lower(root)
    apply(root, [("d/new", FILE, 0o644, b"1"), ("d/.wh..wh..opq", FILE, 0, b""), ("d/later", FILE, 0o644, b"2")])
    assert shown(root) == {"a": b"lower", "b": b"lower", "d": None, "d/new": b"1", "d/later": b"2"}


def test_an_opaque_root_empties_the_merged_tree(root: Path) -> None:
    lower(root)
    apply(root, [("d/sub/new", FILE, 0o644, b"1"), (".wh..wh..opq", FILE, 0, b"")])
    assert shown(root) == {"d": None, "d/sub": None, "d/sub/new": b"1"}


def test_a_whiteout_does_not_hide_what_its_own_layer_makes(root: Path) -> None:
    lower(root)
    apply(
        root, [("a", FILE, 0o644, b"new"), (".wh.a", FILE, 0, b""), ("d/n", FILE, 0o644, b""), (".wh.d", FILE, 0, b"")]
    )
    assert shown(root) == {"a": b"new", "b": b"lower", "d": None, "d/n": b""}


def test_bookkeeping_of_aufs_is_left_out(root: Path) -> None:
    apply(
        root,
        [
            (".wh..wh.aufs", FILE, 0o444, b""),
            (".wh..wh.plnk", DIRECTORY, 0o700, ""),
            (".wh..wh.plnk/12.34", FILE, 0o644, b"link"),
            ("f", FILE, 0o644, b""),
        ],
    )
    assert shown(root) == {"f": b""}


def test_the_root_entry_speaks_for_the_root_of_a_merged_tree(root: Path) -> None:
    apply(root, [("./", DIRECTORY, 0o700, "")])
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(trees())
def test_a_random_tree_is_what_tarfile_would_show(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    root = tmp_path_factory.mktemp("tree")
    apply(root, rows, piece=300)
    wanted: dict[str, object] = {}
    for name, kind, _, data in rows:
        wanted[name] = None if kind == DIRECTORY else wanted[str(data)] if kind == LINK else data
    assert shown(root) == wanted


def test_an_error_that_is_not_the_archives_fault_goes_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        apply(tmp_path / "absent", [])


# --- in overlay's dialect ----------------------------------------------------------------------------------------------


@pytest.mark.root
def test_whiteouts_become_devices_and_opaque_directories_get_their_mark(root: Path) -> None:
    apply(
        root,
        [
            ("etc", DIRECTORY, 0o755, ""),
            ("etc/.wh.hello", FILE, 0, b""),
            ("data", DIRECTORY, 0o700, ""),
            ("data/.wh..wh..opq", FILE, 0, b""),
        ],
        OVERLAY,
    )
    gone = (root / "etc/hello").lstat()
    assert (stat.S_ISCHR(gone.st_mode), gone.st_rdev, stat.S_IMODE(gone.st_mode)) == (True, 0, 0)
    assert os.getxattr(root / "data", OPAQUE) == b"y"
    assert sorted(os.listdir(root)) == ["data", "etc"]


@pytest.mark.root
@pytest.mark.parametrize("order", [1, -1])
def test_a_name_hidden_and_made_again_hides_all_of_the_old_one(root: Path, order: int) -> None:
    rows: list[Row] = [("d", DIRECTORY, 0o755, ""), (".wh.d", FILE, 0, b"")]
    apply(root, rows[::order], OVERLAY)
    assert (root / "d").is_dir()
    assert os.getxattr(root / "d", OPAQUE) == b"y"
    files: list[Row] = [("f", FILE, 0o644, b"1"), (".wh.f", FILE, 0, b"")]
    apply(root, files[::order], OVERLAY)
    assert (root / "f").read_bytes() == b"1"


@pytest.mark.root
def test_entries_below_a_whiteout_make_an_opaque_directory(root: Path) -> None:
    apply(root, [(".wh.d", FILE, 0, b""), ("d/f", FILE, 0o644, b"1")], OVERLAY)
    assert (root / "d/f").read_bytes() == b"1"
    assert os.getxattr(root / "d", OPAQUE) == b"y"


@pytest.mark.root
def test_the_root_entry_does_not_speak_for_the_root_of_a_layer(root: Path) -> None:
    before = root.stat().st_mode
    apply(root, [("./", DIRECTORY, 0o700, "")], OVERLAY)
    assert root.stat().st_mode == before


@pytest.mark.root
def test_owners_capabilities_and_devices_are_made(root: Path) -> None:
    capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    with TreeWriter(root, OVERLAY) as tree:
        ping = Entry(EntryKind.FILE, b"ping", mode=0o4755, uid=7, gid=8, xattrs=((b"security.capability", capability),))
        tree.write_file(ping, Bytes(b"elf"))
        tree.write(Entry(EntryKind.CHARACTER_DEVICE, b"null", mode=0o666, gid=5, major=1, minor=3), iter(()))
        tree.write(Entry(EntryKind.DIRECTORY, b"home", mode=0o2750, uid=1000, gid=1000), iter(()))
        tree.write(Entry(EntryKind.SYMLINK, b"home/s", link=b"x", uid=1000, gid=1000), iter(()))
        tree.finish()
    ping_found = (root / "ping").stat()
    assert (ping_found.st_uid, ping_found.st_gid, stat.S_IMODE(ping_found.st_mode)) == (7, 8, 0o4755)
    assert os.getxattr(root / "ping", "security.capability") == capability
    null = (root / "null").stat()
    assert (null.st_rdev, null.st_gid, stat.S_IMODE(null.st_mode)) == (os.makedev(1, 3), 5, 0o666)
    assert ((root / "home").stat().st_gid, stat.S_IMODE((root / "home").stat().st_mode)) == (1000, 0o2750)
    assert (root / "home/s").lstat().st_uid == 1000


@pytest.mark.root
def test_an_impossible_device_number_is_refused(root: Path) -> None:
    with TreeWriter(root, OVERLAY) as tree, pytest.raises(UnsafeArchive):
        tree.write(Entry(EntryKind.BLOCK_DEVICE, b"odd", major=1 << 40, minor=1), iter(()))


def test_a_body_that_is_not_wanted_is_read_to_its_end(root: Path) -> None:
    pieces = iter([memoryview(b"left"), memoryview(b"over")])
    (root / "f").write_text("x")
    with TreeWriter(root, NONE) as tree:
        tree.write(Entry(EntryKind.FILE, b".wh.f", size_bytes=8, stored_bytes=8), pieces)
    assert list(pieces) == []


class TestAufsNames:
    """Layers of the aufs driver: whiteouts stay the files that they are in the tar."""

    def test_whiteouts_and_opaque_marks_stay_empty_files(self, root: Path) -> None:
        rows: list[Row] = [
            ("data", DIRECTORY, 0o755, ""),
            ("data/.wh..wh..opq", FILE, 0o644, b""),
            ("data/new", FILE, 0o644, b"n"),
            ("data/.wh.old", FILE, 0o600, b"not read"),
        ]
        apply(root, rows, AUFS)
        assert sorted(os.listdir(root / "data")) == [".wh..wh..opq", ".wh.old", "new"]
        hidden = (root / "data/.wh.old").stat()
        assert (hidden.st_size, hidden.st_mode & 0o777) == (0, 0o600)

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_whiteout_speaks_of_the_layers_below_only(self, root: Path, order: int) -> None:
        apply(root, [(".wh.f", FILE, 0, b""), ("f", FILE, 0o644, b"new")][::order], AUFS)
        apply(root, [(".wh.l", FILE, 0, b""), ("l", SYMLINK, 0o777, "f")][::order], AUFS)
        assert sorted(os.listdir(root)) == ["f", "l"]

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_directory_in_the_place_of_a_whiteout_is_opaque(self, root: Path, order: int) -> None:
        apply(root, [(".wh.d", FILE, 0, b""), ("d", DIRECTORY, 0o755, "")][::order], AUFS)
        assert os.listdir(root) == ["d"]
        assert os.listdir(root / "d") == [".wh..wh..opq"]

    def test_a_directory_that_an_entry_needs_is_opaque_too(self, root: Path) -> None:
        apply(root, [(".wh.d", FILE, 0, b""), ("d/e/f", FILE, 0o644, b"1")], AUFS)
        assert os.listdir(root) == ["d"]
        assert sorted(os.listdir(root / "d")) == [".wh..wh..opq", "e"]
        assert os.listdir(root / "d/e") == ["f"]

    def test_a_whiteout_that_went_with_its_directory_is_no_matter(self, root: Path) -> None:
        rows: list[Row] = [
            ("d/.wh.x", FILE, 0, b""),
            ("d", FILE, 0o644, b"a file now"),
            ("d", DIRECTORY, 0o755, ""),
            ("d/x", FILE, 0o644, b"1"),
        ]
        apply(root, rows, AUFS)
        assert os.listdir(root / "d") == ["x"]

    @pytest.mark.parametrize("first", [(".wh.d", DIRECTORY, 0o755, ""), ("e", DIRECTORY, 0o755, "")])
    def test_nothing_lies_below_a_whiteout(self, root: Path, first: Row) -> None:
        with pytest.raises(UnsafeArchive):
            apply(root, [first, (".wh.d/f", FILE, 0o644, b"1")], AUFS)

    def test_what_aufs_keeps_for_itself_is_left_out(self, root: Path) -> None:
        apply(root, [(".wh..wh.plnk/1.2", FILE, 0o644, b"x"), (".wh..wh.aufs", FILE, 0o644, b"")], AUFS)
        assert os.listdir(root) == []

    def test_the_root_can_be_opaque(self, root: Path) -> None:
        apply(root, [("d", DIRECTORY, 0o755, ""), ("d/f", FILE, 0o644, b"1"), (".wh..wh..opq", FILE, 0, b"")], AUFS)
        assert sorted(os.listdir(root)) == [".wh..wh..opq", "d"]
