"""Digests and chains, against what a real dockerd wrote."""

from __future__ import annotations

import pytest

from lamina.errors import InvalidDigest
from lamina.oci.digest import DiffId, algorithm_of, chain_of, digest_of, hex_of, parse_digest

DIFFS = [
    "c0fc8f0f8e3a4f875a308ee6aaa8ed47e72a606415a310ff9fc7ba5e0464489f",
    "52206879d54da0a3085e2ccc5143fce2fb3567b4a1cd6480e07cc2b7dc3a7ba5",
    "3741ad60c5bbf5346b1b4f6bf3b2b930da5ccb2f4006cf6fe8de89a7252e9b63",
]
CHAINS = [
    "c0fc8f0f8e3a4f875a308ee6aaa8ed47e72a606415a310ff9fc7ba5e0464489f",
    "c9aeaa440504eca9f6eac29bea822ac2f9a49db9458236dcce5f41807a814c4b",
    "a9fd584412dcbf5ef358d283463f76bcb3a6da7e551af38328aec959eaadd0a6",
]


def test_chain_ids_are_dockers() -> None:
    diffs = [DiffId(parse_digest(f"sha256:{text}")) for text in DIFFS]
    assert [hex_of(found) for found in chain_of(diffs)] == CHAINS
    assert chain_of([]) == ()


def test_a_digest_says_its_algorithm() -> None:
    assert algorithm_of(digest_of(b"")) == "sha256"
    assert algorithm_of(parse_digest("sha512:" + "0" * 128)) == "sha512"


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "g" * 64, "SHA256:" + "0" * 64, "sha256:" + "0" * 64 + "\n"]
)
def test_everything_else_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidDigest):
        parse_digest(text)
