from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from lamina.oci.digest import digest_of
from lamina.registry.files import RegistryFiles
from lamina.registry.serve import PortInUse, serve


def test_a_port_in_use_is_one_clear_error(tmp_path: Path) -> None:
    async def run() -> None:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(serve(tmp_path / "one", "127.0.0.1", 0, ready=ready.set_result))
            port = await ready
            with pytest.raises(PortInUse, match=f"cannot listen on 127.0.0.1:{port}: the port is in use"):
                await serve(tmp_path / "two", "127.0.0.1", port, ready=lambda _: None)
            first.cancel()

    asyncio.run(run())


_PROGRAM = """
import asyncio, sys
from pathlib import Path
from lamina.registry.serve import serve
asyncio.run(serve(Path(sys.argv[1]), "127.0.0.1", 0, ready=lambda port: print(port, flush=True)))
"""


def test_kill_9_in_the_middle_of_uploads_leaves_whole_blobs_only(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        pushed = asyncio.run(_push_until_killed(port, process.pid))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    files = RegistryFiles(tmp_path)
    found = 0
    for path in (tmp_path / "blobs").rglob("*"):
        if path.is_file():
            assert digest_of(path.read_bytes()) == f"sha256:{path.name}"
            found += 1
    assert found >= len(pushed)
    for data in pushed:
        assert files.blob_path("a", digest_of(data)).read_bytes() == data


async def _push_until_killed(port: int, pid: int) -> list[bytes]:
    """Blobs whose push was answered before the registry was killed in the middle of a body."""
    pushed: list[bytes] = []
    base = f"http://127.0.0.1:{port}"

    async with aiohttp.ClientSession(base) as session:
        for number in range(3):
            data = f"blob {number}".encode() * 1000
            async with session.post("/v2/a/blobs/uploads/", params={"digest": digest_of(data)}, data=data) as answer:
                assert answer.status == 201
            pushed.append(data)

        async def endless():  # type: ignore[no-untyped-def]
            for number in range(100):
                yield b"x" * 100_000
                if number == 30:
                    os.kill(pid, signal.SIGKILL)

        with pytest.raises(aiohttp.ClientError):
            await session.post("/v2/a/blobs/uploads/", params={"digest": digest_of(b"never")}, data=endless())
    return pushed
