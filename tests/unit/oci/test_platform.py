"""Platforms: names, and which manifest suits."""

from __future__ import annotations

import pytest

from lamina.errors import InvalidArgument, Unsupported
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import digest_of
from lamina.oci.platform import Platform, choose, host_platform, matches, parse


def described(*platforms: str) -> list[Descriptor]:
    return [Descriptor("m", digest_of(text.encode()), 1, parse(text) if text else None) for text in platforms]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AMD64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux", "linux/amd64"),
        ("s390x", "linux/s390x"),
    ],
)
def test_platforms_have_one_spelling(text: str, shown: str) -> None:
    assert str(parse(text)) == shown


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "linux/am d64", "../x", "linux/amd64\n"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(text)


def test_the_host_names_itself_as_go_does() -> None:
    assert host_platform("x86_64") == Platform("linux", "amd64")
    assert host_platform("armv7l") == Platform("linux", "arm", "v7")


@pytest.mark.parametrize(
    ("there", "wanted", "chosen"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/amd64/v2", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/amd64", "linux/amd64/v2"], "linux/amd64/v3", "linux/amd64/v2"),
        (["linux/386", "windows/amd64"], "linux/amd64", "linux/386"),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", "linux/arm/v6"),
        (["linux/arm/v7"], "linux/arm64", "linux/arm/v7"),
        (["linux/s390x", ""], "linux/s390x", "linux/s390x"),
    ],
)
def test_the_closest_that_runs_is_chosen(there: list[str], wanted: str, chosen: str) -> None:
    assert str(choose(described(*there), parse(wanted)).platform) == chosen


def test_a_lone_manifest_without_platform_suits() -> None:
    descriptors = described("")
    assert choose(descriptors, parse("linux/amd64")) is descriptors[0]


def test_nothing_that_runs_is_an_error_that_lists_what_there_is() -> None:
    with pytest.raises(Unsupported) as caught:
        choose(described("linux/arm64", "linux/s390x"), parse("linux/amd64"))
    assert "linux/amd64" in str(caught.value)
    assert "linux/arm64, linux/s390x" in caught.value.hint


def test_a_weaker_processor_does_not_run_a_stronger_ones_image() -> None:
    assert not matches(parse("linux/amd64"), parse("linux/amd64/v3"))
    assert not matches(parse("linux/arm/v6"), parse("linux/arm/v7"))
    assert matches(parse("linux/arm64"), parse("linux/arm64/v8"))
