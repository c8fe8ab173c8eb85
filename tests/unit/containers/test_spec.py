import pytest

from lamina.containers.accounts import ResolvedUser
from lamina.containers.capabilities import ALL
from lamina.containers.devices import Device
from lamina.containers.spec import HOST, Bind, Namespaces, SpecInputs, Tmpfs, exec_process, runtime_spec
from lamina.errors import InvalidArgument, Unsupported


def inputs(config=None, host=None, **more) -> SpecInputs:
    values = {
        "container_id": "a" * 64,
        "rootfs": "/root",
        "path": "sh",
        "args": ("-c", "true"),
        "config": {"Hostname": "box"} | (config or {}),
        "host_config": host or {},
        "user": ResolvedUser(),
        "namespaces": Namespaces(),
        "cgroup_path": "/lamina/x",
        "capabilities_available": frozenset(ALL),
        "machine": "x86_64",
        "kernel": (6, 1),
    }
    return SpecInputs(**(values | more))


def mounts(spec) -> dict[str, dict]:
    return {mount["destination"]: mount for mount in spec["mounts"]}


def test_the_process_is_what_was_asked_for():
    process = runtime_spec(inputs({"Env": ["A=b", "PATH=/x", "HOSTNAME"], "WorkingDir": "/w"}))["process"]
    assert process["args"] == ["sh", "-c", "true"]
    assert process["env"] == ["PATH=/x", "A=b"]
    assert process["cwd"] == "/w"
    assert process["terminal"] is False
    assert "noNewPrivileges" not in process


def test_a_terminal_brings_its_variable():
    process = runtime_spec(inputs({"Tty": True}, {"ConsoleSize": [24, 80]}))["process"]
    assert process["env"][1:] == ["HOSTNAME=box", "TERM=xterm"]
    assert process["consoleSize"] == {"height": 24, "width": 80}


def test_only_root_gets_capabilities_that_work():
    sets = runtime_spec(inputs(user=ResolvedUser(5, 5, (5,))))["process"]["capabilities"]
    assert set(sets) == {"bounding"}
    assert set(runtime_spec(inputs())["process"]["capabilities"]) == {"bounding", "effective", "permitted"}


def test_every_place_of_the_kernel_is_mounted_in_order():
    spec = runtime_spec(inputs())
    assert [mount["destination"] for mount in spec["mounts"]] == [
        "/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm",
    ]  # fmt: skip
    assert "ro" in mounts(spec)["/sys"]["options"]
    assert "size=67108864" in mounts(spec)["/dev/shm"]["options"]
    assert spec["linux"]["maskedPaths"]


def test_privileged_takes_the_fences_away():
    spec = runtime_spec(inputs(host={"Privileged": True}, host_devices=(Device("/dev/sda", "b", 8, 0),)))
    assert "ro" not in mounts(spec)["/sys"]["options"]
    assert "seccomp" not in spec["linux"]
    assert "maskedPaths" not in spec["linux"]
    assert spec["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert [device["path"] for device in spec["linux"]["devices"]] == ["/dev/sda"]


def test_mounts_of_the_user_replace_the_engines_and_shallow_ones_come_first():
    spec = runtime_spec(
        inputs(
            binds=(
                Bind("/h", "/a/b/c"),
                Bind("/h2", "/a", rw=False),
                Bind("/mine", "/etc/hosts"),
                Bind("/shm", "/dev/shm"),
            ),
            engine_files=(Bind("/e/hosts", "/etc/hosts"), Bind("/e/resolv", "/etc/resolv.conf")),
            tmpfs=(Tmpfs("/t", ("nodev",)),),
        )
    )
    order = [mount["destination"] for mount in spec["mounts"]]
    assert order.index("/a") < order.index("/a/b/c")
    assert order.count("/dev/shm") == order.count("/etc/hosts") == 1
    assert mounts(spec)["/etc/hosts"]["source"] == "/mine"
    assert mounts(spec)["/a"]["options"] == ["rbind", "rprivate", "ro"]
    assert mounts(spec)["/t"]["options"] == ["nodev"]


def test_a_mount_on_dev_replaces_all_of_dev():
    spec = runtime_spec(inputs(binds=(Bind("/d", "/dev"),)))
    assert [name for name in mounts(spec) if name.startswith("/dev")] == ["/dev"]


def test_a_read_only_root_makes_the_engines_mounts_read_only_but_not_the_users():
    spec = runtime_spec(
        inputs(
            host={"ReadonlyRootfs": True},
            binds=(Bind("/h", "/c"),),
            engine_files=(Bind("/e", "/etc/hosts"),),
        )
    )
    assert spec["root"] == {"path": "/root", "readonly": True}
    assert "ro" in mounts(spec)["/etc/hosts"]["options"]
    assert "ro" not in mounts(spec)["/c"]["options"]
    assert "ro" not in mounts(spec)["/dev/shm"]["options"]


def test_namespaces_are_new_shared_or_joined():
    chosen = Namespaces(network=HOST, pid="/proc/5/ns/pid", ipc="", uts=HOST, cgroup="")
    spec = runtime_spec(inputs({"Domainname": "example"}, namespaces=chosen))
    assert spec["linux"]["namespaces"] == [
        {"type": "mount"},
        {"type": "pid", "path": "/proc/5/ns/pid"},
        {"type": "ipc"},
        {"type": "cgroup"},
    ]
    assert "hostname" not in spec
    assert spec["linux"]["sysctl"] == {}


def test_a_network_of_its_own_brings_dockers_sysctls_and_the_domain_name():
    sysctl = runtime_spec(inputs({"Domainname": "example"}, {"Sysctls": {"net.x": "1"}}))["linux"]["sysctl"]
    assert sysctl == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
        "kernel.domainname": "example",
        "net.x": "1",
    }


