"""`start`, `attach`, `exec`, `logs`: what moves a container's streams."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import click

from lamina.cli import exit_codes, streaming
from lamina.cli.client import Client
from lamina.cli.commands.lifecycle import post_each
from lamina.cli.environment import environment
from lamina.cli.main import complain
from lamina.errors import InvalidArgument, LaminaError

_FRAME = struct.Struct(">BxxxI")


@click.command("start")
@click.option("-a", "--attach", "attaches", is_flag=True, help="Show its output and pass signals on.")
@click.option("-i", "--interactive", is_flag=True)
@click.option("--detach-keys", metavar="KEYS")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.pass_obj
def start(client: Client, names: Sequence[str], detach_keys: str | None, *, attaches: bool, interactive: bool) -> int:
    """Start containers that were created or have ended.

    \b
    lamina start web
    lamina start -ai shell
    """
    if not attaches and not interactive:
        return post_each(client, "start", names)
    if len(names) > 1:
        raise InvalidArgument("you cannot start and attach multiple containers at once")
    try:
        details = client.call("GET", f"/containers/{quote(names[0], safe='')}/json")
        tty = details["Config"]["Tty"]
        wanted = streaming.Attached(
            interactive and details["Config"]["OpenStdin"],
            stdout=True,
            stderr=True,
            tty=tty,
            detach_keys=detach_keys or "",
        )
        removes = bool(details["HostConfig"].get("AutoRemove"))
        return streaming.run(client, details["Id"], wanted, removes=removes, proxies=not tty)
    except LaminaError as error:
        complain(error)
        return exit_codes.FAILURE


@click.command("attach")
@click.option("--detach-keys", metavar="KEYS")
@click.option("--no-stdin", is_flag=True)
@click.option("--sig-proxy/--no-sig-proxy", default=True)
@click.argument("container")
@click.pass_obj
def attach(client: Client, container: str, detach_keys: str | None, *, no_stdin: bool, sig_proxy: bool) -> int:
    """Attach to the streams of a running container; ctrl-p ctrl-q lets go of a terminal.

    \b
    lamina attach shell
    """
    details = client.call("GET", f"/containers/{quote(container, safe='')}/json")
    if not details["State"]["Running"]:
        raise InvalidArgument(
            "you cannot attach to a stopped container, start it first", hint=f"lamina start -ai {container}"
        )
    tty = details["Config"]["Tty"]
    stdin = details["Config"]["OpenStdin"] and not no_stdin
    wanted = streaming.Attached(stdin, stdout=True, stderr=True, tty=tty, detach_keys=detach_keys or "")
    return streaming.attach(client, details["Id"], wanted, proxies=sig_proxy and not tty)


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True)
@click.option("--detach-keys", metavar="KEYS")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE")
@click.option("--env-file", multiple=True, metavar="FILE")
@click.option("-i", "--interactive", is_flag=True)
@click.option("--privileged", is_flag=True)
@click.option("-t", "--tty", is_flag=True)
@click.option("-u", "--user")
@click.option("-w", "--workdir")
@click.argument("container")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGUMENT...]")
@click.pass_obj
def execute(client: Client, /, container: str, words: Sequence[str], **flags: Any) -> int:
    """Run one more command in a running container.

    \b
    lamina exec -it web sh
    lamina exec -u nobody -w /tmp web ls
    """
    body = {
        "Cmd": list(words),
        "AttachStdin": flags["interactive"] and not flags["detach"],
        "AttachStdout": not flags["detach"],
        "AttachStderr": not flags["detach"],
        "Tty": flags["tty"],
        "Env": environment(flags["env"], flags["env_file"]),
        "User": flags["user"] or "",
        "WorkingDir": flags["workdir"] or "",
        "Privileged": flags["privileged"],
        "DetachKeys": flags["detach_keys"] or "",
    }
    try:
        if not flags["detach"]:
            streaming.require_terminal(tty=flags["tty"], stdin=flags["interactive"])
        exec_id = client.call("POST", f"/containers/{quote(container, safe='')}/exec", body=body)["Id"]
        if flags["detach"]:
            client.request("POST", f"/exec/{exec_id}/start", body={"Detach": True, "Tty": flags["tty"]}).read()
            return 0
        return streaming.exec_(
            client, exec_id, streaming.Attached(flags["interactive"], stdout=True, stderr=True, tty=flags["tty"])
        )
    except LaminaError as error:
        complain(error)
        found = exit_codes.of_start(error)
        return exit_codes.FAILURE if found == exit_codes.ENGINE_FAILED else found


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on as it writes.")
@click.option("--since", metavar="TIME")
@click.option("--until", metavar="TIME")
@click.option("-n", "--tail", metavar="LINES", default="all")
@click.option("-t", "--timestamps", is_flag=True)
@click.option("--details", is_flag=True)
@click.argument("container")
@click.pass_obj
def logs(client: Client, /, container: str, **flags: Any) -> None:
    """Show what a container wrote.

    \b
    lamina logs -f --tail 20 web
    lamina logs --since 10m web
    """
    from lamina.cli.times import as_unix_time

    name = quote(container, safe="")
    tty = client.call("GET", f"/containers/{name}/json")["Config"]["Tty"]
    query = {
        "stdout": True, "stderr": True, "follow": flags["follow"], "timestamps": flags["timestamps"],
        "tail": flags["tail"], "details": flags["details"],
        "since": as_unix_time(flags["since"]), "until": as_unix_time(flags["until"]),
    }  # fmt: skip
    response = client.request("GET", f"/containers/{name}/logs", query=query)
    if tty:
        while data := response.read1(65536):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return
    while head := response.read(_FRAME.size):
        stream, length = _FRAME.unpack(head)
        out = sys.stderr.buffer if stream == 2 else sys.stdout.buffer
        out.write(response.read(length))
        out.flush()


COMMANDS = {"start": start, "attach": attach, "exec": execute, "logs": logs}
