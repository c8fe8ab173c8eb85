"""What may stand after `-o`."""

from __future__ import annotations

import pytest

from lamina.errors import InvalidArgument
from lamina.kernel import libc
from lamina.unionfs.options import BranchOption, parse


def test_branches_are_given_from_the_top() -> None:
    found = parse("br:/rw=rw:/a=ro+wh:/b=ro,dirperm1,xino=/dev/shm/aufs.xino,append:/c=ro+wh")
    assert found.branches == (
        BranchOption("/rw", writable=True, whiteouts=True),
        BranchOption("/a", writable=False, whiteouts=True),
        BranchOption("/b", writable=False, whiteouts=False),
        BranchOption("/c", writable=False, whiteouts=True),
    )


def test_only_the_first_branch_is_writable_unless_told() -> None:
    assert [branch.writable for branch in parse("br:/a:/b").branches] == [True, False]


def test_mount_flags_and_switches() -> None:
    found = parse("br:/a=rw,ro,nodev,fsname=x,nopassthrough,threads=2")
    assert found.flags == libc.MS_RDONLY | libc.MS_NODEV
    assert (found.source, found.passthrough, found.threads) == ("x", False, 2)


@pytest.mark.parametrize(
    "text", ["", "rw", "br:/a=rw:/b=rw", "br:/a=rw:/a=ro", "br:/a=xx", "br:/a=rw,colour=red", "br:/a,threads=0"]
)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(InvalidArgument, match="colour"):
        parse("br:/a=rw,colour=red")