def test_limits_are_in_the_runtimes_units():
    host = {
        "Memory": 1 << 26, "MemorySwap": -1, "NanoCpus": 1_500_000_000, "PidsLimit": 0, "CpusetCpus": "0-1",
        "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 5}], "Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": -1}],
        "MemorySwappiness": 10,
    }  # fmt: skip
    spec = runtime_spec(inputs(host=host, device_numbers={"/dev/sda": (8, 0)}))
    resources = spec["linux"]["resources"]
    assert resources["memory"] == {"limit": 1 << 26, "swap": -1, "swappiness": 10}
    assert resources["cpu"] == {"period": 100_000, "quota": 150_000, "cpus": "0-1"}
    assert resources["pids"] == {"limit": -1}
    assert resources["blockIO"] == {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}]}
    assert spec["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "hard": 2**64 - 1, "soft": 5}]


def test_a_limit_above_the_daemons_own_is_refused_without_the_capability():
    host = {"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 5000}]}
    few = inputs(host=host, hard_limits={"RLIMIT_NOFILE": 1000}, capabilities_available=frozenset({"CAP_CHOWN"}))
    with pytest.raises(Unsupported, match="error setting rlimit type nofile: operation not permitted"):
        runtime_spec(few)
    many = inputs(host=host, hard_limits={"RLIMIT_NOFILE": 1000})
    assert runtime_spec(many)["process"]["rlimits"][0]["hard"] == 5000


def test_devices_are_made_and_allowed():
    device = Device("/dev/x", "c", 1, 3, access="r")
    linux = runtime_spec(inputs(host={"DeviceCgroupRules": ["c 42:* rm"]}, devices=(device,)))["linux"]
    assert linux["devices"][0]["path"] == "/dev/x"
    rules = linux["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert rules[-2:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"},
        {"allow": True, "type": "c", "major": 42, "access": "rm"},
    ]


def test_a_shared_bind_needs_a_shared_root():
    assert (
        runtime_spec(inputs(binds=(Bind("/h", "/c", propagation="rshared"),)))["linux"]["rootfsPropagation"] == "shared"
    )
    assert (
        runtime_spec(inputs(binds=(Bind("/h", "/c", propagation="slave"),)))["linux"]["rootfsPropagation"] == "rslave"
    )


def test_the_init_program_comes_before_the_command():
    spec = runtime_spec(inputs(host={"Init": True}, init_path="/usr/bin/tini"))
    assert spec["process"]["args"][:3] == ["/sbin/docker-init", "--", "sh"]
    assert mounts(spec)["/sbin/docker-init"]["source"] == "/usr/bin/tini"
    with pytest.raises(Unsupported, match="--init"):
        runtime_spec(inputs(host={"Init": True}))
    shared = inputs(host={"Init": True}, namespaces=Namespaces(pid=HOST))
    assert runtime_spec(shared)["process"]["args"][0] == "sh"


@pytest.mark.parametrize("option", ["what", "seccomp={", "no-new-privileges=maybe", "x=y"])
def test_security_options_that_make_no_sense_are_refused(option):
    with pytest.raises(InvalidArgument):
        runtime_spec(inputs(host={"SecurityOpt": [option]}))


def test_an_exec_of_a_privileged_container_is_privileged_too():
    process = exec_process(inputs(host={"Privileged": True}), ("id",), ResolvedUser())
    assert set(process["capabilities"]["effective"]) == set(ALL)
    with pytest.raises(InvalidArgument, match="No exec command specified"):
        exec_process(inputs(), (), ResolvedUser())
