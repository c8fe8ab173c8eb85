"""Archives for tests: made by hand, by tarfile, and at random."""

from __future__ import annotations

import io
import tarfile

from hypothesis import strategies as st

FILE, LINK, SYMLINK, DIRECTORY = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE
Row = tuple[str, bytes, int, bytes | str]


def make(rows: list[Row], format: int = tarfile.USTAR_FORMAT) -> bytes:  # noqa: A002 - tarfile's word
    """Name, type, mode, and content or link target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, kind, mode, data in rows:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = kind, mode, 1_700_000_000
            if kind == FILE:
                assert isinstance(data, bytes)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            else:
                info.linkname = str(data)
                tar.addfile(info)
    return buffer.getvalue()


# Two layers whose digests, sizes and tar-splits were read from a real dockerd 20.10.
LAYER_1 = make(
    [
        ("etc", DIRECTORY, 0o755, ""),
        ("etc/hello", FILE, 0o644, b"hello\n"),
        ("data", DIRECTORY, 0o755, ""),
        ("data/a", FILE, 0o644, b"A" * 600),
        ("data/b", FILE, 0o600, b""),
        ("data/b2", LINK, 0o600, "data/b"),
        ("data/l", SYMLINK, 0o777, "a"),
    ]
)
LAYER_2 = make(
    [
        ("etc", DIRECTORY, 0o755, ""),
        ("etc/.wh.hello", FILE, 0o600, b""),
        ("data", DIRECTORY, 0o700, ""),
        ("data/.wh..wh..opq", FILE, 0o600, b""),
        ("data/c", FILE, 0o644, b"C" * 513),
    ]
)
DIFF_1 = "sha256:066f5148ec7ba523629ed6e0fbb39957bb1ac3a49f1e0729a2966c161679a7ec"
DIFF_2 = "sha256:18bbd4c20dd6e201d90f4387add0cb97162e2fa2892a31f975b00f162f3f8895"
CHAIN_2 = "sha256:7191046ccfe1f111fc8f894184cd0d09f8d2ded69eaf36857bb88ff395251eaa"
SPLIT_1 = "4b8264c193910edabd754172f92b20aab6e2fcda4bcfa2ae96a1d5c496304bd9"
SPLIT_2 = "0a255d01e8596e619bf31e420f270905fd3383ea81e30c5c3ed834cbd2c22f92"

_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1)
COMPONENTS = st.one_of(
    st.sampled_from(["a", "b", "etc", "usr", "x.y", "with space", "ümlaut", "long" * 30]),
    _WORDS.filter(lambda word: word not in {".", ".."} and len(word.encode()) < 200 and not word.startswith(".wh.")),
)


@st.composite
def trees(draw: st.DrawFn) -> list[Row]:
    """Rows of a tree that every unpacker takes: parents are directories, names come once, links go back."""
    rows: list[Row] = []
    directories = [""]
    files: list[str] = []
    names: set[str] = set()
    for _ in range(draw(st.integers(0, 12))):
        parent = draw(st.sampled_from(directories))
        name = (parent + "/" if parent else "") + draw(COMPONENTS)
        if name in names or len(name.encode()) > 1000:
            continue
        names.add(name)
        kind = draw(st.sampled_from([FILE, FILE, DIRECTORY, SYMLINK, LINK]))
        mode = draw(st.sampled_from([0o644, 0o755, 0o600, 0o4755, 0o1777, 0]))
        if kind == LINK and not files:
            kind = FILE
        if kind == FILE:
            size = draw(st.sampled_from([0, 1, 5, 511, 512, 513, 3000]))
            rows.append((name, FILE, mode, draw(st.binary(min_size=1, max_size=4)) * size))
            files.append(name)
        elif kind == DIRECTORY:
            rows.append((name, DIRECTORY, mode, ""))
            directories.append(name)
        elif kind == SYMLINK:
            rows.append((name, SYMLINK, 0o777, draw(st.sampled_from(["a", "../x", "/abs", "t" * 150, "ü"]))))
        else:
            rows.append((name, LINK, mode, draw(st.sampled_from(files))))
    return rows
