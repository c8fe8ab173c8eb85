"""`inspect`, `image inspect`, `diff`, `top`, `port`: looking at one object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import click

from lamina.cli import tables
from lamina.cli.client import Client
from lamina.cli.main import complain
from lamina.cli.terminal import width
from lamina.errors import LaminaError, NotFound

_KINDS = {"container": "/containers/{}/json", "image": "/images/{}/json", "network": "/networks/{}",
          "volume": "/volumes/{}"}  # fmt: skip
"""What `inspect` tries, in this order."""

_TOP_LEAST = 17
"""Columns of `top` are wider than those of other tables, as docker's are."""

_CHANGES = "CAD"
"""Letters of the API's change kinds 0, 1, 2: changed, added, deleted."""


def show_objects(names: Sequence[str], find: Callable[[str], Any], template: str | None) -> int:
    """Print what `find` gives for every name, as one JSON list or by a template; tell what was not found."""
    status = 0
    found: list[Any] = []
    failures: list[LaminaError] = []
    for name in names:
        try:
            value = find(name)
        except LaminaError as error:
            failures.append(error)
            status = 1
            continue
        if template and template != "json":
            click.echo(tables.formatted(value, template))
        else:
            found.append(value)
    if template == "json":
        click.echo(tables.json_text(found))
    elif not template:
        click.echo(tables.json_text(found, indent=4))
    for failure in failures:
        complain(failure)
    return status


def inspector(client: Client, kind: str, *, size: bool = False) -> Callable[[str], Any]:
    """How one kind of object is asked for by name."""

    def find(name: str) -> Any:
        query = {"size": True} if size and kind == "container" else None
        return client.call("GET", _KINDS[kind].format(quote(name, safe="")), query=query)

    return find


_FORMAT = click.option("-f", "--format", "template", metavar="json|TEMPLATE", help="Such as '{{.State.Status}}'.")


@click.command("inspect")
@_FORMAT
@click.option("-s", "--size", is_flag=True, help="Add the sizes of containers.")
@click.option("--type", "kind", type=click.Choice(sorted(_KINDS)))
@click.argument("names", nargs=-1, required=True, metavar="NAME|ID...")
@click.pass_obj
def inspect(client: Client, names: Sequence[str], template: str | None, kind: str | None, *, size: bool) -> int:
    """Show everything about containers, images, networks or volumes.

    \b
    lamina inspect web
    lamina inspect -f '{{.State.Pid}} {{json .Mounts}}' web
    lamina inspect --type image alpine
    """

    def find(name: str) -> Any:
        for one in [kind] if kind else _KINDS:
            try:
                return inspector(client, one, size=size)(name)
            except NotFound:
                continue
        raise NotFound(f"No such {kind or 'object'}: {name}")

    return show_objects(names, find, template)


@click.command("inspect")
@_FORMAT
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.pass_obj
def inspect_image(client: Client, names: Sequence[str], template: str | None) -> int:
    """Show everything about images.

    \b
    lamina image inspect alpine
    lamina image inspect -f '{{json .RootFS.Layers}}' alpine
    """
    return show_objects(names, inspector(client, "image"), template)


@click.command("diff")
@click.argument("container")
@click.pass_obj
def diff(client: Client, container: str) -> None:
    """Show what a container changed in its files: A added, C changed, D deleted.

    \b
    lamina diff web
    """
    for change in client.call("GET", f"/containers/{quote(container, safe='')}/changes") or ():
        click.echo(f"{_CHANGES[change['Kind']]} {tables.harmless(change['Path'])}")


@click.command("top", context_settings={"allow_interspersed_args": False})
@click.argument("container")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[PS OPTIONS]")
@click.pass_obj
def top(client: Client, container: str, options: Sequence[str]) -> None:
    """List the processes of a container.

    \b
    lamina top web
    lamina top web -o pid,comm
    """
    query = {"ps_args": " ".join(options) or None}
    found = client.call("GET", f"/containers/{quote(container, safe='')}/top", query=query)
    for line in tables.table(found["Titles"], found["Processes"] or (), width(), least=_TOP_LEAST):
        click.echo(line)


@click.command("port")
@click.argument("container")
@click.argument("port", required=False, metavar="[PORT[/PROTOCOL]]")
@click.pass_obj
def port(client: Client, container: str, port: str | None) -> None:
    """List the published ports of a container.

    \b
    lamina port web
    lamina port web 80/tcp
    """
    details = client.call("GET", f"/containers/{quote(container, safe='')}/json")
    published = (details.get("NetworkSettings") or {}).get("Ports") or {}
    wanted = None if port is None else port if "/" in port else f"{port}/tcp"
    if wanted is not None and not published.get(wanted):
        raise NotFound(f"No public port '{wanted}' published for {container}")
    for inside, places in sorted(published.items()):
        for place in places or () if wanted in (None, inside) else ():
            outside = f"{place.get('HostIp', '')}:{place.get('HostPort', '')}"
            click.echo(tables.harmless(outside if wanted else f"{inside} -> {outside}"))


COMMANDS: dict[str, click.Command] = {
    "inspect": inspect,
    "image inspect": inspect_image,
    "diff": diff,
    "top": top,
    "port": port,
}
