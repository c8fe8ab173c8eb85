"""`network ls`, `inspect`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from lamina.cli import tables
from lamina.cli.client import Client
from lamina.cli.commands.look import inspector, show_objects
from lamina.cli.filters import as_filters
from lamina.cli.templates import show
from lamina.cli.terminal import width


def _columns(*, full: bool) -> tables.Columns:
    return {
        "ID": ("NETWORK ID", lambda n: n["Id"] if full else tables.short_id(n["Id"])),
        "Name": ("NAME", lambda n: n["Name"]),
        "Driver": ("DRIVER", lambda n: n["Driver"]),
        "Scope": ("SCOPE", lambda n: n["Scope"]),
        "IPv4": ("IPV4", lambda n: show(n.get("EnableIPv4", True))),
        "IPv6": ("IPV6", lambda n: show(n["EnableIPv6"])),
        "Internal": ("INTERNAL", lambda n: show(n["Internal"])),
        "Labels": ("LABELS", lambda n: tables.pairs(n.get("Labels"))),
        "CreatedAt": ("CREATED AT", lambda n: tables.go_time(n["Created"])),
    }


@click.command("ls")
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE")
@click.option("--format", "template", metavar="table|json|TEMPLATE")
@click.option("--no-trunc", is_flag=True)
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.pass_obj
def ls(client: Client, filters: Sequence[str], template: str | None, *, no_trunc: bool, quiet: bool) -> None:
    """List networks.

    \b
    lamina network ls
    lamina network ls -f driver=bridge --format '{{.Name}}'
    """
    found = client.call("GET", "/networks", query={"filters": as_filters(filters)})
    found.sort(key=lambda network: str(network["Name"]))
    columns = _columns(full=no_trunc)
    if quiet and not template:
        for network in found:
            click.echo(columns["ID"][1](network))
        return
    shown = ["ID", "Name", "Driver", "Scope"]
    for line in tables.listing(found, columns, shown, template=template, width=0 if no_trunc else width()):
        click.echo(line)


@click.command("inspect")
@click.option("-f", "--format", "template", metavar="json|TEMPLATE")
@click.argument("names", nargs=-1, required=True, metavar="NETWORK...")
@click.pass_obj
def inspect(client: Client, names: Sequence[str], template: str | None) -> int:
    """Show everything about networks.

    \b
    lamina network inspect -f '{{json .IPAM.Config}}' bridge
    """
    return show_objects(names, inspector(client, "network"), template)


COMMANDS: dict[str, click.Command] = {"ls": ls, "inspect": inspect}
