import pytest

from lamina.changeset.names import clean_name, shown
from lamina.errors import UnsafeArchive


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        (b"etc/hosts", b"etc/hosts"),
        (b"./etc/", b"etc"),
        (b"/etc/passwd", b"etc/passwd"),
        (b"a/../b", b"b"),
        (b".//a//./b", b"a/b"),
        (b"./", b""),
        (b"", b""),
        (b"a/..", b""),
        (b"caf\xe9", b"caf\xe9"),
        (b"...", b"..."),
    ],
)
def test_a_name_has_one_clean_spelling(name: bytes, clean: bytes) -> None:
    assert clean_name(name) == clean


@pytest.mark.parametrize("name", [b"../x", b"a/../../x", b"/..", b".//..", b"a/b/../../../c", b"a\0b"])
def test_a_name_that_leaves_the_root_or_holds_a_nul_is_refused(name: bytes) -> None:
    with pytest.raises(UnsafeArchive):
        clean_name(name)


def test_names_that_no_kernel_opens_are_refused() -> None:
    with pytest.raises(UnsafeArchive, match="longer than 4095"):
        clean_name(b"d/" * 3000)
    with pytest.raises(UnsafeArchive, match="longer than 255"):
        clean_name(b"d/" + b"x" * 256)
    assert clean_name(b"d/" + b"x" * 255) == b"d/" + b"x" * 255


def test_a_shown_name_fits_a_line_and_has_no_control_characters() -> None:
    assert shown(b"a\x1b[31mb") == repr("a\x1b[31mb")
    assert "\x1b" not in shown(b"a\x1b[31mb")
    assert len(shown(b"x" * 5000)) < 130
    assert shown(b"caf\xe9") == r"'caf\\xe9'"
