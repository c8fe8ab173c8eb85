"""Docker's way with switches, filters, variables and times."""

from __future__ import annotations

import time
from pathlib import Path

import click
import pytest

from lamina.cli.commands.run import request_body, run
from lamina.cli.environment import environment
from lamina.cli.filters import as_filters
from lamina.cli.grammar import plain_switches
from lamina.cli.times import as_unix_time
from lamina.errors import InvalidArgument


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (["--rm=true", "busybox"], ["--rm", "busybox"]),
        (["--rm=false", "busybox"], ["busybox"]),
        (["--sig-proxy=false", "-it", "busybox"], ["--no-sig-proxy", "-it", "busybox"]),
        (["--name", "--rm=true", "busybox"], ["--name", "--rm=true", "busybox"]),
        (["-e", "--rm=true", "busybox"], ["-e", "--rm=true", "busybox"]),
        (["-itw", "--rm=true", "busybox"], ["-itw", "--rm=true", "busybox"]),
        (["-eA=1", "--rm=1", "busybox"], ["-eA=1", "--rm", "busybox"]),
        (["busybox", "--rm=true"], ["busybox", "--rm=true"]),
        (["--", "--rm=true"], ["--", "--rm=true"]),
    ],
)
def test_switches_with_values(given: list[str], plain: list[str]) -> None:
    assert plain_switches(run, given) == plain


def test_a_switch_takes_no_other_value() -> None:
    with pytest.raises(click.BadParameter, match="maybe"):
        plain_switches(run, ["--rm=maybe", "busybox"])


def test_filters() -> None:
    assert as_filters([]) is None
    assert as_filters(["label=a=b", "label=c", "Status=exited"]) == {"label": ["a=b", "c"], "status": ["exited"]}
    with pytest.raises(click.BadParameter):
        as_filters(["exited"])


def test_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "1")
    monkeypatch.delenv("AWAY", raising=False)
    file = tmp_path / "env"
    file.write_text("# said\n\n  FROM=file x\nHERE\nAWAY\n")
    assert environment(["A=b", "HERE", "AWAY"], [str(file)]) == ["FROM=file x", "HERE=1", "A=b", "HERE=1"]
    file.write_text("WITH SPACE=1\n")
    with pytest.raises(InvalidArgument, match="WITH SPACE"):
        environment([], [str(file)])
    with pytest.raises(InvalidArgument, match="no such file"):
        environment([], [str(tmp_path / "none")])
    file.write_bytes(b"A=\xff\n")
    with pytest.raises(InvalidArgument, match="UTF-8"):
        environment([], [str(file)])


def test_times() -> None:
    assert as_unix_time(None) is None
    assert as_unix_time("1700000000.5") == "1700000000.5"
    assert as_unix_time("2026-01-31T10:00:00Z") == "1769853600.000000000"
    ago = as_unix_time("1h30m")
    assert ago is not None
    assert abs(time.time() - 5400 - float(ago)) < 60
    with pytest.raises(InvalidArgument, match="soon"):
        as_unix_time("soon")


def body(*arguments: str) -> dict[str, object]:
    """The request that a command line of `run` makes."""
    with run.make_context("run", list(arguments)) as context:
        flags = {
            key: value for key, value in context.params.items() if key not in ("detach", "detach_keys", "sig_proxy")
        }
        return request_body(flags, detached=context.params["detach"])


def host_config(*arguments: str) -> dict[str, object]:
    found = body(*arguments, "busybox")["HostConfig"]
    assert isinstance(found, dict)
    return found


def test_the_words_after_the_image_are_the_command() -> None:
    found = body("-e", "A=1", "--entrypoint", "", "busybox", "sh", "-c", "--name x")
    assert found["Cmd"] == ["sh", "-c", "--name x"]
    assert found["Entrypoint"] == [""]
    assert found["Env"] == ["A=1"]
    assert (found["AttachStdin"], found["AttachStdout"], found["AttachStderr"]) == (False, True, True)


def test_detached_and_interactive_streams() -> None:
    detached = body("-di", "busybox")
    assert (detached["OpenStdin"], detached["StdinOnce"], detached["AttachStdout"]) == (True, False, False)
    foreground = body("-i", "busybox")
    assert (foreground["OpenStdin"], foreground["StdinOnce"], foreground["AttachStdin"]) == (True, True, True)


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["-m", "64m"], "Memory", 64 << 20),
        (["--memory-swap", "-1"], "MemorySwap", -1),
        (["--cpus", "0.5"], "NanoCpus", 500_000_000),
        (["-p", "127.0.0.1:8080:80"], "PortBindings", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}),
        (["-p", "53:53/udp"], "PortBindings", {"53/udp": [{"HostIp": "", "HostPort": "53"}]}),
        (["--restart", "on-failure:3"], "RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
        (["--ulimit", "nofile=10:20"], "Ulimits", [{"Name": "nofile", "Soft": 10, "Hard": 20}]),
        (["--tmpfs", "/run:size=1m"], "Tmpfs", {"/run": "size=1m"}),
        (["--device", "/dev/null:/dev/x:r"], "Devices",
         [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]),
        (["--mount", 'type=bind,"source=/a b",target=/c,readonly'], "Mounts",
         [{"Type": "bind", "Source": "/a b", "Target": "/c", "ReadOnly": True}]),
        (["-v", "data:/data:ro"], "Binds", ["data:/data:ro"]),
        (["--net", "none"], "NetworkMode", "none"),
    ],
)  # fmt: skip
def test_flags_of_the_host_config(arguments: list[str], key: str, value: object) -> None:
    assert host_config(*arguments)[key] == value


@pytest.mark.parametrize(
    "arguments",
    [["-m", "lots"], ["--ulimit", "nofile"], ["--restart", "on-failure:x"], ["--mount", "type=bind,what=x"]],
)
def test_flags_that_make_no_sense_are_told(arguments: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        host_config(*arguments)
