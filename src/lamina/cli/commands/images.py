"""`images`, `history`, `tag`, `rmi`, `commit`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import click

from lamina.cli import tables
from lamina.cli.client import Client
from lamina.cli.commands.lifecycle import each
from lamina.cli.filters import as_filters
from lamina.cli.terminal import width
from lamina.oci.reference import parse_reference

_NONE = "<none>"
_COMMAND_WIDTH = 45


def rows(images: Sequence[dict[str, Any]], *, digests: bool) -> list[dict[str, Any]]:
    """One row per name of an image, as docker shows them; images without a name have one row."""
    made: list[dict[str, Any]] = []
    for image in images:
        by_repository: dict[str, str] = {}
        for name in image.get("RepoDigests") or ():
            repo, _, digest = name.partition("@")
            by_repository.setdefault(repo, digest)
        tags = [tag for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
        named = set()
        for tag in tags:
            repo, _, label = tag.rpartition(":")
            named.add(repo)
            made.append({**image, "repo": repo, "tag": label, "digest": by_repository.get(repo, _NONE)})
        left = [repo for repo in by_repository if repo not in named and repo != _NONE]
        if left and (digests or not tags):
            made += [{**image, "repo": repo, "tag": _NONE, "digest": by_repository[repo]} for repo in left]
        elif not tags:
            made.append({**image, "repo": _NONE, "tag": _NONE, "digest": _NONE})
    return made


def columns(*, full: bool) -> tables.Columns:
    return {
        "Repository": ("REPOSITORY", lambda i: i["repo"]),
        "Tag": ("TAG", lambda i: i["tag"]),
        "Digest": ("DIGEST", lambda i: i["digest"]),
        "ID": ("IMAGE ID", lambda i: i["Id"] if full else tables.short_id(i["Id"])),
        "CreatedSince": ("CREATED", lambda i: tables.ago(i["Created"], time.time()) if i["Created"] > 0 else "N/A"),
        "CreatedAt": ("CREATED AT", lambda i: tables.local_time(i["Created"])),
        "Size": ("SIZE", lambda i: tables.size(i["Size"])),
        "Containers": ("CONTAINERS", lambda i: _count(i.get("Containers"))),
        "SharedSize": ("SHARED SIZE", lambda i: _shared(i.get("SharedSize"))),
        "UniqueSize": ("UNIQUE SIZE", _unique),
        "VirtualSize": ("VIRTUAL SIZE", lambda i: tables.size(i["Size"], digits=4)),
    }


def _count(number: int | None) -> str:
    return "N/A" if number is None or number < 0 else str(number)


def _shared(number: int | None) -> str:
    return "N/A" if number is None or number < 0 else tables.size(number)


def _unique(image: dict[str, Any]) -> str:
    shared = image.get("SharedSize", -1)
    return "N/A" if shared < 0 else tables.size(image["Size"] - shared)


@click.command("images")
@click.option("-a", "--all", "everything", is_flag=True, help="Also intermediate images.")
@click.option("--digests", is_flag=True)
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE")
@click.option("--format", "template", metavar="table|json|TEMPLATE")
@click.option("--no-trunc", is_flag=True)
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.argument("repository", required=False, metavar="[REPOSITORY[:TAG]]")
@click.pass_obj
def images(
    client: Client, /, repository: str | None, filters: Sequence[str], template: str | None, **flags: bool
) -> None:
    """List images.

    \b
    lamina images
    lamina images alpine
    lamina images -q -f dangling=true
    """
    wanted = as_filters(filters) or {}
    if repository:
        wanted.setdefault("reference", []).append(repository)
    found = client.call("GET", "/images/json", query={"all": flags["everything"], "filters": wanted or None})
    digests = flags["digests"] or ".Digest" in (template or "")
    named = rows(sorted(found, key=lambda image: -image["Created"]), digests=digests)
    if flags["quiet"] and not template:
        for row in named:
            click.echo(row["Id"] if flags["no_trunc"] else tables.short_id(row["Id"]))
        return
    shown = ["Repository", "Tag", *(["Digest"] if flags["digests"] else []), "ID", "CreatedSince", "Size"]
    made = columns(full=flags["no_trunc"])
    for line in tables.listing(named, made, shown, template=template, width=0 if flags["no_trunc"] else width()):
        click.echo(line)


@click.command("history")
@click.option("--format", "template", metavar="table|json|TEMPLATE")
@click.option("-H", "--human/--no-human", default=True, help="Sizes and times as people say them.")
@click.option("--no-trunc", is_flag=True)
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.argument("image")
@click.pass_obj
def history(client: Client, image: str, template: str | None, *, human: bool, no_trunc: bool, quiet: bool) -> None:
    """Show how an image came about, newest step first.

    \b
    lamina history alpine
    lamina history --no-trunc --format '{{.CreatedBy}}' alpine
    """
    found = client.call("GET", f"/images/{quote(image, safe='')}/history")
    columns = _history_columns(full=no_trunc, human=human)
    if quiet:
        for layer in found:
            click.echo(tables.harmless(columns["ID"][1](layer)))
        return
    shown = ["ID", "CreatedSince" if human else "CreatedAt", "CreatedBy", "Size", "Comment"]
    for line in tables.listing(found, columns, shown, template=template, width=0 if no_trunc else width()):
        click.echo(line)


def _history_columns(*, full: bool, human: bool) -> tables.Columns:
    def created_by(layer: dict[str, Any]) -> str:
        text = layer["CreatedBy"].replace("\t", " ")
        return text if full else tables.ellipsis(text, _COMMAND_WIDTH)

    def identity(layer: dict[str, Any]) -> str:
        return layer["Id"] if full or layer["Id"].startswith("<") else tables.short_id(layer["Id"])

    return {
        "ID": ("IMAGE", identity),
        "CreatedSince": (
            "CREATED",
            lambda h: tables.ago(h["Created"], time.time()) if h["Created"] > _NO_TIME else "N/A",
        ),
        "CreatedAt": ("CREATED AT", lambda h: tables.rfc3339(h["Created"])),
        "CreatedBy": ("CREATED BY", created_by),
        "Size": ("SIZE", lambda h: tables.size(h["Size"]) if human else str(h["Size"])),
        "Comment": ("COMMENT", lambda h: h["Comment"]),
    }


_NO_TIME = -62135596800
"""Go's zero time in seconds since the epoch."""


