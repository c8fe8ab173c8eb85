"""`ps`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from lamina.cli import tables
from lamina.cli.client import Client
from lamina.cli.filters import as_filters
from lamina.cli.terminal import width

_COMMAND_WIDTH = 20
_MOUNT_WIDTH = 15


def columns(*, full: bool) -> tables.Columns:
    cut = (lambda text, limit: text) if full else tables.ellipsis
    return {
        "ID": ("CONTAINER ID", lambda c: c["Id"] if full else tables.short_id(c["Id"])),
        "Image": (
            "IMAGE",
            lambda c: tables.short_id(c["Image"]) if c["Image"].startswith("sha256:") and not full else c["Image"],
        ),
        "Command": ("COMMAND", lambda c: '"' + cut(c["Command"], _COMMAND_WIDTH) + '"'),
        "RunningFor": ("CREATED", lambda c: tables.ago(c["Created"], time.time())),
        "CreatedAt": ("CREATED AT", lambda c: tables.local_time(c["Created"])),
        "Status": ("STATUS", lambda c: c["Status"]),
        "State": ("STATE", lambda c: c["State"]),
        "Ports": ("PORTS", lambda c: ", ".join(sorted(_port(port) for port in c.get("Ports") or ()))),
        "Names": ("NAMES", lambda c: ",".join(name.removeprefix("/") for name in c["Names"] if name.count("/") == 1)),
        "Size": ("SIZE", _size),
        "Labels": (
            "LABELS",
            lambda c: tables.pairs(c.get("Labels")),
        ),
        "Mounts": (
            "MOUNTS",
            lambda c: ",".join(cut(m.get("Name") or m.get("Source", ""), _MOUNT_WIDTH) for m in c.get("Mounts") or ()),
        ),
        "Networks": ("NETWORKS", lambda c: ",".join(sorted((c.get("NetworkSettings") or {}).get("Networks") or {}))),
        "LocalVolumes": (
            "LOCAL VOLUMES",
            lambda c: str(sum(m.get("Driver") == "local" for m in c.get("Mounts") or ())),
        ),
    }


def _size(container: dict[str, Any]) -> str:
    own = tables.size(container.get("SizeRw") or 0)
    whole = container.get("SizeRootFs")
    return f"{own} (virtual {tables.size(whole)})" if whole else own


def _port(port: dict[str, Any]) -> str:
    inside = f"{port['PrivatePort']}/{port['Type']}"
    return f"{port.get('IP', '')}:{port['PublicPort']}->{inside}" if port.get("PublicPort") else inside


def _shows_size(template: str) -> bool:
    """Sizes take counting: they are asked for only when something shows them."""
    return ".Size" in template


@click.command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE")
@click.option("--format", "template", metavar="table|json|TEMPLATE")
@click.option("-l", "--latest", is_flag=True)
@click.option("-n", "--last", type=int, default=-1)
@click.option("--no-trunc", is_flag=True)
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("-s", "--size", is_flag=True)
@click.pass_obj
def ps(client: Client, /, filters: Sequence[str], template: str | None, last: int, **flags: bool) -> None:
    """List containers.

    \b
    lamina ps -a
    lamina ps -q -f status=exited
    lamina ps --format '{{.Names}}: {{.Status}}'
    """
    limit = 1 if flags["latest"] else last
    wants_size = flags["size"] or _shows_size(template or "")
    query = {"all": flags["everything"] or limit > 0, "limit": limit if limit > 0 else None, "size": wants_size}
    found = client.call("GET", "/containers/json", query={**query, "filters": as_filters(filters)})
    if flags["quiet"]:
        for container in found:
            click.echo(container["Id"] if flags["no_trunc"] else tables.short_id(container["Id"]))
        return
    shown = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"] + (["Size"] if flags["size"] else [])
    made = columns(full=flags["no_trunc"])
    for line in tables.listing(found, made, shown, template=template, width=0 if flags["no_trunc"] else width()):
        click.echo(line)


COMMANDS = {"ps": ps}
