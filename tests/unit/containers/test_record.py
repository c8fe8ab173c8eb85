import json
from pathlib import Path

import pytest

from lamina.clock import ZERO_TIME
from lamina.containers.record import decode_container, encode_config_v2, encode_host_config
from lamina.containers.state import Status
from lamina.errors import CorruptRecord

GOLDEN = Path(__file__).parents[2] / "golden" / "dockerd-20.10"
"""Records that a dockerd 20.10.24 wrote."""


def golden(name: str) -> tuple[bytes, bytes]:
    return (GOLDEN / f"{name}.config.v2.json").read_bytes(), (GOLDEN / f"{name}.hostconfig.json").read_bytes()


@pytest.mark.parametrize("name", ["c1", "c2", "c3"])
def test_what_dockerd_wrote_comes_out_to_the_byte(name):
    config, host_config = golden(name)
    container = decode_container(config, host_config)
    assert encode_config_v2(container) == config
    assert encode_host_config(container) == host_config


def test_the_fields_are_read():
    container = decode_container(*golden("c2"))
    assert container.name == "c2"
    assert container.path == "sh"
    assert container.state.status is Status.CREATED
    assert container.state.started_at == ZERO_TIME
    assert container.mounts["/v1"].name == "vol1"
    assert container.mounts["/v1"].mode == "ro"
    assert not container.mounts["/v1"].rw
    assert container.mounts["/t2"].skip_create
    assert container.mounts["/t"].propagation == "rslave"


def test_keys_of_other_versions_are_kept():
    config, host_config = golden("c1")
    obj = json.loads(config)
    obj["ImagePlatform"] = {"architecture": "amd64"}
    obj["State"]["Novelty"] = [1]
    obj["Config"]["Later"] = "x"
    container = decode_container(json.dumps(obj).encode(), host_config)
    assert json.loads(encode_config_v2(container)) == obj


def test_a_missing_hostconfig_is_an_empty_one():
    assert decode_container(golden("c1")[0], None).host_config == {}


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ({"Running": True}, Status.RUNNING),
        ({"Running": True, "Paused": True}, Status.PAUSED),
        ({"Running": True, "Restarting": True}, Status.RESTARTING),
        ({"RemovalInProgress": True}, Status.REMOVING),
        ({"Dead": True}, Status.DEAD),
        ({"StartedAt": "2026-01-01T00:00:00Z"}, Status.EXITED),
    ],
)
def test_the_status_follows_dockers_flags_both_ways(flags, status):
    obj = json.loads(golden("c1")[0])
    obj["State"] |= flags
    container = decode_container(json.dumps(obj).encode(), None)
    assert container.state.status is status
    assert json.loads(encode_config_v2(container))["State"] == obj["State"]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"ID":"../../etc"}', b'{"ID":5}', b'{"ID":"' + b"a" * 64 + b'","Image":"sha256:../x"}'],
)
def test_a_record_that_makes_no_sense_is_refused(data):
    with pytest.raises(CorruptRecord):
        decode_container(data, None)