@click.command("tag")
@click.argument("source")
@click.argument("target")
@click.pass_obj
def tag(client: Client, source: str, target: str) -> None:
    """Give an image another name.

    \b
    lamina tag alpine 127.0.0.1:5000/team/alpine:1
    """
    reference = parse_reference(target).with_default_tag()
    query = {"repo": reference.familiar_name, "tag": reference.tag}
    client.request("POST", f"/images/{quote(source, safe='')}/tag", query=query).read()


@click.command("rmi")
@click.option("-f", "--force", is_flag=True, help="Also when it has several names or stopped containers.")
@click.option("--no-prune", is_flag=True, help="Keep parents without a name.")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.pass_obj
def rmi(client: Client, names: Sequence[str], *, force: bool, no_prune: bool) -> int:
    """Remove names of images, and images without a name left.

    \b
    lamina rmi alpine:3.18
    lamina rmi $(lamina images -q -f dangling=true)
    """

    def action(name: str) -> str:
        query = {"force": force, "noprune": no_prune}
        done = client.call("DELETE", f"/images/{name}", query=query) or ()
        return "\n".join(
            tables.harmless(f"{kind}: {entry[kind]}")
            for entry in done
            for kind in ("Untagged", "Deleted")
            if entry.get(kind)
        )

    return each(names, action)


@click.command("commit")
@click.option("-a", "--author", default="")
@click.option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="Such as 'CMD [\"sh\"]'.")
@click.option("-m", "--message", default="")
@click.option("-p", "--pause/--no-pause", default=True, help="Freeze the container meanwhile.", show_default=True)
@click.argument("container")
@click.argument("target", required=False, metavar="[REPOSITORY[:TAG]]")
@click.pass_obj
def commit(
    client: Client,
    container: str,
    target: str | None,
    *,
    author: str,
    changes: Sequence[str],
    message: str,
    pause: bool,
) -> None:
    """Make an image from what a container changed.

    \b
    lamina commit -m 'with config' web my/web:2
    """
    query: dict[str, Any] = {"container": container, "author": author, "comment": message, "pause": int(pause)}
    if target:
        reference = parse_reference(target).with_default_tag()
        query |= {"repo": reference.familiar_name, "tag": reference.tag}
    query["changes"] = list(changes)
    click.echo(client.call("POST", "/commit", query=query)["Id"])


COMMANDS: dict[str, click.Command] = {
    "images": images,
    "history": history,
    "tag": tag,
    "rmi": rmi,
    "commit": commit,
}
