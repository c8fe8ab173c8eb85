"""Runtime specs tried with the real runtime: what the command inside sees."""

import json
import os
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from lamina.containers import host
from lamina.containers.gather import Neighbours, gather
from lamina.containers.record import Container, MountPoint
from lamina.containers.spec import exec_process, runtime_spec
from lamina.containers.user import resolve_user
from lamina.errors import Unsupported
from lamina.ids import ContainerId, random_id
from tests.e2e.images import unpack_busybox

pytestmark = [pytest.mark.root, pytest.mark.e2e]


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory) -> Path:
    """The one layer of a busybox image, as a directory."""
    directory = tmp_path_factory.mktemp("busybox")
    directory.chmod(0o755)
    return unpack_busybox(directory)


def alone(_: str) -> str:
    raise AssertionError("this container has no neighbours")


NOBODY = Neighbours(pid_of=alone, shm_of=alone, volume_path=lambda name: name)


def container(command, config=None, host_config=None, mounts=()) -> Container:
    container_id = ContainerId(random_id())
    return Container(
        id=container_id,
        name="spec",
        created="",
        path=command[0],
        args=list(command[1:]),
        config={"Hostname": "box", "Env": ["A=b"]} | (config or {}),
        host_config={"NetworkMode": "none"} | (host_config or {}),
        image_id=None,
        driver="overlay2",
        mounts={mount.destination: mount for mount in mounts},
    )


@pytest.fixture
def run(rootfs, tmp_path):
    facts = host.detect()

    def run(*command, config=None, host_config=None, mounts=()) -> subprocess.CompletedProcess[str]:
        made = container(command, config, host_config, mounts)
        spec = runtime_spec(gather(made, rootfs, facts, netns=None, neighbours=NOBODY))
        bundle = tmp_path / uuid.uuid4().hex
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(spec))
        argv = ["runc", "--root", tmp_path / "state", "run", "--bundle", bundle, made.id]
        return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)

    return run


def output(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def status_line(text: str, key: str) -> str:
    return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(key))


def test_a_plain_container_runs_with_dockers_environment(run):
    out = output(run("sh", "-c", "env; hostname; id; pwd")).splitlines()
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in out
    assert {"A=b", "HOSTNAME=box", "HOME=/root", "box", "/"} <= set(out)
    assert "uid=0(root) gid=0(root) groups=0(root),10(wheel)" in out


def test_it_has_the_default_capabilities_and_no_inheritable_ones(run):
    out = output(run("cat", "/proc/self/status"))
    assert status_line(out, "CapEff") == "00000000a80425fb"
    assert status_line(out, "CapBnd") == "00000000a80425fb"
    assert status_line(out, "CapInh") == "0000000000000000"
    assert status_line(out, "Seccomp") == "2"
    assert status_line(out, "NoNewPrivs") == "0"


def test_a_privileged_container_has_all_that_the_daemon_has(run):
    out = output(run("sh", "-c", "cat /proc/self/status; ls /dev", host_config={"Privileged": True}))
    own = Path("/proc/self/status").read_text()
    assert status_line(out, "CapEff") == status_line(own, "CapBnd")
    assert status_line(out, "Seccomp") == "0"
    assert "loop0" in out or "vda" in out or "kmsg" in out


def test_a_user_has_no_capabilities_and_its_own_groups(run):
    out = output(run("sh", "-c", "id; cat /proc/self/status", config={"User": "daemon:10"}))
    assert "uid=1(daemon) gid=10(wheel) groups=10(wheel)" in out
    assert status_line(out, "CapEff") == "0000000000000000"


def test_a_read_only_root_refuses_writes_but_tmpfs_takes_them(run):
    script = "touch /x 2>&1; touch /tm/x && grep ' /tm ' /proc/mounts"
    out = output(run("sh", "-c", script, host_config={"ReadonlyRootfs": True, "Tmpfs": {"/tm": "size=1m,exec"}}))
    assert "Read-only file system" in out
    assert "size=1024k" in out
    assert "nosuid" in out
    assert "noexec" not in out


def test_a_container_without_network_has_only_loopback(run):
    out = output(run("ls", "/sys/class/net"))
    assert out.split() == ["lo"]


def test_binds_are_seen_and_read_only_ones_refuse_writes(run, tmp_path):
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "file").write_text("hello")
    mounts = [
        MountPoint("bind", str(tmp_path / "shown"), "/ro", rw=False),
        MountPoint("bind", str(tmp_path / "made" / "deep"), "/rw"),
    ]
    out = output(run("sh", "-c", "cat /ro/file; touch /ro/x 2>&1; echo yes > /rw/x", mounts=mounts))
    assert out.startswith("hello")
    assert "Read-only file system" in out
    assert (tmp_path / "made" / "deep" / "x").read_text() == "yes\n"


