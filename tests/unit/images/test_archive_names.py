"""Names inside archives (attack S12)."""

from __future__ import annotations

import tarfile

import pytest

from lamina.errors import UnsafeArchive
from lamina.images.archive_names import clean_name, is_tar_header, link_target


@pytest.mark.parametrize(
    ("name", "clean"), [("a/b", "a/b"), ("./a//b/.", "a/b"), ("", ""), ("./", ""), ("a.b..c", "a.b..c")]
)
def test_names_are_keys_in_one_spelling(name: str, clean: str) -> None:
    assert clean_name(name) == clean


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a/..", "..", "a\0b", "a\nb", "x" * 5000])
def test_names_that_could_lead_out_are_refused(name: str) -> None:
    with pytest.raises(UnsafeArchive):
        clean_name(name)


def test_a_link_counts_from_where_it_is() -> None:
    assert link_target("b/layer.tar", "../a/layer.tar") == "a/layer.tar"
    assert link_target("b/layer.tar", "x") == "b/x"


@pytest.mark.parametrize("target", ["/etc/shadow", "../../x", "../../b/../../x"])
def test_a_link_out_of_the_archive_is_refused(target: str) -> None:
    with pytest.raises(UnsafeArchive):
        link_target("b/layer.tar", target)


def test_a_tar_header_is_known_by_its_checksum() -> None:
    header = tarfile.TarInfo("a").tobuf()
    assert is_tar_header(header)
    assert not is_tar_header(header[:511])
    assert not is_tar_header(b"x" + header[1:])
    assert not is_tar_header(bytes(512))
    assert not is_tar_header(b"{" * 512)
