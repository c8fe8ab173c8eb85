import json
from pathlib import Path

import pytest

from lamina.containers.config import CONFIG_KEYS, Defaults, complete_config, complete_host_config
from lamina.errors import InvalidArgument

GOLDEN = Path(__file__).parents[2] / "golden" / "dockerd-20.10"
OLD_ONLY = {"KernelMemory", "KernelMemoryTCP"}
"""What dockerd has dropped since 20.10."""


def test_an_empty_request_gets_every_key_of_dockers_in_its_order():
    written = json.loads((GOLDEN / "c1.hostconfig.json").read_text())
    found = complete_host_config({}, Defaults())
    assert list(found) == [key for key in written if key not in OLD_ONLY]


def test_values_that_older_clients_send_for_nothing_become_null():
    found = complete_host_config({"MemorySwappiness": -1, "PidsLimit": 0}, Defaults())
    assert (found["MemorySwappiness"], found["PidsLimit"]) == (None, None)


def test_keys_that_nobody_knows_are_dropped():
    assert "Novelty" not in complete_host_config({"Novelty": 1}, Defaults())
    assert "Novelty" not in complete_config({"Novelty": 1}, "a" * 64, {}, "host")


@pytest.mark.parametrize("wrong", [{"Binds": {}}, {"Memory": "1g"}, {"Privileged": 1}, {"Sysctls": {"a": 1}}])
def test_a_value_of_another_type_is_refused(wrong):
    with pytest.raises(InvalidArgument, match="invalid HostConfig"):
        complete_host_config(wrong, Defaults())


def test_modes_follow_the_host_and_the_daemon():
    found = complete_host_config({"NetworkMode": "default"}, Defaults(network_mode="none", cgroup_version=2))
    assert (found["NetworkMode"], found["CgroupnsMode"]) == ("none", "private")
    assert complete_host_config({"Privileged": True}, Defaults(cgroup_version=2))["CgroupnsMode"] == "host"


def test_a_privileged_container_has_no_masked_paths_and_asked_for_ones_stay():
    assert complete_host_config({"Privileged": True}, Defaults())["MaskedPaths"] is None
    assert complete_host_config({"MaskedPaths": []}, Defaults())["MaskedPaths"] == []


def test_log_options_of_the_daemon_are_for_its_own_driver():
    defaults = Defaults(log_options={"max-size": "1m"})
    assert complete_host_config({}, defaults)["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}}
    none = complete_host_config({"LogConfig": {"Type": "none"}}, defaults)
    assert none["LogConfig"] == {"Type": "none", "Config": {}}


def test_the_host_name_is_the_short_id_or_the_hosts():
    assert complete_config({}, "ab" * 32, {}, "host")["Hostname"] == "ab" * 6
    assert complete_config({}, "ab" * 32, {"NetworkMode": "host"}, "host")["Hostname"] == "host"
    assert complete_config({"Hostname": "me"}, "ab" * 32, {"NetworkMode": "host"}, "host")["Hostname"] == "me"


def test_a_lone_string_is_a_list_of_one_and_order_is_dockers():
    found = complete_config({"Cmd": "sh", "User": "u"}, "ab" * 32, {}, "host")
    assert found["Cmd"] == ["sh"]
    assert list(found) == [key for key in CONFIG_KEYS if key in found]