def test_limits_reach_the_control_group(run):
    limits = {"Memory": 64 << 20, "MemorySwap": 64 << 20, "PidsLimit": 50, "NanoCpus": 500_000_000, "CpuShares": 512}
    out = output(
        run(
            "sh",
            "-c",
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max "
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares",
            host_config=limits,
        )
    )
    assert out.split() == [str(64 << 20), "50", "50000", "512"]


def test_ulimits_below_the_daemons_own_are_set(run):
    ulimits = [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    assert output(run("sh", "-c", "ulimit -n; ulimit -Hn", host_config={"Ulimits": ulimits})).split() == ["100", "200"]


def test_ulimits_above_the_daemons_own_are_refused_before_anything_starts(rootfs):
    facts = host.detect()
    weak = replace(facts, capabilities=facts.capabilities - {"CAP_SYS_RESOURCE"}, hard_limits={"RLIMIT_NOFILE": 1000})
    made = container(["true"], host_config={"Ulimits": [{"Name": "nofile", "Soft": 9, "Hard": 1001}]})
    with pytest.raises(Unsupported, match="operation not permitted"):
        runtime_spec(gather(made, rootfs, weak, netns=None, neighbours=NOBODY))


def test_devices_and_sysctls_are_there(run):
    wanted = {
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nothing", "CgroupPermissions": "rwm"}],
        "Sysctls": {"net.ipv4.ip_forward": "1"},
    }
    out = output(run("sh", "-c", "echo x > /dev/nothing; cat /proc/sys/net/ipv4/ip_forward", host_config=wanted))
    assert out.strip() == "1"


def test_masked_and_read_only_paths_hide_the_kernels(run):
    out = output(run("sh", "-c", "ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/domainname; echo $?"))
    assert out.split() == ["0", "1"]


def test_the_init_program_is_process_one(run):
    if not host.find_init():
        with pytest.raises(Unsupported, match=r"install the package|--init"):
            run("true", host_config={"Init": True})
        return
    out = output(run("sh", "-c", "cat /proc/1/cmdline", host_config={"Init": True}))
    assert out.startswith("/sbin/docker-init\0--\0sh")


def test_no_new_privileges_and_an_unconfined_filter_are_as_asked(run):
    options = {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]}
    out = output(run("cat", "/proc/self/status", host_config=options))
    assert status_line(out, "NoNewPrivs") == "1"
    assert status_line(out, "Seccomp") == "0"


def test_a_filter_given_as_text_is_used(run):
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    result = run("mkdir", "/tmp/x", host_config={"SecurityOpt": [f"seccomp={json.dumps(profile)}"]})
    assert result.returncode == 1
    assert "Operation not permitted" in result.stderr


def test_new_namespaces_need_a_capability(run):
    assert run("unshare", "-u", "true").returncode == 1
    assert run("unshare", "-u", "true", host_config={"CapAdd": ["SYS_ADMIN"]}).returncode == 0


def test_host_namespaces_are_the_hosts(run):
    wanted = {"NetworkMode": "host", "PidMode": "host", "IpcMode": "host", "UTSMode": "host"}
    out = output(run("sh", "-c", "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done", host_config=wanted))
    assert out.split() == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "pid", "ipc", "uts")]


def test_an_exec_sees_the_container_with_its_own_user_and_environment(rootfs, tmp_path):
    facts = host.detect()
    made = container(["sleep", "60"], {"WorkingDir": "/tmp"})
    inputs = gather(made, rootfs, facts, netns=None, neighbours=NOBODY)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(runtime_spec(inputs)))
    process = exec_process(inputs, ("sh", "-c", "id -u; pwd; echo $A$C"), resolve_user(rootfs, "daemon"), env=("C=d",))
    (bundle / "process.json").write_text(json.dumps(process))
    runc = ["runc", "--root", tmp_path / "state"]
    subprocess.run([*runc, "run", "--detach", "--bundle", bundle, made.id], check=True, timeout=30,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        argv = [*runc, "exec", "--process", bundle / "process.json", made.id]
        result = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
        assert output(result).split() == ["1", "/tmp", "bd"]
    finally:
        subprocess.run([*runc, "delete", "--force", made.id], check=True, timeout=30)
