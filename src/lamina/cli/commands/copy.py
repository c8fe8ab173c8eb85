"""`cp` and `export`: files out of containers, and into them."""

from __future__ import annotations

import base64
import json
import os
import posixpath
from dataclasses import dataclass
from typing import IO, cast
from urllib.parse import quote

import click

from lamina.cli import copying, tables
from lamina.cli.client import Client
from lamina.cli.files import open_input, sender, write_output
from lamina.errors import InvalidArgument, NotFound

_STAT = "X-Docker-Container-Path-Stat"
_MAX_LINKS = 40


def _split(argument: str) -> tuple[str, str]:
    """Container and path; the container is empty for a path of this side."""
    if argument.startswith(("/", ".")) or ":" not in argument:
        return "", argument
    container, _, path = argument.partition(":")
    return ("", argument) if "/" in container else (container, path or "/")


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    exists: bool
    is_dir: bool


def _look(client: Client, container: str, path: str, *, follow: bool) -> _Found:
    """What is at a path in a container."""
    for _ in range(_MAX_LINKS):
        try:
            response = client.request("HEAD", f"/containers/{quote(container, safe='')}/archive", query={"path": path})
        except NotFound:
            client.call("GET", f"/containers/{quote(container, safe='')}/json")  # it may be the container that is not
            return _Found(path, exists=False, is_dir=False)
        response.read()
        facts = json.loads(base64.b64decode(response.headers[_STAT]))
        is_dir, is_link = copying.decode_mode(facts["mode"])
        if not (is_link and follow):
            return _Found(path, exists=True, is_dir=is_dir)
        path = posixpath.join(posixpath.dirname(path.rstrip("/")), facts["linkTarget"])
    raise InvalidArgument(f"too many symbolic links at {path} in {container}")


@click.command("cp")
@click.option("-a", "--archive", "keeps_owner", is_flag=True, help="Keep user and group.")
@click.option("-L", "--follow-link", "follows", is_flag=True, help="Copy what a link at SOURCE points to.")
@click.option("-q", "--quiet", is_flag=True, hidden=True)
@click.argument("source", metavar="[CONTAINER:]SOURCE|-")
@click.argument("target", metavar="[CONTAINER:]TARGET|-")
@click.pass_obj
def cp(client: Client, source: str, target: str, *, keeps_owner: bool, follows: bool, quiet: bool) -> None:
    """Copy files between a container and this machine; `-` is a tar archive on standard input or output.

    \b
    lamina cp web:/etc/nginx/. ./nginx
    lamina cp page.html web:/usr/share/nginx/html/
    lamina cp web:/var/log - | tar t
    """
    del quiet
    from_container, from_path = _split(source)
    to_container, to_path = _split(target)
    if from_container and to_container:
        raise InvalidArgument("copying between containers is not supported", hint="copy to this machine first")
    if from_container:
        _copy_out(client, from_container, from_path, to_path, keeps_owner=keeps_owner, follows=follows)
    elif to_container:
        _copy_in(client, from_path, to_container, to_path, keeps_owner=keeps_owner, follows=follows)
    else:
        raise InvalidArgument("must specify at least one container source", hint="such as lamina cp web:/etc/hosts .")


def _copy_out(client: Client, container: str, path: str, target: str, *, keeps_owner: bool, follows: bool) -> None:
    # The last name of a path with a link at its end: entries are called by what was asked for, not what it points to.
    found = _look(client, container, path, follow=True) if follows else _Found(path, exists=True, is_dir=False)
    response = client.request("GET", f"/containers/{quote(container, safe='')}/archive", query={"path": found.path})
    if target == "-":
        write_output(response, None)
        return
    is_dir, _ = copying.decode_mode(json.loads(base64.b64decode(response.headers[_STAT]))["mode"])
    exists = os.path.lexists(target)
    if not exists and not os.path.isdir(os.path.dirname(os.path.normpath(target)) or "."):
        raise InvalidArgument(f"no such directory: {os.path.dirname(os.path.normpath(target))}")
    directory, rename = copying.arranged(
        found.path, target, source_is_dir=is_dir, target_exists=exists, target_is_dir=os.path.isdir(target)
    )
    if rename is None and follows and found.path != path:
        rename = (copying.split_entry(found.path)[1], copying.split_entry(path)[1])
    stream = cast("IO[bytes]", response)
    for name in copying.unpack(stream, directory, rename, keep_owner=keeps_owner):
        click.echo(f"lamina: left out {tables.harmless(name)}: devices are not copied to this machine", err=True)


def _copy_in(client: Client, path: str, container: str, target: str, *, keeps_owner: bool, follows: bool) -> None:
    found = _look(client, container, target, follow=True)
    if path == "-":
        if not found.is_dir:
            raise InvalidArgument(f'destination "{container}:{target}" must be a directory')
        body = sender(open_input(None))
        directory = found.path
    else:
        if not os.path.lexists(path):
            raise InvalidArgument(f"no such file or directory: {path}")
        is_dir = os.path.isdir(path) and (follows or copying.asserts_directory(path) or not os.path.islink(path))
        if copying.asserts_directory(path) and not is_dir:
            raise InvalidArgument(f"not a directory: {path}")
        directory, rename = copying.arranged(
            path, found.path, source_is_dir=is_dir, target_exists=found.exists, target_is_dir=found.is_dir
        )
        name = rename[1] if rename else copying.split_entry(path)[1]
        if name in ("", ".."):
            name = os.path.basename(os.path.realpath(path)) or "."
        body = copying.packer(path, name, follow=follows or copying.asserts_directory(path))
    client.request(
        "PUT",
        f"/containers/{quote(container, safe='')}/archive",
        query={"path": directory, "noOverwriteDirNonDir": "true", "copyUIDGID": keeps_owner or None},
        stream=body,
    ).read()


@click.command("export")
@click.option("-o", "--output", metavar="FILE", help="Instead of standard output.")
@click.argument("container")
@click.pass_obj
def export(client: Client, container: str, output: str | None) -> None:
    """Write a container's whole tree as a tar archive.

    \b
    lamina export -o web.tar web
    """
    write_output(client.request("GET", f"/containers/{quote(container, safe='')}/export"), output)


COMMANDS: dict[str, click.Command] = {"cp": cp, "export": export}
