import pytest

from lamina.changeset import whiteout
from lamina.errors import UnsafeArchive


def test_a_whiteout_names_its_victim() -> None:
    assert whiteout.victim(b".wh.hosts") == b"hosts"
    assert whiteout.victim(b".wh..bashrc") == b".bashrc"
    assert whiteout.victim(b".wh..wh.plnk") == b".wh.plnk"


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh..."])
def test_a_whiteout_of_the_directory_or_its_parent_is_refused(name: bytes) -> None:
    with pytest.raises(UnsafeArchive):
        whiteout.victim(name)


@pytest.mark.parametrize(
    ("xattr", "forgeable"),
    [
        (b"trusted.overlay.opaque", True),
        (b"trusted.overlay.redirect", True),
        (b"user.overlay.metacopy", True),
        (b"user.fuseoverlayfs.opaque", True),
        (b"user.mine", False),
        (b"security.capability", False),
    ],
)
def test_marks_of_union_file_systems_are_known(xattr: bytes, forgeable: bool) -> None:
    assert whiteout.is_forgeable(xattr) is forgeable
