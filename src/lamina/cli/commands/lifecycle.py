"""`stop`, `kill`, `restart`, `pause`, `unpause`, `wait`, `rm`, `rename`: one request per container named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote

import click

from lamina.cli.client import Client
from lamina.cli.main import complain
from lamina.errors import LaminaError


def each(names: Sequence[str], action: Callable[[str], str | None]) -> int:
    """Do it for every name; what worked is printed, what did not is told, and the exit code says so."""
    status = 0
    for name in names:
        try:
            said = action(quote(name, safe=""))
        except LaminaError as error:
            complain(error)
            status = 1
        else:
            click.echo(name if said is None else said)
    return status


def post_each(client: Client, verb: str, names: Sequence[str], **query: object) -> int:
    """POST a verb to every container."""

    def action(name: str) -> None:
        client.request("POST", f"/containers/{name}/{verb}", query=query).read()

    return each(names, action)


_NAMES = click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")


@click.command("stop")
@click.option("-t", "--time", "--timeout", "seconds", type=int, help="Before it is killed.")
@click.option("-s", "--signal")
@_NAMES
@click.pass_obj
def stop(client: Client, names: Sequence[str], seconds: int | None, signal: str | None) -> int:
    """Ask containers to end; kill them when they do not.

    \b
    lamina stop -t 2 web
    """
    return post_each(client, "stop", names, t=seconds, signal=signal)


@click.command("restart")
@click.option("-t", "--time", "--timeout", "seconds", type=int)
@click.option("-s", "--signal")
@_NAMES
@click.pass_obj
def restart(client: Client, names: Sequence[str], seconds: int | None, signal: str | None) -> int:
    """Stop containers and start them again.

    \b
    lamina restart web
    """
    return post_each(client, "restart", names, t=seconds, signal=signal)


@click.command("kill")
@click.option("-s", "--signal", default="KILL", show_default=True)
@_NAMES
@click.pass_obj
def kill(client: Client, names: Sequence[str], signal: str) -> int:
    """Send a signal to the first process of containers.

    \b
    lamina kill -s HUP web
    """
    return post_each(client, "kill", names, signal=signal)


@click.command("pause")
@_NAMES
@click.pass_obj
def pause(client: Client, names: Sequence[str]) -> int:
    """Freeze every process of containers.

    \b
    lamina pause web
    """
    return post_each(client, "pause", names)


@click.command("unpause")
@_NAMES
@click.pass_obj
def unpause(client: Client, names: Sequence[str]) -> int:
    """Let frozen containers go on.

    \b
    lamina unpause web
    """
    return post_each(client, "unpause", names)


@click.command("wait")
@_NAMES
@click.pass_obj
def wait(client: Client, names: Sequence[str]) -> int:
    """Wait until containers end, and print their exit codes.

    \b
    lamina wait job
    """
    return each(names, lambda name: str(client.call("POST", f"/containers/{name}/wait")["StatusCode"]))


@click.command("rm")
@click.option("-f", "--force", is_flag=True, help="Kill it first if it runs.")
@click.option("-v", "--volumes", is_flag=True, help="Also its anonymous volumes.")
@_NAMES
@click.pass_obj
def rm(client: Client, names: Sequence[str], *, force: bool, volumes: bool) -> int:
    """Remove containers.

    \b
    lamina rm -fv $(lamina ps -aq)
    """

    def action(name: str) -> None:
        client.request("DELETE", f"/containers/{name}", query={"force": force, "v": volumes}).read()

    return each(names, action)


@click.command("rename")
@click.argument("container")
@click.argument("name")
@click.pass_obj
def rename(client: Client, container: str, name: str) -> None:
    """Give a container another name.

    \b
    lamina rename web web-old
    """
    client.request("POST", f"/containers/{quote(container, safe='')}/rename", query={"name": name}).read()


COMMANDS = {command.name or "": command for command in (stop, restart, kill, pause, unpause, wait, rm, rename)}
