"""Image configs: identity, layers, history, and what is refused."""

from __future__ import annotations

import json

import pytest

from lamina.errors import InvalidManifest
from lamina.jsonvalue import JsonObject
from lamina.oci.config import HistoryEntry, decode_config, encode_config, image_id, zero_run_config

DIFF_1 = "sha256:066f5148ec7ba523629ed6e0fbb39957bb1ac3a49f1e0729a2966c161679a7ec"
DIFF_2 = "sha256:18bbd4c20dd6e201d90f4387add0cb97162e2fa2892a31f975b00f162f3f8895"
CHAIN_2 = "sha256:7191046ccfe1f111fc8f894184cd0d09f8d2ded69eaf36857bb88ff395251eaa"
IMAGE = "sha256:572d3b79e9151fd6048994a9000604b1199390ae6b4a976cc2716c8ee8583316"
CONFIG: JsonObject = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2023-11-14T22:13:20Z",
    "config": {"Cmd": ["/x"]},
    "rootfs": {"type": "layers", "diff_ids": [DIFF_1, DIFF_2]},
    "history": [
        {"created": "2023-11-14T22:13:20Z", "created_by": "one"},
        {"created": "2023-11-14T22:13:20Z", "created_by": "two"},
    ],
}


def raw(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def test_the_ids_are_the_ones_a_real_dockerd_computed() -> None:
    found = decode_config(raw(CONFIG))
    assert len(found.raw) == 402
    assert found.image_id == image_id(found.raw) == IMAGE
    assert found.chain_ids == (DIFF_1, CHAIN_2)
    assert found.top == CHAIN_2


def test_what_it_says_is_read() -> None:
    found = decode_config(raw({**CONFIG, "variant": "v8", "author": "me", "os.features": ["a"], "unknown": {"x": 1}}))
    assert (str(found.platform), found.author, found.os_features) == ("linux/amd64/v8", "me", ("a",))
    assert found.run == {"Cmd": ["/x"]}
    assert found.history[0] == HistoryEntry(created="2023-11-14T22:13:20Z", created_by="one")


def test_an_image_may_have_no_layers_and_no_time() -> None:
    found = decode_config(raw({"rootfs": {"type": "layers", "diff_ids": None}, "created": None}))
    assert (found.diff_ids, found.top, found.created) == ((), None, "")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {**CONFIG, "rootfs": None},
        {**CONFIG, "rootfs": {"type": "base", "diff_ids": []}},
        {**CONFIG, "rootfs": {"type": "layers", "diff_ids": ["../../x"]}},
        {**CONFIG, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "A" * 64]}},
        {**CONFIG, "rootfs": {"type": "layers", "diff_ids": [DIFF_1]}},
        {**CONFIG, "rootfs": {"type": "layers", "diff_ids": [DIFF_1] * 1001}},
        {**CONFIG, "history": [None]},
        {**CONFIG, "history": "x"},
        {**CONFIG, "config": []},
        {**CONFIG, "architecture": 5},
    ],
)
def test_a_config_that_breaks_a_rule_is_refused(document: object) -> None:
    with pytest.raises(InvalidManifest):
        decode_config(raw(document))


@pytest.mark.parametrize(
    "data", [b"", b"no json", b"[]", b'{"rootfs":{},"rootfs":{}}', b"[" * 10_000, b" " * (9 << 20)]
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidManifest):
        decode_config(data)


def test_steps_without_a_layer_do_not_count_against_the_layers() -> None:
    history = [{"created_by": "x", "empty_layer": True}] * 5
    assert len(decode_config(raw({**CONFIG, "history": history})).history) == 5


def test_a_config_we_make_has_its_keys_in_order_and_go_escapes() -> None:
    assert encode_config({"os": "linux", "config": {"b": 1, "a": 2}, "author": "a&b"}) == (
        b'{"author":"a\\u0026b","config":{"b":1,"a":2},"os":"linux"}'
    )
    assert "Cmd" in zero_run_config()
