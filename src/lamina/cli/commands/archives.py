"""`save`, `load`, `import`: images as archives."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from lamina.cli.client import Client
from lamina.cli.files import open_input, sender, write_output
from lamina.cli.progress import show_progress
from lamina.cli.tables import harmless
from lamina.oci.reference import parse_reference


@click.command("save")
@click.option("-o", "--output", metavar="FILE", help="Instead of standard output.")
@click.option("--platform", metavar="OS/ARCH")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.pass_obj
def save(client: Client, names: Sequence[str], output: str | None, platform: str | None) -> None:
    """Write images as an archive that every engine can load.

    \b
    lamina save -o alpine.tar alpine
    lamina save alpine busybox | zstd > both.tar.zst
    """
    query = {"names": list(names), "platform": _platform(platform)}
    write_output(client.request("GET", "/images/get", query=query), output)


def _platform(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    parts = text.split("/")
    return dict(zip(("os", "architecture", "variant"), parts, strict=False))


@click.command("load")
@click.option("-i", "--input", "source", metavar="FILE", help="Instead of standard input.")
@click.option("--platform", metavar="OS/ARCH")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.pass_obj
def load(client: Client, source: str | None, platform: str | None, *, quiet: bool) -> None:
    """Load images from an archive, compressed or not.

    \b
    lamina load -i alpine.tar
    curl -s https://example.org/app.tar.gz | lamina load
    """
    file = open_input(source)
    query = {"quiet": int(quiet or not sys.stdout.isatty()), "platform": _platform(platform)}
    show_progress(client.lines("POST", "/images/load", query=query, stream=sender(file)), sys.stdout)


@click.command("import")
@click.option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="Such as 'CMD [\"sh\"]'.")
@click.option("-m", "--message")
@click.option("--platform", metavar="OS/ARCH")
@click.argument("source", metavar="FILE|URL|-")
@click.argument("target", required=False, metavar="[REPOSITORY[:TAG]]")
@click.pass_obj
def import_(
    client: Client, source: str, target: str | None, changes: Sequence[str], message: str | None, platform: str | None
) -> None:
    """Make an image of one layer from the archive of a tree.

    \b
    lamina import rootfs.tar my/base:1
    lamina export web | lamina import -c 'CMD ["sh"]' - flat:1
    """
    query: dict[str, object] = {"changes": list(changes), "message": message, "platform": platform}
    if target:
        reference = parse_reference(target)
        query |= {"repo": reference.familiar_name, "tag": reference.tag}
    body = None
    if source.startswith(("http://", "https://")):
        query["fromSrc"] = source
    else:
        query["fromSrc"] = "-"
        body = sender(open_input(source))
    for answer in client.lines("POST", "/images/create", query=query, stream=body):
        if said := answer.get("status") or answer.get("stream"):
            click.echo(harmless(str(said).rstrip("\n")))


COMMANDS: dict[str, click.Command] = {"save": save, "load": load, "import": import_}
