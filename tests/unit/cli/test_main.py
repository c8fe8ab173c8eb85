"""Every command explains itself; the program starts fast and fails in words."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lamina.cli.client import Client
from lamina.cli.main import build
from lamina.errors import Conflict, InvalidArgument, LaminaError, NotFound, Unavailable

HEAVY = {"rich", "aiohttp", "asyncio", "pyroute2", "tarfile", "multiprocessing"}


def lamina(
    *arguments: str, host: str = "unix:///nowhere/s.sock", flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LAMINA_HOST": host}
    argv = [sys.executable, *flags, "-m", "lamina", *arguments]
    return subprocess.run(
        argv, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, timeout=60, check=False
    )


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = list(commands(build()))


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_help_has_a_sentence_and_an_example(path: tuple[str, ...], command: click.Command) -> None:
    text = command.help or ""
    assert re.match(r"[A-Z].*[.:]", text)
    assert re.search(r"^\s*(\S.* \| )?lamina ", text, re.MULTILINE), f"{path} has no example"
    with command.make_context(path[-1], [], resilient_parsing=True) as context:
        assert "Usage:" in command.get_help(context)


def test_the_commands_of_issue_2_are_there() -> None:
    names = {" ".join(path) for path, _ in ALL}
    top = [
        "attach",
        "commit",
        "cp",
        "create",
        "diff",
        "events",
        "exec",
        "export",
        "history",
        "images",
        "import",
        "info",
        "inspect",
        "kill",
        "load",
        "logs",
        "pause",
        "port",
        "ps",
        "pull",
        "push",
        "rename",
        "restart",
        "rm",
        "rmi",
        "run",
        "save",
        "start",
        "stop",
        "tag",
        "top",
        "unpause",
        "version",
        "wait",
        "completion",
    ]
    assert names >= {*top, "image ls", "image rm", "image inspect", "container ls", "container rm", "volume ls",
                     "network ls", "system df", "registry serve"}  # fmt: skip


def test_the_help_of_the_program_names_every_command() -> None:
    said = lamina("--help").stdout
    for path, _ in ALL:
        assert re.search(rf"^  {path[0]} ", said, re.MULTILINE), path[0]
    assert re.search(r"^  daemon ", said, re.MULTILINE)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """A daemon that has no containers; and the requests that came."""
    path = tmp_path / "s"
    seen: list[bytes] = []
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.fspath(path))
    server.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                request = connection.recv(65536)
                seen.append(request)
                body = b"" if request.startswith(b"HEAD") else ANSWERS.get(request.split()[1].partition(b"?")[0], b"[]")
                status = (
                    b"409 Conflict" if b"conflict" in request else b"404 Not Found" if b"none" in request else b"200 OK"
                )
                connection.sendall(
                    b"HTTP/1.1 %b\r\nApi-Version: 1.47\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
                )

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"unix://{path}", seen
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


ANSWERS = {
    b"/v1.47/containers/none/json": b'{"message":"No such container: none"}',
    b"/v1.47/containers/conflict/kill": b'{"message":"it \\u001b[31mdoes not run"}',
    b"/v1.47/broken": b"{",
}


def test_ps_imports_nothing_heavy(daemon: tuple[str, list[bytes]]) -> None:
    host, _ = daemon
    done = lamina("ps", host=host, flags=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CONTAINER ID")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "lamina" in imported
    assert imported & HEAVY == set()


def test_the_client_speaks_the_version_both_know(daemon: tuple[str, list[bytes]]) -> None:
    host, seen = daemon
    query = {"all": True, "size": False, "limit": None, "names": ["a", "b"], "filters": {"x": ["y"]}}
    assert Client(host, {}).call("GET", "/containers/json", query=query) == []
    assert seen[-1].startswith(
        b"GET /v1.47/containers/json?all=1&names=a&names=b&filters=%7B%22x%22%3A+%5B%22y%22%5D%7D HTTP/1.1\r\n"
    )


def test_refusals_become_errors_by_category(daemon: tuple[str, list[bytes]]) -> None:
    client = Client(daemon[0], {})
    with pytest.raises(NotFound, match="No such container: none"):
        client.call("GET", "/containers/none/json")
    with pytest.raises(Conflict):
        client.call("POST", "/containers/conflict/kill")
    with pytest.raises(LaminaError, match="no JSON"):
        client.call("GET", "/broken")


def test_what_the_daemon_says_does_not_move_the_terminal(daemon: tuple[str, list[bytes]]) -> None:
    done = lamina("kill", "conflict", host=daemon[0])
    assert (done.returncode, done.stderr) == (1, "lamina: it \\x1b[31mdoes not run\n")


def test_no_daemon_is_one_sentence_and_the_next_command() -> None:
    done = lamina("ps")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "lamina: Cannot connect to the daemon at unix:///nowhere/s.sock. Is it running?",
        "  start it with `lamina daemon`, or point LAMINA_HOST (or DOCKER_HOST) at it",
    ]
    assert lamina("run", "busybox").returncode == 125


@pytest.mark.parametrize("host", ["nowhere", "http://x", "tcp://x", "tcp://:1", "tcp://x:y"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(InvalidArgument):
        Client(host, {}).call("GET", "/info")


def test_a_tcp_host_that_does_not_answer() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable):
            Client(f"tcp://127.0.0.1:{taken.getsockname()[1]}", {}).call("GET", "/info")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nonsense"], 1, "No such command 'nonsense'"),
        (["ps", "--nonsense"], 125, "No such option '--nonsense'"),
        (["ps", "-f", "x"], 125, "NAME=VALUE"),
        (["ps", "extra"], 1, "unexpected extra argument"),
        (["rm"], 1, "Missing argument"),
        (["run"], 1, "Missing argument"),
        (["run", "--cpus", "x", "busybox"], 125, "not a valid float"),
        (["run", "-it", "busybox"], 1, "not a TTY"),
        (["run", "--rm=maybe", "busybox"], 125, "maybe"),
        (["load", "-i", "/nowhere"], 1, "no such file"),
        (["registry", "serve", "--root", "/tmp", "--listen", "x"], 1, "no address"),
    ],
)  # fmt: skip
def test_wrong_command_lines(arguments: list[str], status: int, said: str) -> None:
    done = lamina(*arguments)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("lamina: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = lamina("completion", shell)
    assert done.returncode == 0
    assert "_LAMINA_COMPLETE" in done.stdout


def test_completion_completes() -> None:
    env = {**os.environ, "_LAMINA_COMPLETE": "bash_complete", "COMP_WORDS": "lamina image in", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-m", "lamina"], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.splitlines() == ["plain,inspect"]
