"""References: grammar, normal form and the way back."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.errors import InvalidReference
from lamina.oci.reference import Reference, parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "name", "tag", "digest", "familiar"),
    [
        ("redis", "docker.io/library/redis", None, None, "redis"),
        ("redis:7", "docker.io/library/redis", "7", None, "redis:7"),
        ("docker.io/library/redis", "docker.io/library/redis", None, None, "redis"),
        ("index.docker.io/redis", "docker.io/library/redis", None, None, "redis"),
        ("me/app:Tag_1.2-x", "docker.io/me/app", "Tag_1.2-x", None, "me/app:Tag_1.2-x"),
        ("localhost/app", "localhost/app", None, None, "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app", None, None, "localhost:5000/app"),
        ("127.0.0.1:5000/a/b__c", "127.0.0.1:5000/a/b__c", None, None, "127.0.0.1:5000/a/b__c"),
        ("[::1]:5000/app", "[::1]:5000/app", None, None, "[::1]:5000/app"),
        ("HOST/app", "HOST/app", None, None, "HOST/app"),
        (f"quay.io/a/b:t@{DIGEST}", "quay.io/a/b", "t", DIGEST, f"quay.io/a/b:t@{DIGEST}"),
        (f"b@{DIGEST}", "docker.io/library/b", None, DIGEST, f"b@{DIGEST}"),
        ("a-b--c/x", "docker.io/a-b--c/x", None, None, "a-b--c/x"),
        ("docker.io/a.b/c", "docker.io/a.b/c", None, None, "docker.io/a.b/c"),
        ("library/a/b", "docker.io/library/a/b", None, None, "library/a/b"),
    ],
)
def test_a_reference_has_one_normal_form(
    text: str, name: str, tag: str | None, digest: str | None, familiar: str
) -> None:
    reference = parse_reference(text)
    assert (reference.name, reference.tag, reference.digest) == (name, tag, digest)
    assert reference.familiar() == familiar


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "redis:",
        "redis:7:8",
        "redis@sha256:12",
        "redis@md5:" + "a" * 32,
        "redis@sha256:" + "AB" * 32,
        f"redis@{DIGEST}@{DIGEST}",
        "redis:ta g",
        "redis:7\n",
        "\nredis",
        "redis:\n",
        ":7",
        "/redis",
        "redis/",
        "a//b",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "../a",
        "http://x/y",
        "redis:.x",
        "redis:" + "x" * 129,
        "a" * 256,
        "é",
        "a\0b",
    ],
)
def test_what_breaks_the_grammar_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_reference(text)


def test_the_texts_that_clients_know() -> None:
    with pytest.raises(InvalidReference, match=r"^invalid reference format$"):
        parse_reference("a b")
    with pytest.raises(InvalidReference, match=r"repository name \(Redis\) must be lowercase"):
        parse_reference("Redis")
    with pytest.raises(InvalidReference, match="cannot specify 64-byte hexadecimal strings"):
        parse_reference("a" * 64)


def test_the_default_tag_comes_only_where_nothing_is_said() -> None:
    assert parse_reference("a").with_default_tag().tag == "latest"
    assert parse_reference("a:1").with_default_tag().tag == "1"
    assert parse_reference(f"a@{DIGEST}").with_default_tag().tag is None


def test_a_tag_is_checked_when_it_is_set() -> None:
    assert str(parse_reference(f"a:1@{DIGEST}").with_tag("2")) == "docker.io/library/a:2"
    with pytest.raises(InvalidReference):
        parse_reference("a").with_tag("../x")


PART = st.from_regex(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", fullmatch=True).filter(lambda text: len(text) < 30)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sampled_from(["docker.io", "localhost", "quay.io", "127.0.0.1:5000", "A"]),
    st.lists(PART, min_size=1, max_size=3),
    st.none() | TAG,
    st.booleans(),
)
def test_what_is_shown_to_people_means_the_same_again(
    domain: str, parts: list[str], tag: str | None, has_digest: bool
) -> None:
    path = "/".join(parts)
    text = f"{domain}/{path}" + (f":{tag}" if tag else "") + (f"@{DIGEST}" if has_digest else "")
    reference = parse_reference(text)
    assert parse_reference(reference.familiar()) == reference
    assert parse_reference(str(reference)) == reference


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return
    assert isinstance(reference, Reference)
    assert ".." not in reference.path.split("/")
    assert parse_reference(reference.familiar()) == reference
