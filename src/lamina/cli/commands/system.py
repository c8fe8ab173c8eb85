"""`info`, `version`, `events`, `system df`: the engine itself."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from lamina import __version__
from lamina.cli import tables
from lamina.cli.client import NEWEST_API, Client
from lamina.cli.filters import as_filters
from lamina.cli.main import complain
from lamina.cli.terminal import width
from lamina.cli.times import as_unix_time
from lamina.errors import LaminaError

_FORMAT = click.option("-f", "--format", "template", metavar="json|TEMPLATE")


@click.command("info")
@_FORMAT
@click.pass_obj
def info(client: Client, template: str | None) -> None:
    """Show what this engine is, has, and can use.

    \b
    lamina info
    lamina info -f '{{.Driver}}'
    """
    found = client.call("GET", "/info")
    if template:
        click.echo(tables.formatted({**found, "ClientInfo": _client(client)}, template))
        return
    for line in _info_lines(found):
        click.echo(tables.harmless_lines(line))
    for warning in found.get("Warnings") or ():
        click.echo(tables.harmless(warning), err=True)


def _info_lines(found: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, Any]] = [
        ("Client", ""),
        (" Version", __version__),
        ("", ""),
        ("Server", ""),
        (" Containers", found["Containers"]),
        ("  Running", found["ContainersRunning"]),
        ("  Paused", found["ContainersPaused"]),
        ("  Stopped", found["ContainersStopped"]),
        (" Images", found["Images"]),
        (" Server Version", found["ServerVersion"]),
        (" Storage Driver", found["Driver"]),
        *((f"  {name}", value) for name, value in found.get("DriverStatus") or ()),
        (" Logging Driver", found["LoggingDriver"]),
        (" Cgroup Driver", found["CgroupDriver"]),
        (" Cgroup Version", found.get("CgroupVersion", "1")),
        (" Networks", " ".join((found.get("Plugins") or {}).get("Network") or ())),
        (" Runtimes", " ".join(sorted(found.get("Runtimes") or {}))),
        (" Default Runtime", found.get("DefaultRuntime")),
        (" Security Options", ", ".join(option.partition(",")[0].removeprefix("name=")
                                        for option in found.get("SecurityOptions") or ())),
        (" Kernel Version", found["KernelVersion"]),
        (" Operating System", found["OperatingSystem"]),
        (" Architecture", found["Architecture"]),
        (" CPUs", found["NCPU"]),
        (" Total Memory", tables.size(found["MemTotal"], binary=True, digits=4)),
        (" Name", found["Name"]),
        (" ID", found["ID"]),
        (" Root Dir", found["DockerRootDir"]),
        (" Labels", ", ".join(found.get("Labels") or ())),
        (" Insecure Registries", " ".join((found.get("RegistryConfig") or {}).get("InsecureRegistryCIDRs") or ())),
        (" Registry Mirrors", " ".join((found.get("RegistryConfig") or {}).get("Mirrors") or ())),
        (" Containers survive the daemon", "yes" if found.get("LiveRestoreEnabled") else "no"),
    ]  # fmt: skip
    headings = ("Client", "Server", "")
    return [
        f"{name}: {value}".rstrip() if name else ""
        for name, value in rows
        if name in headings or value not in (None, "")
    ]


def _client(client: Client) -> dict[str, Any]:
    newest = f"{NEWEST_API[0]}.{NEWEST_API[1]}"
    return {
        "Version": __version__,
        "DefaultAPIVersion": newest,
        "Os": platform.system().lower(),
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "Host": client.host,
    }


@click.command("version")
@_FORMAT
@click.pass_obj
def version(client: Client, template: str | None) -> int:
    """Show the versions of client and engine.

    \b
    lamina version
    lamina version -f '{{.Server.Version}}'
    """
    own = _client(client)
    failure: LaminaError | None = None
    server: dict[str, Any] | None = None
    try:
        own["ApiVersion"] = client.version
        server = client.call("GET", "/version")
    except LaminaError as error:
        failure = error
    if template:
        click.echo(tables.formatted({"Client": own, "Server": server}, template))
    else:
        for line in _version_lines(own, server):
            click.echo(tables.harmless_lines(line))
    if failure is not None:
        complain(failure)
        return 1
    return 0


def _version_lines(own: dict[str, Any], server: dict[str, Any] | None) -> list[str]:
    spoken = f" (default {own['DefaultAPIVersion']})" if own.get("ApiVersion") != own["DefaultAPIVersion"] else ""
    lines = [
        "Client: Lamina",
        f" Version:           {own['Version']}",
        f" API version:       {own.get('ApiVersion', own['DefaultAPIVersion'])}{spoken if server else ''}",
        f" OS/Arch:           {own['Os']}/{own['Arch']}",
        f" Host:              {own['Host']}",
    ]
    if server is None:
        return lines
    lines += [
        "",
        f"Server: {(server.get('Platform') or {}).get('Name') or 'engine'}",
        f" Version:           {server['Version']}",
        f" API version:       {server['ApiVersion']} (minimum version {server['MinAPIVersion']})",
        f" OS/Arch:           {server['Os']}/{server['Arch']}",
        f" Kernel:            {server['KernelVersion']}",
    ]
    own_names = ("Engine", "Lamina")
    for part in server.get("Components") or ():
        if part["Name"] not in own_names and part.get("Version"):
            lines.append(f" {part['Name'] + ':':18} {part['Version']}")
    return lines


@click.command("events")
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE")
@click.option("--format", "template", metavar="json|TEMPLATE")
@click.option("--since", metavar="TIME")
@click.option("--until", metavar="TIME")
@click.pass_obj
def events(client: Client, filters: Sequence[str], template: str | None, since: str | None, until: str | None) -> None:
    """Follow what happens in the engine.

    \b
    lamina events --since 10m
    lamina events -f type=container --format '{{.Action}} {{.Actor.Attributes.name}}'
    """
    query = {"since": as_unix_time(since), "until": as_unix_time(until), "filters": as_filters(filters)}
    for event in client.lines("GET", "/events", query=query):
        if attributes := event["Actor"].get("Attributes"):
            event["Actor"]["Attributes"] = dict(sorted(attributes.items()))
        click.echo(tables.formatted(event, template) if template else tables.harmless(_event_line(event)))


def _event_line(event: dict[str, Any]) -> str:
    actor = event["Actor"]
    details = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    seconds, fraction = divmod(event["timeNano"], 1_000_000_000)
    moment = datetime.fromtimestamp(seconds).astimezone()
    zone = moment.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    shown = f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}{zone}"
    return f"{shown} {event['Type']} {event['Action']} {actor['ID']}" + (f" ({details})" if details else "")


def _reclaimable(row: dict[str, Any]) -> str:
    amount = tables.size(row["free"], digits=4)
    return f"{amount} ({row['free'] * 100 // row['size']}%)" if row["size"] > 0 else amount


_DF_COLUMNS: tables.Columns = {
    "Type": ("TYPE", lambda row: row["type"]),
    "TotalCount": ("TOTAL", lambda row: str(row["total"])),
    "Active": ("ACTIVE", lambda row: str(row["active"])),
    "Size": ("SIZE", lambda row: tables.size(row["size"], digits=4)),
    "Reclaimable": ("RECLAIMABLE", _reclaimable),
}


@click.command("df")
@click.option("--format", "template", metavar="table|json|TEMPLATE")
@click.option("-v", "--verbose", is_flag=True, help="Every image, container and volume.")
@click.pass_obj
def df(client: Client, template: str | None, *, verbose: bool) -> None:
    """Show what images, containers and volumes take on disk.

    \b
    lamina system df
    lamina system df -v
    """
    found = client.call("GET", "/system/df")
    if verbose:
        for line in _df_details(found):
            click.echo(line)
        return
    shown = list(_DF_COLUMNS)
    for line in tables.listing(_df_rows(found), _DF_COLUMNS, shown, template=template, width=width()):
        click.echo(line)


def _df_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    images = found.get("Images") or []
    containers = found.get("Containers") or []
    volumes = [volume["UsageData"] for volume in found.get("Volumes") or () if volume.get("UsageData")]
    caches = found.get("BuildCache") or []
    layers = found.get("LayersSize") or 0
    used = sum(i["Size"] - i["SharedSize"] for i in images if i["Containers"] and i["SharedSize"] >= 0)
    busy = [c for c in containers if c["State"] in ("running", "paused", "restarting")]
    written = sum(c.get("SizeRw") or 0 for c in containers)
    return [
        _df_row("Images", len(images), sum(i["Containers"] > 0 for i in images), layers, layers - used),
        _df_row("Containers", len(containers), len(busy), written, written - sum(c.get("SizeRw") or 0 for c in busy)),
        _df_row(
            "Local Volumes",
            len(volumes),
            sum(v["RefCount"] > 0 for v in volumes),
            sum(max(v["Size"], 0) for v in volumes),
            sum(max(v["Size"], 0) for v in volumes if v["RefCount"] == 0),
        ),
        _df_row("Build Cache", len(caches), sum(bool(c["InUse"]) for c in caches), sum(c["Size"] for c in caches), 0),
    ]


def _df_row(kind: str, total: int, active: int, size: int, free: int) -> dict[str, Any]:
    return {"type": kind, "total": total, "active": active, "size": size, "free": free}


def _df_details(found: dict[str, Any]) -> list[str]:
    from lamina.cli.commands import containers, images, volumes

    columns = width()
    return [
        "Images space usage:",
        "",
        *tables.listing(
            images.rows(found.get("Images") or (), digests=False),
            images.columns(full=False),
            ["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"],
            width=columns,
        ),
        "",
        "Containers space usage:",
        "",
        *tables.listing(
            found.get("Containers") or (),
            containers.columns(full=False),
            ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"],
            width=columns,
        ),
        "",
        "Local Volumes space usage:",
        "",
        *tables.listing(found.get("Volumes") or (), volumes.COLUMNS, ["Name", "Links", "Size"], width=columns),
    ]


COMMANDS: dict[str, click.Command] = {"info": info, "version": version, "events": events, "df": df}
