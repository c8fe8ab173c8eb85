"""Descriptors from untrusted JSON (attack S8: digests that are none, sizes that are none)."""

from __future__ import annotations

import pytest

from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject, JsonValue
from lamina.oci.descriptor import decode_descriptor

GOOD = "sha256:" + "0" * 64


def test_a_descriptor_comes_back_as_it_went_in() -> None:
    row: JsonObject = {
        "mediaType": "a/b",
        "digest": GOOD,
        "size": 7,
        "urls": ["http://x"],
        "annotations": {"a": "b"},
        "platform": {"architecture": "arm", "os": "linux", "variant": "v7"},
    }
    assert decode_descriptor(row).as_json() == row


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:../../x",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "md5:" + "0" * 32,
        "sha384:" + "0" * 96,
        GOOD + "\n",
        "/" + GOOD,
        None,
        5,
    ],
)
def test_no_path_or_other_thing_passes_for_a_digest(digest: JsonValue) -> None:
    with pytest.raises(InvalidArgument):
        decode_descriptor({"mediaType": "a", "digest": digest, "size": 1})


@pytest.mark.parametrize("size", [-1, 1 << 63, 1.5, "1", True, None])
def test_a_size_is_a_whole_number_that_a_file_can_have(size: JsonValue) -> None:
    with pytest.raises(InvalidArgument):
        decode_descriptor({"mediaType": "a", "digest": GOOD, "size": size})
