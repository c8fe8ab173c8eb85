"""Containers after `run`: create, start, stop, list, look at, throw away."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.engines import Engine


def test_create_start_attach(engine: Engine) -> None:
    created = engine.out("create", "-i", "busybox", "sh", "-c", "read line; echo got $line; exit 3")
    assert engine.out("inspect", "-f", "{{.State.Status}}", created) == "created"
    done = engine.docker("start", "-a", "-i", created, stdin=b"words\n", check=False)
    assert (done.stdout, done.returncode) == (b"got words\n", 3)
    assert engine.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", created) == "exited 3"


def test_the_writable_layer_outlives_stop_and_start(engine: Engine) -> None:
    created = engine.out("create", "busybox", "sh", "-c", "echo x >> /count; wc -l < /count")
    assert engine.out("start", "-a", created) == "1"
    assert engine.out("start", "-a", created) == "2"
    assert engine.out("diff", created).splitlines() == ["A /count"]


def test_ps_columns_filters_and_formats(engine: Engine) -> None:
    running = engine.out("run", "-d", "--name", "runs", "--label", "tier=web", "busybox", "sleep", "60")
    ended = engine.out("run", "-d", "--name", "ended", "busybox", "sh", "-c", "exit 4")
    engine.docker("wait", ended)
    assert engine.out("ps", "-q") == running[:12]
    assert engine.out("ps", "-aq", "--no-trunc").split() == [ended, running]
    assert engine.out("ps", "-aq", "-f", "label=tier=web", "--no-trunc") == running
    assert engine.out("ps", "-aq", "-f", "name=end", "--no-trunc") == ended
    assert engine.out("ps", "-aq", "-f", "exited=4", "--no-trunc") == ended
    assert engine.out("ps", "-aq", "-f", "status=running", "--no-trunc") == running
    assert engine.out("ps", "-aq", "-f", "ancestor=busybox", "--no-trunc").split() == [ended, running]
    assert engine.out("ps", "-lq", "--no-trunc") == ended
    assert engine.out("ps", "-n", "1", "-q", "--no-trunc") == ended
    row = engine.out("ps", "-a", "-f", "name=ended", "--format", "{{.Image}}|{{.Command}}|{{.Status}}|{{.Names}}")
    assert row.startswith("busybox|\"sh -c 'exit 4'\"|Exited (4) ")
    assert "virtual" in engine.out("ps", "-s", "--format", "{{.Size}}")


def test_stop_gives_the_process_its_time_then_kills(engine: Engine) -> None:
    kind = engine.out("run", "-d", "busybox", "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done")
    engine.docker("stop", kind)
    assert engine.out("inspect", "-f", "{{.State.ExitCode}}", kind) == "5"
    stubborn = engine.out("run", "-d", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    begin = time.monotonic()
    engine.docker("stop", "-t", "1", stubborn)
    assert 0.9 < time.monotonic() - begin < 6
    assert engine.out("inspect", "-f", "{{.State.ExitCode}}", stubborn) == "137"


def test_kill_by_name_and_number(engine: Engine) -> None:
    for signal_name in ("USR1", "10", "SIGUSR1"):
        name = engine.out(
            "run", "-d", "busybox", "sh", "-c", "trap 'exit 21' USR1; echo up; while :; do sleep 0.05; done"
        )
        _wait_for_log(engine, name, "up")
        engine.docker("kill", "-s", signal_name, name)
        assert engine.out("wait", name) == "21"


def test_pause_holds_the_process(engine: Engine) -> None:
    name = engine.out("run", "-d", "busybox", "sh", "-c", "while :; do echo tick; sleep 0.05; done")
    engine.docker("pause", name)
    assert engine.out("inspect", "-f", "{{.State.Status}}", name) == "paused"
    before = engine.out("logs", name)
    time.sleep(0.4)
    assert engine.out("logs", name) == before
    engine.docker("unpause", name)
    assert engine.out("inspect", "-f", "{{.State.Status}}", name) == "running"


def test_restart(engine: Engine) -> None:
    name = engine.out("run", "-d", "busybox", "sh", "-c", "echo begun; exec sleep 60")
    first = engine.out("inspect", "-f", "{{.State.Pid}}", name)
    engine.docker("restart", "-t", "0", name)
    assert engine.out("inspect", "-f", "{{.State.Running}}", name) == "true"
    assert engine.out("inspect", "-f", "{{.State.Pid}}", name) != first
    _wait_for_log(engine, name, "begun\nbegun")


def test_a_running_container_is_removed_by_force_alone(engine: Engine) -> None:
    name = engine.out("run", "-d", "busybox", "sleep", "60")
    refused = engine.docker("rm", name, check=False)
    assert refused.returncode == 1
    assert b"running" in refused.stderr
    engine.docker("rm", "-f", name)
    assert engine.docker("inspect", name, check=False).returncode == 1


def test_rename(engine: Engine) -> None:
    created = engine.out("create", "--name", "before", "busybox")
    engine.docker("rename", "before", "after")
    assert engine.out("inspect", "-f", "{{.Id}} {{.Name}}", "after") == f"{created} /after"
    assert b"No such" in engine.docker("inspect", "before", check=False).stderr


def test_top_lists_the_processes(engine: Engine) -> None:
    name = engine.out("run", "-d", "busybox", "sh", "-c", "sleep 61 & sleep 62")
    time.sleep(0.2)
    table = engine.out("top", name)
    assert table.splitlines()[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert "sleep 61" in table
    assert "sleep 62" in table
    assert "sleep 61" in engine.out("top", name, "-o", "pid,args")


def test_logs_tail_since_until_timestamps_follow(engine: Engine) -> None:
    name = engine.out("run", "-d", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; echo e$i >&2; done")
    engine.docker("wait", name)
    done = engine.docker("logs", name)
    assert (done.stdout, done.stderr) == (b"1\n2\n3\n4\n5\n", b"e1\ne2\ne3\ne4\ne5\n")
    assert (
        len(engine.docker("logs", "--tail", "3", name).stdout.splitlines())
        + len(engine.docker("logs", "--tail", "3", name).stderr.splitlines())
        == 3
    )
    stamped = engine.out("logs", "-t", name).splitlines()[0].split()[0]
    assert stamped.startswith("20")
    assert stamped.endswith("Z")
    assert engine.out("logs", "--since", "2100-01-01T00:00:00", name) == ""
    assert engine.out("logs", "--until", "2001-01-01T00:00:00", name) == ""
    slow = engine.out("run", "-d", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done")
    assert engine.out("logs", "-f", slow) == "1\n2\n3"


def test_wait_tells_the_exit_code(engine: Engine) -> None:
    name = engine.out("run", "-d", "busybox", "sh", "-c", "sleep 0.3; exit 6")
    assert engine.out("wait", name) == "6"


def test_attach_shows_what_comes_and_leaves_the_container_running(engine: Engine) -> None:
    name = engine.out("run", "-d", "-i", "busybox", "cat")
    with engine.popen("attach", name) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"round trip\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"round trip\n"
        client.kill()
    assert engine.out("inspect", "-f", "{{.State.Running}}", name) == "true"
    assert engine.out("logs", name) == "round trip"


def test_exec(engine: Engine) -> None:
    name = engine.out("run", "-d", "-e", "A=1", "busybox", "sleep", "60")
    assert engine.out("exec", name, "sh", "-c", "echo $A") == "1"
    assert engine.docker("exec", name, "sh", "-c", "exit 9", check=False).returncode == 9
    assert (
        engine.out("exec", "-e", "B=2", "-w", "/tmp", "-u", "daemon", name, "sh", "-c", 'echo "$B $(pwd) $(id -un)"')
        == "2 /tmp daemon"
    )
    assert engine.docker("exec", "-i", name, "cat", stdin=b"piped").stdout == b"piped"
    engine.docker("exec", "-d", name, "touch", "/made")
    deadline = time.monotonic() + 5
    while engine.docker("exec", name, "test", "-e", "/made", check=False).returncode != 0:
        assert time.monotonic() < deadline
    missing = engine.docker("exec", name, "/no/such", check=False)
    assert missing.returncode in (126, 127)
    assert b"no such file or directory" in missing.stderr + missing.stdout
    assert b"is not running" in engine.docker("exec", engine.out("create", "busybox"), "true", check=False).stderr


def test_exec_many_at_once(engine: Engine) -> None:
    name = engine.out("run", "-d", "busybox", "sleep", "60")
    clients = [engine.popen("exec", name, "echo", str(n)) for n in range(12)]
    assert [client.communicate(timeout=30)[0] for client in clients] == [f"{n}\n".encode() for n in range(12)]


def test_exec_with_a_terminal(engine: Engine) -> None:
    name = engine.out("run", "-d", "busybox", "sleep", "60")
    script = f"docker exec -t {name} tty"
    done = subprocess.run(
        ["script", "-qec", script, "/dev/null"], capture_output=True, env=engine.environment(), timeout=20, check=False
    )
    assert b"/dev/pts/" in done.stdout


def test_copy_both_ways(engine: Engine, tmp_path: Path) -> None:
    name = engine.out("create", "busybox")
    (tmp_path / "file").write_bytes(b"content")
    os.chmod(tmp_path / "file", 0o640)
    engine.docker("cp", str(tmp_path / "file"), f"{name}:/etc/copied")
    engine.docker("cp", f"{name}:/etc/copied", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"content"
    assert (tmp_path / "back").stat().st_mode & 0o7777 == 0o640
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "leaf").write_text("leaf")
    engine.docker("cp", str(tmp_path / "tree"), f"{name}:/tmp")
    engine.docker("cp", f"{name}:/tmp/tree/.", str(tmp_path / "out"))
    assert (tmp_path / "out" / "deep" / "leaf").read_text() == "leaf"
    streamed = engine.docker("cp", f"{name}:/etc/passwd", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(streamed)) as tar:
        assert tar.getnames() == ["passwd"]
    missing = engine.docker("cp", f"{name}:/none", str(tmp_path), check=False)
    assert b"Could not find the file /none in container" in missing.stderr


def test_copy_into_a_running_container(engine: Engine, tmp_path: Path) -> None:
    name = engine.out("run", "-d", "--tmpfs", "/t", "-v", "/data", "busybox", "sleep", "60")
    (tmp_path / "f").write_text("live")
    engine.docker("cp", str(tmp_path / "f"), f"{name}:/root/f")
    engine.docker("cp", str(tmp_path / "f"), f"{name}:/data/f")
    assert engine.out("exec", name, "cat", "/root/f", "/data/f") == "livelive"


def test_diff_names_what_changed(engine: Engine) -> None:
    name = engine.out(
        "create",
        "busybox",
        "sh",
        "-c",
        "rm /etc/group; echo >> /etc/passwd; mkdir /new; touch /new/file; chmod 700 /home",
    )
    engine.docker("start", "-a", name)
    assert sorted(engine.out("diff", name).splitlines()) == sorted(
        ["C /etc", "D /etc/group", "C /etc/passwd", "C /home", "A /new", "A /new/file"]
    )


def test_commit_makes_an_image(engine: Engine) -> None:
    name = engine.out("create", "busybox", "sh", "-c", "echo kept > /kept; rm /etc/group")
    engine.docker("start", "-a", name)
    image = engine.out(
        "commit", "-a", "somebody", "-m", "why", "-c", 'CMD ["cat", "/kept"]', "-c", "ENV A=b", name, "committed:1"
    )
    assert engine.out("run", "--rm", "committed:1") == "kept"
    assert engine.docker("run", "--rm", "committed:1", "test", "-e", "/etc/group", check=False).returncode == 1
    details = json.loads(engine.out("image", "inspect", "committed:1"))[0]
    assert (details["Id"], details["Author"], details["Comment"]) == (image, "somebody", "why")
    assert "A=b" in details["Config"]["Env"]
    assert engine.out("history", "--format", "{{.Comment}}", "committed:1").splitlines()[0] == "why"
    engine.remove_containers()
    engine.docker("rmi", "committed:1")


def test_export_is_the_whole_tree(engine: Engine) -> None:
    name = engine.out("create", "busybox", "sh", "-c", "echo x > /marker")
    engine.docker("start", "-a", name)
    with tarfile.open(fileobj=io.BytesIO(engine.docker("export", name).stdout)) as tar:
        names = tar.getnames()
        assert {"bin/busybox", "etc/passwd", "marker"} <= {n.strip("/") for n in names}
        assert len(names) == len(set(names))


def test_anonymous_volume_is_filled_and_goes_with_rm_v(engine: Engine) -> None:
    engine.docker("load", stdin=images.with_volume())
    name = engine.out("create", "with-volume:1", "cat /data/seed; echo more >> /data/more")
    mounts = json.loads(engine.out("inspect", "-f", "{{json .Mounts}}", name))
    assert [(m["Type"], m["Destination"], m["Driver"]) for m in mounts] == [("volume", "/data", "local")]
    assert engine.out("volume", "ls", "-q") == mounts[0]["Name"]
    engine.docker("rm", "-v", name)
    assert engine.out("volume", "ls", "-q") == ""


def test_named_volume_outlives_its_containers(engine: Engine) -> None:
    engine.docker("run", "--rm", "-v", "keep:/k", "busybox", "sh", "-c", "echo safe > /k/file")
    assert engine.out("run", "--rm", "-v", "keep:/k", "busybox", "cat", "/k/file") == "safe"
    assert engine.out("volume", "ls", "-q") == "keep"
    engine.docker("volume", "rm", "keep")
    assert engine.out("volume", "ls", "-q") == ""


def test_inspect_has_what_scripts_read(engine: Engine) -> None:
    name = engine.out("run", "-d", "--name", "seen", "-e", "K=v", "--label", "l=1", "busybox", "sleep", "60")
    found = json.loads(engine.out("inspect", "seen"))[0]
    assert found["Id"] == name
    assert found["Name"] == "/seen"
    assert (found["Path"], found["Args"]) == ("sleep", ["60"])
    assert found["State"]["Status"] == "running"
    assert found["State"]["Pid"] > 1
    assert os.path.exists(f"/proc/{found['State']['Pid']}")
    assert found["Image"].startswith("sha256:")
    assert found["Config"]["Image"] == "busybox"
    assert "K=v" in found["Config"]["Env"]
    assert found["Config"]["Labels"] == {"l": "1"}
    assert found["HostConfig"]["NetworkMode"] in ("default", "bridge")
    assert found["GraphDriver"]["Name"] == engine.storage_driver
    assert Path(found["LogPath"]).exists()
    for file in ("HostnamePath", "HostsPath", "ResolvConfPath"):
        assert Path(found[file]).exists()
    assert json.loads(engine.out("inspect", "-s", "seen"))[0]["SizeRootFs"] > 1_000_000


def test_events_tell_the_life_of_a_container(engine: Engine) -> None:
    since = str(time.time())
    name = engine.out("run", "-d", "--name", "life", "busybox", "sh", "-c", "exit 3")
    engine.docker("wait", name)
    engine.docker("rm", name)
    time.sleep(0.1)
    lines = engine.out(
        "events", "--since", since, "--until", str(time.time()), "--filter", "container=life", "--format", "{{json .}}"
    )
    events = [json.loads(line) for line in lines.splitlines()]
    assert [e["Action"] for e in events] == ["create", "start", "die", "destroy"]
    assert events[2]["Actor"]["Attributes"]["exitCode"] == "3"
    assert events[0]["Actor"]["Attributes"]["image"] == "busybox"


def test_events_tell_networks_exports_and_labels(engine: Engine) -> None:
    since = str(time.time())
    name = engine.out("run", "-d", "--name", "told", "--label", "colour=blue", "busybox", "true")
    engine.docker("wait", name)
    engine.docker("commit", name, "told:1")
    engine.docker("export", name)
    engine.docker("rmi", "told:1")
    time.sleep(0.1)
    lines = engine.out("events", "--since", since, "--until", str(time.time()), "--format", "{{json .}}")
    events = [json.loads(line) for line in lines.splitlines()]
    said = [(e["Type"], e["Action"]) for e in events if e["Type"] != "image"]
    assert said == [
        ("container", "create"), ("network", "connect"), ("container", "start"), ("container", "die"),
        ("network", "disconnect"), ("container", "commit"), ("container", "export"),
    ]  # fmt: skip
    network = events[1]["Actor"]
    assert network["Attributes"] == {"container": name, "name": "bridge", "type": "bridge"}
    assert network["ID"] == engine.out("network", "inspect", "bridge", "-f", "{{.Id}}")
    assert all(e["Actor"]["Attributes"]["colour"] == "blue" for e in events if e["Type"] == "container")


def test_system_df_counts(engine: Engine) -> None:
    engine.docker("run", "--name", "fat", "busybox", "sh", "-c", "head -c 1000000 /dev/zero > /big")
    rows = [json.loads(line) for line in engine.out("system", "df", "--format", "{{json .}}").splitlines()]
    kinds = {row["Type"]: row for row in rows}
    assert int(kinds["Containers"]["TotalCount"]) == 1
    assert kinds["Containers"]["Size"].startswith("1MB") or kinds["Containers"]["Size"].startswith("1.0")
    assert int(kinds["Images"]["TotalCount"]) >= 1


def _wait_for_log(engine: Engine, name: str, wanted: str) -> None:
    deadline = time.monotonic() + 10
    while wanted not in engine.out("logs", name):
        assert time.monotonic() < deadline, f"no {wanted!r} in the log of {name}"
        time.sleep(0.02)


@pytest.mark.parametrize("verb", ["start", "stop", "kill", "rm", "logs", "inspect", "top", "diff", "wait"])
def test_unknown_container_is_named(engine: Engine, verb: str) -> None:
    done = engine.docker(verb, "nothere", check=False)
    assert done.returncode == 1
    assert b"nothere" in done.stderr
    assert b"No such" in done.stderr or b"no such" in done.stderr
