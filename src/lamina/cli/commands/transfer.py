"""`pull` and `push`, with bars on a terminal and plain lines without one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from lamina.cli.client import Client
from lamina.cli.credentials import registry_auth
from lamina.cli.progress import show_progress
from lamina.oci.reference import Reference, parse_reference


def pull_image(client: Client, image: str, *, platform: str | None, quiet: bool, to_stderr: bool = False) -> None:
    """Pull one image, showing how far it is."""
    reference = parse_reference(image)
    if reference.digest is None and reference.tag is None and not quiet:
        click.echo("Using default tag: latest", err=to_stderr)
    reference = reference.with_default_tag()
    query = {"fromImage": reference.familiar_name, "tag": reference.digest or reference.tag, "platform": platform}
    messages = client.lines("POST", "/images/create", query=query, headers=_who(reference))
    _show(messages, quiet=quiet, to_stderr=to_stderr)
    if quiet and not to_stderr:
        click.echo(str(reference.name) + (f":{reference.tag}" if reference.tag else f"@{reference.digest}"))


def _who(reference: Reference) -> dict[str, str]:
    return {"X-Registry-Auth": registry_auth(reference, os.environ)}


def _show(messages: Iterator[dict[str, Any]], *, quiet: bool, to_stderr: bool = False) -> None:
    if quiet:
        for _ in messages:
            continue
        return
    show_progress(messages, sys.stderr if to_stderr else sys.stdout)


@click.command("pull")
@click.option("-q", "--quiet", is_flag=True)
@click.option("--platform", metavar="OS/ARCH")
@click.option("-a", "--all-tags", is_flag=True, hidden=True)
@click.argument("image")
@click.pass_obj
def pull(client: Client, image: str, platform: str | None, *, quiet: bool, all_tags: bool) -> None:
    """Bring an image from a registry.

    \b
    lamina pull alpine:3.19
    lamina pull 127.0.0.1:5000/team/app
    """
    if all_tags:
        raise click.UsageError("--all-tags is not served yet")
    pull_image(client, image, platform=platform, quiet=quiet)


@click.command("push")
@click.option("-q", "--quiet", is_flag=True)
@click.argument("image")
@click.pass_obj
def push(client: Client, image: str, *, quiet: bool) -> None:
    """Send an image to a registry.

    \b
    lamina tag app 127.0.0.1:5000/team/app:2
    lamina push 127.0.0.1:5000/team/app:2
    """
    reference = parse_reference(image).with_default_tag()
    path = f"/images/{reference.familiar_name}/push"
    messages = client.lines("POST", path, query={"tag": reference.tag}, headers=_who(reference))
    _show(messages, quiet=quiet)


COMMANDS = {"pull": pull, "push": push}
