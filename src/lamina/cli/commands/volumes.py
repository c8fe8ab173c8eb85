"""`volume ls`, `inspect`, `create`, `rm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import click

from lamina.cli import tables
from lamina.cli.client import Client
from lamina.cli.commands.lifecycle import each
from lamina.cli.commands.look import inspector, show_objects
from lamina.cli.filters import as_filters
from lamina.cli.terminal import width

COLUMNS: tables.Columns = {
    "Driver": ("DRIVER", lambda v: v["Driver"]),
    "Name": ("VOLUME NAME", lambda v: v["Name"]),
    "Scope": ("SCOPE", lambda v: v["Scope"]),
    "Mountpoint": ("MOUNTPOINT", lambda v: v["Mountpoint"]),
    "Labels": ("LABELS", lambda v: tables.pairs(v.get("Labels"))),
    "Links": ("LINKS", lambda v: str((v.get("UsageData") or {}).get("RefCount", "N/A"))),
    "Size": ("SIZE", lambda v: tables.size(v["UsageData"]["Size"]) if v.get("UsageData") else "N/A"),
}


@click.command("ls")
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE")
@click.option("--format", "template", metavar="table|json|TEMPLATE")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.pass_obj
def ls(client: Client, filters: Sequence[str], template: str | None, *, quiet: bool) -> None:
    """List volumes.

    \b
    lamina volume ls
    lamina volume ls -q -f dangling=true
    """
    answer = client.call("GET", "/volumes", query={"filters": as_filters(filters)})
    found = sorted(answer.get("Volumes") or (), key=lambda volume: str(volume["Name"]))
    if quiet and not template:
        for volume in found:
            click.echo(tables.harmless(volume["Name"]))
        return
    for line in tables.listing(found, COLUMNS, ["Driver", "Name"], template=template, width=width()):
        click.echo(line)


@click.command("inspect")
@click.option("-f", "--format", "template", metavar="json|TEMPLATE")
@click.argument("names", nargs=-1, required=True, metavar="VOLUME...")
@click.pass_obj
def inspect(client: Client, names: Sequence[str], template: str | None) -> int:
    """Show everything about volumes.

    \b
    lamina volume inspect -f '{{.Mountpoint}}' data
    """
    return show_objects(names, inspector(client, "volume"), template)


@click.command("create")
@click.option("-d", "--driver", default="local", show_default=True)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE")
@click.option("-o", "--opt", "options", multiple=True, metavar="NAME=VALUE")
@click.argument("name", required=False)
@click.pass_obj
def create(client: Client, name: str | None, driver: str, labels: Sequence[str], options: Sequence[str]) -> None:
    """Create a volume; without a name it gets a random one.

    \b
    lamina volume create --label team=db data
    """
    body: dict[str, Any] = {"Driver": driver, "DriverOpts": _pairs(options), "Labels": _pairs(labels)}
    if name:
        body["Name"] = name
    click.echo(client.call("POST", "/volumes/create", body=body)["Name"])


def _pairs(entries: Sequence[str]) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in entries)


@click.command("rm")
@click.option("-f", "--force", is_flag=True)
@click.argument("names", nargs=-1, required=True, metavar="VOLUME...")
@click.pass_obj
def rm(client: Client, names: Sequence[str], *, force: bool) -> int:
    """Remove volumes that no container uses.

    \b
    lamina volume rm data
    """

    def action(name: str) -> None:
        client.request("DELETE", f"/volumes/{quote(name, safe='%')}", query={"force": force}).read()

    return each(names, action)


COMMANDS: dict[str, click.Command] = {"ls": ls, "inspect": inspect, "create": create, "rm": rm}
