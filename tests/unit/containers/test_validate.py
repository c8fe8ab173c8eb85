import pytest

from lamina.containers.config import Defaults, complete_host_config
from lamina.containers.validate import Limits, validate
from lamina.errors import InvalidArgument, NotServed

CONFIG = {"Cmd": ["sh"]}


def checked(host, limits: Limits | None = None, config=None):
    complete = complete_host_config(host, Defaults())
    return validate(CONFIG | (config or {}), complete, limits or Limits(cpus=4)), complete


def test_a_sound_request_has_no_warnings():
    assert checked({"Memory": 64 << 20, "NanoCpus": 4 * 10**9, "CpusetCpus": "0-3", "PidsLimit": 5})[0] == []


def test_what_the_host_cannot_limit_is_dropped_with_a_warning():
    host = {"Memory": 64 << 20, "CpuShares": 5, "CpusetCpus": "0", "BlkioWeight": 100, "PidsLimit": 5}
    warnings, complete = checked(host, Limits(controllers=(), cpus=4))
    assert len(warnings) == 5
    assert all(words.endswith("Limitation discarded.") for words in warnings)
    assert (complete["Memory"], complete["MemorySwap"], complete["CpusetCpus"], complete["PidsLimit"]) == (
        0,
        0,
        "",
        None,
    )


def test_memory_is_limited_without_swap_where_swap_cannot_be():
    warnings, complete = checked({"Memory": 64 << 20}, Limits(limits_swap=False, cpus=4))
    assert "Memory limited without swap" in warnings[0]
    assert complete["MemorySwap"] == -1


def test_published_ports_mean_nothing_on_the_hosts_network():
    warnings, _ = checked({"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "80"}]}})
    assert warnings == ["Published ports are discarded when using host network mode"]


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"MemorySwap": 5 << 20}, "always set the Memory limit"),
        ({"MemorySwappiness": 101}, "range is 0-100"),
        ({"MemoryReservation": 5}, "reservation allowed is 6MB"),
        ({"Memory": 8 << 20, "MemoryReservation": 9 << 20}, "can not be less than memory reservation"),
        ({"CpuPeriod": 5}, "can not be less than 1ms"),
        ({"CpuQuota": 5}, "cfs quota"),
        ({"CpusetCpus": "x"}, "Invalid value x for cpuset cpus"),
        ({"CpusetCpus": "0,4"}, "Requested CPUs are not available - requested 0,4, available: 0-3"),
        ({"BlkioWeight": 5}, "from 10 to 1000"),
        ({"OomScoreAdj": 1001}, "oom score adj"),
        ({"ShmSize": -1}, "SHM size"),
        ({"DeviceCgroupRules": ["x"]}, "invalid device cgroup rule"),
        ({"Devices": [{"PathOnHost": "/dev/null", "CgroupPermissions": "x"}]}, "invalid device mode"),
        ({"RestartPolicy": {"Name": "no", "MaximumRetryCount": 3}}, "maximum retry count"),
        ({"RestartPolicy": {"Name": "always"}, "AutoRemove": True}, "AutoRemove"),
        ({"ExtraHosts": ["x"]}, "add-host"),
        ({"CpuCount": 1}, "Windows"),
        ({"LogConfig": {"Type": "json-file", "Config": {"bogus": "1"}}}, "unknown log opt 'bogus' for json-file"),
        ({"UsernsMode": "mine"}, "invalid Userns mode"),
        ({"NetworkMode": "container:"}, "container format"),
        ({"NetworkMode": "container:x", "Dns": ["1.1.1.1"]}, "dns and the network mode"),
    ],
)
def test_settings_that_make_no_sense_are_refused(host, words):
    with pytest.raises(InvalidArgument, match=words):
        checked(host)


@pytest.mark.parametrize(
    "config",
    [
        {"ExposedPorts": {"x": {}}},
        {"StopSignal": "NOSUCH"},
        {"StopSignal": "99"},
        {"Healthcheck": {"Interval": 5}},
        {"Healthcheck": {"Retries": -1}},
        {"Cmd": ["a\0"]},
    ],
)
def test_image_settings_that_make_no_sense_are_refused(config):
    with pytest.raises(InvalidArgument):
        checked({}, config=config)


def test_log_options_are_kept_and_those_that_make_no_sense_refused():
    warnings, complete = checked({"LogConfig": {"Type": "json-file", "Config": {"max-size": "1k", "max-file": "2"}}})
    assert warnings == []
    assert complete["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1k", "max-file": "2"}}
    with pytest.raises(InvalidArgument, match="max-file cannot be less than 1"):
        checked({"LogConfig": {"Type": "json-file", "Config": {"max-file": "0"}}})


def test_what_comes_later_is_named():
    with pytest.raises(NotServed, match="publishing ports"):
        checked({"PublishAllPorts": True})
