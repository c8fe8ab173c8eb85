"""Our client says what docker's says, on the same daemon; on a terminal too."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.e2e.engines import Engine, docker_cli

LAMINA = [sys.executable, "-m", "lamina"]


def run_cli(engine: Engine, cli: list[str], *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = engine.environment(LAMINA_HOST=engine.host)
    return subprocess.run([*cli, *arguments], input=stdin, capture_output=True, env=env, timeout=60, check=False)


def lamina(engine: Engine, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return run_cli(engine, LAMINA, *arguments, stdin=stdin)


def out(engine: Engine, *arguments: str, stdin: bytes = b"") -> str:
    done = lamina(engine, *arguments, stdin=stdin)
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stderr.decode()}"
    return done.stdout.decode().strip()


def on_terminal(engine: Engine, *arguments: str, size: tuple[int, int] = (24, 80)) -> pexpect.spawn[str]:
    env = engine.environment(LAMINA_HOST=engine.host, TERM="xterm")
    return pexpect.spawn(LAMINA[0], [*LAMINA[1:], *arguments], env=env, dimensions=size, encoding="utf-8", timeout=20)


@pytest.fixture(scope="module")
def peopled(module_engine: Engine) -> Iterator[Engine]:
    """An engine with a running container, an ended one with a volume, and some history."""
    engine = module_engine
    engine.docker("run", "-d", "--name", "up", "-l", "a=b", "-l", "c=d e", "busybox", "sleep", "600")
    said = engine.docker("run", "--name", "down", "--net", "none", "-v", "/data", "busybox", "sh", "-c",
                         "echo one; echo two >&2; echo x > /new; exit 3", check=False)  # fmt: skip
    assert said.returncode == 3
    yield engine
    engine.remove_containers()


SAME = [
    ["ps"], ["ps", "-a"], ["ps", "-aq"], ["ps", "-a", "--no-trunc"], ["ps", "-as"], ["ps", "-l"], ["ps", "-n", "1"],
    ["ps", "-f", "status=exited"], ["ps", "-f", "bogus=1"], ["ps", "-f", "bogus"], ["ps", "-a", "--format", "{{.Nope}}"],
    ["ps", "-a", "--format", "{{.Names}} {{.ID}} {{.Image}} {{.Command}} {{.Ports}} {{.State}} {{.Networks}} {{.Labels}} {{.Mounts}}"],
    ["ps", "-a", "--format", r"table {{.Names}}\t{{.Labels}}\t{{.CreatedAt}}"], ["ps", "-a", "--format", '{{.Label "a"}}|{{.Size}}'],
    ["images"], ["images", "-q"], ["images", "--digests"], ["images", "--no-trunc"], ["images", "busybox"], ["images", "none"],
    ["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}} {{.CreatedAt}} {{.CreatedSince}} {{.Digest}}"],
    ["image", "ls"], ["history", "busybox"], ["history", "--no-trunc", "busybox"], ["history", "-H=false", "busybox"],
    ["inspect", "up"], ["inspect", "up", "busybox", "bridge"], ["image", "inspect", "busybox"], ["inspect", "none"],
    ["inspect", "-f", "{{.State.Status}} {{.Name}} {{json .Config.Cmd}} {{.HostConfig.NetworkMode}}", "up"],
    ["inspect", "-f", "{{range .Mounts}}{{.Type}}:{{.Destination}} {{end}}", "down"],
    ["inspect", "-f", '{{index .Config.Labels "a"}} {{.Config.Labels.zz}}', "up"],
    ["inspect", "-f", '{{if .State.Running}}yes{{else}}no{{end}} {{len .Config.Env}} {{join .Config.Cmd ","}}', "up", "down"],
    ["inspect", "-f", "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}{{with .State}}{{.ExitCode}}{{end}}", "up"],
    ["inspect", "--type", "image", "up"], ["logs", "down"], ["logs", "-t", "down"], ["logs", "--tail", "1", "down"], ["logs", "none"],
    ["top", "up", "-o", "pid,ppid"], ["port", "up"], ["diff", "down"], ["wait", "down"], ["kill", "down"], ["attach", "down"],
    ["exec", "up", "echo", "hi"], ["exec", "up", "sh", "-c", "echo e >&2; exit 42"], ["exec", "up", "none"], ["exec", "up", "/etc"],
    ["exec", "down", "ls"], ["exec", "-w", "/tmp", "-e", "A=b", "-u", "nobody", "up", "sh", "-c", "pwd; echo $A; id"],
    ["volume", "ls"], ["volume", "ls", "-q"], ["volume", "inspect", "none"], ["network", "ls"], ["network", "ls", "--no-trunc"],
    ["network", "inspect", "bridge"], ["system", "df"], ["version", "-f", "{{.Server.Version}}"],
    ["info", "-f", "{{.Driver}} {{.Containers}}"], ["rename", "down", "up"], ["rm", "up"], ["rmi", "none"], ["tag", "busybox", "A:b"],
    ["events", "--since", "0", "--until", "1"],
    ["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"], ["run", "--rm", "busybox", "none"],
    ["run", "--rm", "busybox", "/etc"], ["run", "--rm", "busybox", "sh", "-c", "kill -9 $$"], ["run", "--rm", "--none", "busybox"],
    ["run", "--rm", "--net", "nowhere", "busybox"], ["run", "--memory", "lots", "busybox"], ["run"], ["create"], ["none"],
    ["run", "--rm", "--restart", "always", "busybox"], ["run", "-it", "--rm", "busybox", "true"], ["run", "--name", "up", "busybox"],
    ["run", "--rm=true", "--init=false", "-w", "/tmp", "-u", "1:2", "-h", "me", "busybox", "sh", "-c", "pwd; id -u; hostname"],
    ["run", "--rm", "busybox", "sh", "-c", "exec >&- 2>&-; sleep 1; exit 4"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", SAME, ids=" ".join)
def test_the_same_words_as_docker(peopled: Engine, arguments: list[str]) -> None:
    ours, theirs = lamina(peopled, *arguments), run_cli(peopled, [docker_cli()], *arguments)
    assert ours.returncode == theirs.returncode, ours.stderr.decode()
    # "3 seconds ago" may pass while the two run; a failed `inspect -f` of docker prints an empty line.
    assert _timeless(ours.stdout) == _timeless(theirs.stdout)
    if ours.returncode == 0 or arguments[0] in ("logs", "exec"):
        assert (ours.stderr == b"") == (theirs.stderr == b"")
    assert b"Traceback" not in ours.stderr


def _timeless(text: bytes) -> str:
    text = re.sub(rb"(CREATED|STATUS) +", rb"\1 ", text)
    return re.sub(r"\b(Up )?(\d+|About a|Less than a) (seconds?|minutes?)( ago)? *", "T ", text.decode())


@pytest.mark.parametrize(
    "arguments",
    [["ps", "-a", "--format", "json"], ["images", "--format", "json"], ["history", "--format", "{{json .}}", "busybox"],
     ["network", "ls", "--format", "json"], ["volume", "ls", "--format", "json"], ["system", "df", "--format", "json"]],
    ids=" ".join,
)  # fmt: skip
def test_json_rows_have_docker_s_fields(peopled: Engine, arguments: list[str]) -> None:
    ours = [json.loads(line) for line in lamina(peopled, *arguments).stdout.splitlines()]
    theirs = [json.loads(line) for line in run_cli(peopled, [docker_cli()], *arguments).stdout.splitlines()]
    assert len(ours) == len(theirs) > 0
    moving = {"RunningFor", "Status", "Platform", "Availability", "Group"}
    for mine, wanted in zip(ours, theirs, strict=True):
        shared = {key: value for key, value in wanted.items() if key in mine and key not in moving}
        assert {key: mine[key] for key in shared} == shared
        assert set(wanted) - set(mine) <= moving


def test_events_as_docker_tells_them(peopled: Engine) -> None:
    out(peopled, "run", "--rm", "busybox", "true")
    until = str(int(time.time()) + 1)
    for extra in (
        [],
        ["--format", "json"],
        ["-f", "event=die", "--format", "{{.Action}} {{.Actor.Attributes.exitCode}}"],
    ):
        arguments = ["events", "--since", "0", "--until", until, *extra]
        ours = lamina(peopled, *arguments).stdout
        assert ours
        assert ours == run_cli(peopled, [docker_cli()], *arguments).stdout


def test_streams_of_a_run(engine: Engine) -> None:
    done = lamina(engine, "run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo err >&2", stdin=b"x" * 300_000)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x" * 300_000, b"err\n")


def test_a_container_s_life(engine: Engine, tmp_path: Path) -> None:
    cid = tmp_path / "cid"
    identity = out(
        engine, "create", "-i", "--name", "life", "--cidfile", str(cid), "busybox", "sh", "-c", "cat; exit 5"
    )
    assert cid.read_text() == identity
    done = lamina(engine, "start", "-ai", "life", stdin=b"said")
    assert (done.returncode, done.stdout) == (5, b"said")
    assert out(engine, "logs", "life") == "said"
    assert lamina(engine, "create", "--cidfile", str(cid), "busybox").returncode == 1
    out(engine, "rename", "life", "after")
    assert out(engine, "ps", "-a", "--format", "{{.Names}}") == "after"
    out(engine, "start", "after")
    out(engine, "pause", "after")
    assert out(engine, "inspect", "-f", "{{.State.Status}}", "after") == "paused"
    out(engine, "unpause", "after")
    out(engine, "restart", "-t", "0", "after")
    assert out(engine, "stop", "-t", "0", "after") == "after"
    assert out(engine, "commit", "-m", "m", "-c", "ENV A=b", "after", "made:1").startswith("sha256:")
    assert out(engine, "image", "inspect", "-f", '{{.Comment}} {{join .Config.Env " "}}', "made:1").endswith("A=b")
    assert out(engine, "rm", "-f", "after") == "after"
    assert "Untagged: made:1" in out(engine, "rmi", "made:1")
    done = lamina(engine, "rm", "none", "other")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["lamina: No such container: none", "lamina: No such container: other"]


def test_archives_there_and_back(engine: Engine, tmp_path: Path) -> None:
    saved, tree = tmp_path / "saved.tar", tmp_path / "tree.tar"
    identity = out(engine, "image", "inspect", "-f", "{{.Id}}", "busybox")
    out(engine, "tag", "busybox", "kept:1")
    out(engine, "save", "-o", str(saved), "kept:1")
    out(engine, "rmi", "kept:1")
    assert out(engine, "load", "-i", str(saved)) == "Loaded image: kept:1"
    assert out(engine, "load", stdin=saved.read_bytes()) == "Loaded image: kept:1"
    assert out(engine, "image", "inspect", "-f", "{{.Id}}", "kept:1") == identity
    out(engine, "create", "--name", "tree", "busybox")
    out(engine, "export", "-o", str(tree), "tree")
    made = out(engine, "import", "-c", 'CMD ["/bin/echo","flat"]', "-m", "why", str(tree), "flat:1")
    assert made.startswith("sha256:")
    assert out(engine, "run", "--rm", "flat:1") == "flat"
    out(engine, "rmi", "kept:1", "flat:1")
    assert lamina(engine, "load", stdin=b"no archive").returncode == 1


def _tree(place: Path) -> list[tuple[str, int, bytes]]:
    return [
        (os.fspath(path.relative_to(place)), path.lstat().st_mode, _content(path)) for path in sorted(place.rglob("*"))
    ]


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize(
    ("source", "target"),
    [("/etc/passwd", "."), ("/etc/passwd", "new"), ("/etc/passwd", "file"), ("/etc/passwd", "none/"), ("/etc", "."), ("/etc", "new"),
     ("/etc/.", "dir"), ("/etc/.", "new"), ("/etc", "file"), ("/none", "."), ("/link", "."), ("/linked", "new"),
     ("/etc/passwd", "dir/"), ("/etc/passwd", "none/deep")],
)  # fmt: skip
def test_cp_out_as_docker_does_it(copied: Engine, tmp_path: Path, source: str, target: str) -> None:
    found = []
    for cli in (LAMINA, [docker_cli()]):
        place = tmp_path / cli[-1].rpartition("/")[2]
        (place / "dir").mkdir(parents=True)
        (place / "file").write_text("before")
        done = run_cli(copied, cli, "cp", f"box:{source}", f"{place}/{target}")
        found.append((done.returncode, _tree(place)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("source", "target"),
    [("file", "/t"), ("file", "/t/new"), ("file", "/t/none/"), ("file", "/t/none/x"), ("dir", "/t"), ("dir", "/t/new"), ("dir/.", "/t"),
     ("dir/.", "/t/new"), ("dir", "/t/f"), ("link", "/t"), ("none", "/t"), ("file", "/t/to-sub"), ("file", "/t/sub/"), ("file/", "/t")],
)  # fmt: skip
def test_cp_in_as_docker_does_it(copied: Engine, tmp_path: Path, source: str, target: str) -> None:
    (tmp_path / "dir/deep").mkdir(parents=True)
    (tmp_path / "dir/deep/x").write_text("x")
    (tmp_path / "file").write_text("y")
    (tmp_path / "link").symlink_to("file")
    found = []
    for cli in (LAMINA, [docker_cli()]):
        copied.docker("exec", "box", "sh", "-c", "rm -rf /t; mkdir -p /t/sub; touch /t/f; ln -s sub /t/to-sub")
        done = run_cli(copied, cli, "cp", f"{tmp_path}/{source}", f"box:{target}")
        tree = copied.out(
            "exec", "box", "sh", "-c", "cd /t; find . | sort | xargs ls -ldn; find . -type f | sort | xargs cat"
        )
        found.append((done.returncode, re.sub(r"\d\d:\d\d", "", tree)))
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def copied(module_engine: Engine) -> Iterator[Engine]:
    module_engine.docker("run", "-d", "--name", "box", "busybox", "sh", "-c",
                         "ln -s /etc/passwd /link; ln -s /etc /linked; sleep 600")  # fmt: skip
    yield module_engine
    module_engine.remove_containers()


def test_cp_of_archives_through_standard_streams(copied: Engine, tmp_path: Path) -> None:
    stream = lamina(copied, "cp", "box:/etc/passwd", "-").stdout
    (tmp_path / "a.tar").write_bytes(stream)
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getnames() == ["passwd"]
    out(copied, "cp", "-", "box:/tmp", stdin=stream)
    assert copied.out("exec", "box", "cat", "/tmp/passwd").startswith("root:")
    assert lamina(copied, "cp", "-", "box:/etc/passwd", stdin=stream).returncode == 1
    assert lamina(copied, "cp", "a", "b").returncode == 1


def test_volumes(engine: Engine) -> None:
    assert out(engine, "volume", "create", "--label", "a=b", "kept") == "kept"
    assert out(engine, "volume", "inspect", "-f", "{{.Labels.a}}", "kept") == "b"
    assert "kept" in out(engine, "volume", "ls", "-q").split()
    assert out(engine, "volume", "rm", "kept") == "kept"
    assert lamina(engine, "volume", "rm", "kept").returncode == 1


def test_signals_go_to_the_container(engine: Engine) -> None:
    script = "trap 'echo got; exit 9' TERM; echo ready; while true; do sleep 0.05; done"
    env = engine.environment(LAMINA_HOST=engine.host)
    with subprocess.Popen(
        [*LAMINA, "run", "--rm", "busybox", "sh", "-c", script], stdout=subprocess.PIPE, env=env
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        program.send_signal(signal.SIGTERM)
        assert program.stdout.read() == b"got\n"
        assert program.wait(20) == 9


def test_a_terminal_with_its_size_and_exit_code(engine: Engine) -> None:
    with on_terminal(engine, "run", "-it", "--rm", "busybox", "sh", size=(31, 93)) as child:
        child.expect("# ")
        child.sendline("stty size")
        child.expect("31 93")
        child.setwinsize(40, 111)
        child.sendline("until [ \"$(stty size)\" = '40 111' ]; do sleep 0.05; done; echo re''sized")
        child.expect("resized")
        child.sendline("exit 7")
        child.expect(pexpect.EOF)
    assert child.exitstatus == 7


def test_detach_and_attach_again(engine: Engine) -> None:
    with on_terminal(engine, "run", "-it", "--name", "shell", "busybox", "sh") as child:
        child.expect("# ")
        child.send("\x10\x11")
        child.expect(pexpect.EOF)
    assert child.exitstatus == 0
    assert out(engine, "inspect", "-f", "{{.State.Running}}", "shell") == "true"
    with on_terminal(engine, "attach", "--detach-keys", "ctrl-x,x", "shell") as child:
        child.sendline("echo back$((1+1))")
        child.expect("back2")
        child.send("\x18x")
        child.expect(pexpect.EOF)
    assert child.exitstatus == 0
    with on_terminal(engine, "exec", "-it", "shell", "sh", size=(33, 77)) as child:
        child.expect("# ")
        child.sendline("until [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; echo s''ized; exit 6")
        child.expect("sized")
        child.expect(pexpect.EOF)
    assert child.exitstatus == 6


def test_a_table_fits_the_terminal(engine: Engine) -> None:
    for name in ("one", "another-with-a-name-of-some-length"):
        engine.docker("create", "--name", name, "busybox", "echo", "many", "words", "that", "are", "long")
    with on_terminal(engine, "ps", "-a", size=(24, 60)) as child:
        child.expect(pexpect.EOF)
        assert child.before is not None
        lines = child.before.splitlines()
    assert len(lines) >= 3
    assert max(map(len, lines)) <= 60


def test_bars_on_a_terminal_and_lines_without(engine: Engine, tmp_path: Path) -> None:
    saved = tmp_path / "saved.tar"
    out(engine, "save", "-o", str(saved), "busybox")
    engine.docker("rmi", "busybox")
    shown = io.StringIO()
    with on_terminal(engine, "load", "-i", str(saved)) as child:
        child.logfile_read = shown
        child.expect("Loaded image: busybox:latest")
        child.expect(pexpect.EOF)
    assert child.exitstatus == 0
    assert "━" in shown.getvalue()
    engine.docker("rmi", "busybox")
    done = lamina(engine, "load", "-i", str(saved))
    assert b"\x1b" not in done.stdout
    assert done.stdout.splitlines()[-1] == b"Loaded image: busybox:latest"


def test_names_and_labels_cannot_move_the_terminal(engine: Engine) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jx"
    engine.docker("create", "--name", "evil", "-l", f"evil={evil}", "busybox", f"{evil}\r")
    for arguments in (["ps", "-a"], ["ps", "-a", "--no-trunc"], ["ps", "-a", "--format", "{{.Labels}}{{.Command}}"],
                      ["inspect", "evil"], ["inspect", "-f", "{{.Config.Labels}}", "evil"], ["ps", "-a", "--format", "json"],
                      ["events", "--since", "0", "--until", str(int(time.time()) + 1)], ["run", "-it", evil]):  # fmt: skip
        done = lamina(engine, *arguments)
        assert b"\x1b" not in done.stdout + done.stderr, arguments
        assert b"\x07" not in done.stdout + done.stderr, arguments
    engine.docker("rm", "evil")
