"""The server with the engine of the fakes as a process of its own: `python -m tests.api.standalone SOCKET`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from lamina.api.app import build_app
from lamina.http.server import HttpServer
from lamina.http.sockets import bind_unix
from tests.api.fakes import FakeEngine


async def main(path: Path) -> None:
    server = HttpServer(build_app(FakeEngine().services(), "0.test"))
    await server.listen(bind_unix(path))
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the test lets go of it
    await server.close(grace_s=1)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
