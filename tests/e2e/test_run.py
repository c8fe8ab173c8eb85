"""`docker run` as people use it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import time

import pytest

from tests.e2e.engines import DOCKER_20, DOCKER_28, Engine


@pytest.fixture(params=[DOCKER_28, DOCKER_20], ids=["cli28", "cli20"])
def cli(request: pytest.FixtureRequest) -> str:
    if not os.path.exists(request.param):
        pytest.skip(f"no docker client at {request.param}")
    return str(request.param)


def test_output_and_exit_code_of_the_command_come_back(engine: Engine, cli: str) -> None:
    done = engine.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False, cli=cli)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)


def test_standard_input_is_passed_and_closed(engine: Engine, cli: str) -> None:
    data = os.urandom(300_000)
    done = engine.docker("run", "--rm", "-i", "busybox", "cat", stdin=data, cli=cli)
    assert done.stdout == data


def test_nothing_is_left_after_rm(engine: Engine) -> None:
    engine.docker("run", "--rm", "busybox", "true")
    assert engine.out("ps", "-aq") == ""
    assert not any((engine.data_root / "containers").iterdir())


def test_missing_command_is_127_and_unusable_one_126(engine: Engine, cli: str) -> None:
    missing = engine.docker("run", "--rm", "busybox", "/no/such", check=False, cli=cli)
    assert missing.returncode == 127
    assert b"no such file or directory" in missing.stderr
    in_path = engine.docker("run", "--rm", "busybox", "nosuchcommand", check=False, cli=cli)
    assert in_path.returncode == 127
    assert b"executable file not found in $PATH" in in_path.stderr
    unusable = engine.docker("run", "--rm", "busybox", "/etc/passwd", check=False, cli=cli)
    assert unusable.returncode == 126
    assert b"permission denied" in unusable.stderr
    assert engine.out("ps", "-aq") == ""


def test_an_engine_error_is_125(engine: Engine, cli: str) -> None:
    done = engine.docker("run", "--rm", "--name", "!bad", "busybox", "true", check=False, cli=cli)
    assert done.returncode == 125
    assert b"Invalid container name" in done.stderr


def test_death_by_signal_is_128_and_its_number(engine: Engine) -> None:
    with engine.popen("run", "--rm", "--name", "victim", "busybox", "sh", "-c", "echo up; sleep 60") as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        engine.docker("kill", "victim")
        assert client.wait(20) == 137


def test_a_signal_to_the_client_reaches_the_command(engine: Engine) -> None:
    script = "trap 'echo got; exit 9' TERM; echo ready; while true; do sleep 0.1; done"
    with engine.popen("run", "--rm", "busybox", "sh", "-c", script) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(signal.SIGTERM)
        assert client.stdout.readline() == b"got\n"
        assert client.wait(20) == 9


def test_environment_working_directory_user_hostname(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
    env_file = tmp_path_factory.mktemp("env") / "file"
    env_file.write_text("B=from file\n# comment\n")
    out = engine.out(
        "run", "--rm", "-e", "A=1", "--env-file", str(env_file), "-w", "/var/made", "-u", "1:50", "-h", "box", "busybox",
        "sh", "-c", 'echo "$A|$B|$(pwd)|$(id -u):$(id -g)|$(hostname)|$HOSTNAME"',
    )  # fmt: skip
    assert out == "1|from file|/var/made|1:50|box|box"


def test_named_user_gets_its_groups(engine: Engine) -> None:
    assert (
        engine.out("run", "--rm", "-u", "daemon", "busybox", "id")
        == "uid=1(daemon) gid=1(daemon) groups=1(daemon),50(staff)"
    )


def test_entrypoint_can_be_replaced(engine: Engine) -> None:
    assert engine.out("run", "--rm", "--entrypoint", "/bin/echo", "busybox", "a", "b") == "a b"


def test_bind_mount_shows_host_files_and_read_only_holds(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    host = tmp_path_factory.mktemp("bind")
    (host / "in").write_text("host\n")
    assert (
        engine.out("run", "--rm", "-v", f"{host}:/m", "busybox", "sh", "-c", "cat /m/in; echo made > /m/out") == "host"
    )
    assert (host / "out").read_text() == "made\n"
    refused = engine.docker("run", "--rm", "-v", f"{host}:/m:ro", "busybox", "touch", "/m/x", check=False)
    assert b"Read-only file system" in refused.stderr


def test_tmpfs_is_mounted_with_its_options(engine: Engine) -> None:
    out = engine.out(
        "run", "--rm", "--tmpfs", "/scratch:size=1m,mode=1770", "busybox", "sh", "-c", "grep ' /scratch ' /proc/mounts"
    )
    assert out.startswith("tmpfs /scratch tmpfs rw")
    assert "size=1024k" in out
    assert "mode=1770" in out


def test_read_only_root(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "--read-only", "busybox", "touch", "/x", check=False)
    assert b"Read-only file system" in done.stderr


def test_default_capabilities_and_their_change(engine: Engine) -> None:
    def effective(*flags: str) -> int:
        return int(
            engine.out("run", "--rm", *flags, "busybox", "sh", "-c", "grep CapEff /proc/self/status").split()[1], 16
        )

    assert effective() == 0xA80425FB
    assert effective("--cap-drop", "ALL") == 0
    assert effective("--cap-drop", "ALL", "--cap-add", "NET_ADMIN") == 1 << 12


def test_no_new_privileges(engine: Engine) -> None:
    flag = engine.out(
        "run", "--rm", "--security-opt", "no-new-privileges", "busybox", "grep", "NoNewPrivs", "/proc/self/status"
    )
    assert flag.split() == ["NoNewPrivs:", "1"]


def test_seccomp_filters_by_default(engine: Engine) -> None:
    assert engine.out("run", "--rm", "busybox", "grep", "Seccomp:", "/proc/self/status").split() == ["Seccomp:", "2"]
    off = engine.out(
        "run", "--rm", "--security-opt", "seccomp=unconfined", "busybox", "grep", "Seccomp:", "/proc/self/status"
    )
    assert off.split() == ["Seccomp:", "0"]


def test_kernel_settings_are_masked(engine: Engine) -> None:
    out = engine.out(
        "run", "--rm", "busybox", "sh", "-c", "wc -c < /proc/timer_list; (echo x > /proc/sysrq-trigger) || echo refused"
    )
    assert out.splitlines()[-1] == "refused"


def test_limits_reach_the_kernel(engine: Engine) -> None:
    name = engine.out(
        "run", "-d", "--net", "none", "-m", "64m", "--cpus", "0.5", "--pids-limit", "33", "busybox", "sleep", "60"
    )
    limits = json.loads(engine.out("inspect", "-f", "{{json .HostConfig}}", name))
    assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (67108864, 500000000, 33)
    out = engine.out(
        "run", "--rm", "-m", "64m", "--pids-limit", "33", "busybox", "sh", "-c",
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true",
    )  # fmt: skip
    assert out.split() == ["67108864", "33"]


def test_ulimit(engine: Engine) -> None:
    assert (
        engine.out("run", "--rm", "--ulimit", "nofile=512:1024", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn")
        == "512\n1024"
    )


def test_init_reaps_and_forwards(engine: Engine) -> None:
    assert "docker-init" in engine.out(
        "run", "--rm", "--init", "busybox", "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '"
    )


def test_name_in_use_is_refused_by_name(engine: Engine) -> None:
    first = engine.out("create", "--name", "taken", "busybox")
    done = engine.docker("create", "--name", "taken", "busybox", check=False)
    assert done.returncode == 1
    assert f'The container name "/taken" is already in use by container "{first}"'.encode() in done.stderr


@pytest.mark.parametrize("mode", ["none", "host", "bridge"])
def test_network_modes(engine: Engine, mode: str) -> None:
    links = engine.out("run", "--rm", "--net", mode, "busybox", "ls", "/sys/class/net").split()
    if mode == "none":
        assert links == ["lo"]
    elif mode == "bridge":
        assert links == ["eth0", "lo"]
    else:
        assert set(links) == set(os.listdir("/sys/class/net"))


def test_network_of_another_container(engine: Engine) -> None:
    first = engine.out("run", "-d", "busybox", "sleep", "60")
    own = engine.out("exec", first, "ip", "-o", "-4", "addr", "show", "eth0")
    shared = engine.out(
        "run", "--rm", "--net", f"container:{first}", "busybox", "ip", "-o", "-4", "addr", "show", "eth0"
    )
    assert shared == own


def test_containers_on_the_bridge_reach_each_other_and_the_gateway(engine: Engine) -> None:
    server = engine.out(
        "run", "-d", "busybox", "sh", "-c", "mkdir /www; echo hello > /www/index.html; httpd -f -p 7000 -h /www"
    )
    settings = json.loads(engine.out("inspect", "-f", "{{json .NetworkSettings}}", server))
    address = settings["IPAddress"]
    assert address == settings["Networks"]["bridge"]["IPAddress"]
    script = (
        f"for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://{address}:7000/ && break; sleep 0.2; done; ip route | head -1"
    )
    out = engine.out("run", "--rm", "busybox", "sh", "-c", script)
    assert out.splitlines()[0] == "hello"
    assert out.splitlines()[1].startswith(f"default via {settings['Gateway']}")


def test_hosts_and_resolv_conf_are_there(engine: Engine) -> None:
    out = engine.out(
        "run", "--rm", "-h", "web", "--add-host", "db:10.1.2.3", "busybox", "cat", "/etc/hosts", "/etc/hostname"
    )
    assert "10.1.2.3\tdb" in out
    assert out.splitlines()[-1] == "web"
    assert any(line.endswith("\tweb") for line in out.splitlines())


def test_published_ports_and_own_networks_are_refused_clearly(engine: Engine) -> None:
    if engine.kind != "lamina":
        return
    for flags in (["-p", "8080:80"], ["--net", "mine"]):
        done = engine.docker("run", "--rm", *flags, "busybox", "true", check=False)
        assert done.returncode == 125
        assert b"not served yet" in done.stderr


def _read_until(descriptor: int, wanted: bytes, timeout_s: float = 15) -> bytes:
    seen = b""
    deadline = time.monotonic() + timeout_s
    while wanted not in seen:
        assert time.monotonic() < deadline, f"no {wanted!r} in {seen!r}"
        if select.select([descriptor], [], [], 0.2)[0]:
            try:
                seen += os.read(descriptor, 65536)
            except OSError:
                break
    return seen


def test_terminal_with_size_and_detach_keys(engine: Engine, cli: str) -> None:
    pid, master = pty.fork()
    if pid == 0:
        os.execve(cli, [cli, "run", "-it", "--name", "term", "busybox", "sh"], engine.environment(TERM="xterm"))
    try:
        import fcntl
        import struct
        import termios

        _read_until(master, b"# ")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 41, 117, 0, 0))
        os.kill(pid, signal.SIGWINCH)
        time.sleep(0.5)
        os.write(master, b"stty size; tty\r")
        seen = _read_until(master, b"/dev/")
        assert b"41 117" in seen
        os.write(master, b"\x10\x11")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        os.close(master)
    assert engine.out("inspect", "-f", "{{.State.Running}}", "term") == "true"


def test_many_runs_side_by_side(engine: Engine) -> None:
    clients = [engine.popen("run", "--rm", "busybox", "echo", str(n)) for n in range(20)]
    outputs = []
    for client in clients:
        out, err = client.communicate(timeout=60)
        assert client.returncode == 0, err
        outputs.append(out)
    assert outputs == [f"{n}\n".encode() for n in range(20)]


def test_large_output_arrives_whole(engine: Engine) -> None:
    out = engine.docker("run", "--rm", "busybox", "seq", "1", "200000").stdout
    assert out == b"".join(b"%d\n" % n for n in range(1, 200001))


def test_image_defaults_apply(engine: Engine) -> None:
    from tests.e2e import images

    engine.docker("load", stdin=images.with_volume())
    assert engine.out("run", "--rm", "with-volume:1") == "from the image"
    out = engine.out("run", "--rm", "with-volume:1", "id -un; pwd; echo $COLOR; stat -c '%a %n' /data /data/seed")
    assert out.splitlines() == ["daemon", "/work", "blue", "751 /data", "604 /data/seed"]


def test_only_standard_descriptors_are_open(engine: Engine) -> None:
    assert engine.out("run", "--rm", "busybox", "sh", "-c", "ls /proc/1/fd; true").split() == ["0", "1", "2"]
