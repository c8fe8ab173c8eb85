from __future__ import annotations

import pytest

from lamina.errors import InvalidArgument
from lamina.storage.btrfs.options import read_options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10k", 10 << 10),
        ("1.5M", 3 << 19),
        ("1g", 1 << 30),
        ("2GB", 2 << 30),
        ("1 TiB", 1 << 40),
    ],
)
def test_sizes_are_read_as_docker_reads_them(text: str, expected: int) -> None:
    assert read_options({"btrfs.min_space": text}) == expected


def test_without_options_there_is_no_least_size() -> None:
    assert read_options({}) == 0


@pytest.mark.parametrize("text", ["", "much", "-1", "1x", "1e9", "10 M B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"btrfs\.min_space=.*: no size"):
        read_options({"btrfs.min_space": text})


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match=r"unknown option btrfs\.size of storage driver btrfs") as caught:
        read_options({"btrfs.size": "1G"})
    assert "btrfs.min_space" in caught.value.hint
