"""`registry serve`: the embedded registry in this process."""

from __future__ import annotations

from pathlib import Path

import click

from lamina.errors import InvalidArgument


@click.command("serve")
@click.option("--root", required=True, metavar="DIR", help="Where its blobs and tags are kept.")
@click.option("--listen", default="127.0.0.1:5000", show_default=True, metavar="ADDRESS:PORT", help="Port 0: any.")
def serve(root: str, listen: str) -> None:
    """Serve an image registry until it is stopped.

    \b
    lamina registry serve --root /var/lib/lamina-registry --listen 127.0.0.1:5000
    """
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f"{listen!r} is no address to listen on", hint="such as --listen 127.0.0.1:5000")
    # This command alone is a server: what others need of the client stays free of asyncio.
    import asyncio
    import contextlib
    import signal

    from lamina.registry.serve import serve as run

    shown = host
    host = host.removeprefix("[").removesuffix("]")

    def ready(number: int) -> None:
        click.echo(f"registry: serving {root} on http://{shown}:{number}")

    async def until_stopped() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await run(Path(root), host, int(port), ready=ready)

    asyncio.run(until_stopped())


COMMANDS: dict[str, click.Command] = {"serve": serve}
