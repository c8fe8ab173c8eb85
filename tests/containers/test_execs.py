"""Execs: streams, terminals, exit codes, many at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lamina.containers.attach import AttachSession
from lamina.containers.execs import ExecOrder, Execs
from lamina.containers.record import Container
from lamina.engine.exec import ExecCreate, ExecInspect, ExecResize, ExecStart
from lamina.errors import CommandNotFound, Conflict, NoSuchExec
from lamina.jsonvalue import JsonObject
from tests.containers.harness import CAPS, PATH, Host, host

pytestmark = pytest.mark.e2e


class PlainProcesses:
    """Root, in the container's environment."""

    def exec_process(self, container: Container, order: ExecOrder) -> JsonObject:
        return {
            "terminal": order.tty,
            "user": {"uid": 0, "gid": 0},
            "args": list(order.args),
            "env": [PATH, *order.env],
            "cwd": order.cwd or "/",
            "capabilities": {"bounding": list(CAPS), "effective": list(CAPS), "permitted": list(CAPS)},
        }


@dataclass
class Bench:
    engine: Host
    container: Container
    execs: Execs

    async def make(self, *args: str, **config: object) -> str:
        create = ExecCreate(self.engine.store, self.engine.lifecycle, self.execs)
        wanted = {"AttachStdout": True, "AttachStderr": True, **config, "Cmd": list(args)}
        return await create(self.container.id, wanted)

    async def start(self, exec_id: str, *, detach: bool = False) -> AttachSession | None:
        return await ExecStart(self.engine.store, self.engine.lifecycle, self.execs, PlainProcesses())(
            exec_id, detach=detach
        )

    async def code(self, exec_id: str) -> object:
        await self.execs.get(exec_id).ended.wait()
        return (await ExecInspect(self.execs)(exec_id))["ExitCode"]

    async def run(self, *args: str, **config: object) -> tuple[bytes, bytes, object]:
        exec_id = await self.make(*args, **config)
        session = await self.start(exec_id)
        assert session is not None
        stdout, stderr = await drain(session)
        return stdout, stderr, await self.code(exec_id)


async def drain(session: AttachSession) -> tuple[bytes, bytes]:
    found: dict[int, list[bytes]] = {1: [], 2: []}
    async for stream, data in session.output():
        found[stream].append(data)
    await session.aclose()
    return b"".join(found[1]), b"".join(found[2])


@contextlib.asynccontextmanager
async def bench(directory: Path, rootfs: Path) -> AsyncIterator[Bench]:
    async with host(directory, rootfs) as engine:
        container = engine.add("sleep", "1000")
        await engine.lifecycle.start(container)
        yield Bench(engine, container, Execs(engine.runtime, engine.workers))


def test_streams_and_exit_code_of_an_exec(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path, busybox) as it:
            found = await it.run("sh", "-c", "echo $A; pwd; echo err >&2; exit 9", Env=["A=1"], WorkingDir="/tmp")
            assert found == (b"1\n/tmp\n", b"err\n", 9)
            told = it.engine.told.actions(it.container)
            assert [action.partition(":")[0] for action in told] == ["start", "exec_create", "exec_start", "exec_die"]

    asyncio.run(scenario())


def test_stdin_of_an_exec_reaches_its_end(tmp_path: Path, busybox: Path) -> None:
    sent = bytes(range(256)) * 10_000

    async def scenario() -> None:
        async with bench(tmp_path, busybox) as it:
            exec_id = await it.make("cat", AttachStdin=True)
            session = await it.start(exec_id)
            assert session is not None

            async def feed() -> None:
                await session.write_stdin(sent)
                await session.close_stdin()

            async with asyncio.TaskGroup() as group:
                received = group.create_task(drain(session))
                group.create_task(feed())
            assert received.result() == (sent, b"")
            assert await it.code(exec_id) == 0

    asyncio.run(scenario())


def test_a_terminal_has_the_size_that_it_is_given(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path, busybox) as it:
            exec_id = await it.make("sh", "-c", "read x; stty size; exit 3", AttachStdin=True, Tty=True)
            session = await it.start(exec_id)
            assert session is not None
            await ExecResize(it.execs)(exec_id, 33, 77)
            await session.write_stdin(b"go\n")
            assert await drain(session) == (b"go\r\n33 77\r\n", b"")
            assert await it.code(exec_id) == 3
            with pytest.raises(Conflict):
                await ExecResize(it.execs)(exec_id, 33, 77)

    asyncio.run(scenario())


def test_a_missing_command_is_told_on_the_stream_with_code_127(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path, busybox) as it:
            stdout, _, code = await it.run("nosuch")
            assert stdout.startswith(b"OCI runtime exec failed: exec failed: unable to start container process: ")
            assert stdout.endswith(b'exec: "nosuch": executable file not found in $PATH: unknown\r\n')
            assert code == 127
            exec_id = await it.make("nosuch")
            with pytest.raises(CommandNotFound):
                await it.start(exec_id, detach=True)
            assert (await it.run("/etc"))[2] == 126

    asyncio.run(scenario())


def test_a_detached_exec_goes_on_alone(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path, busybox) as it:
            for config in ({}, {"Tty": True}):
                exec_id = await it.make("sh", "-c", "seq 1 20000; exit 4", **config)
                assert await it.start(exec_id, detach=True) is None
                assert await it.code(exec_id) == 4

    asyncio.run(scenario())


def test_the_process_goes_on_when_its_client_is_gone(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path, busybox) as it:
            exec_id = await it.make("sh", "-c", "seq 1 100000; exit 6")
            session = await it.start(exec_id)
            assert session is not None
            await session.aclose()
            assert await it.code(exec_id) == 6

    asyncio.run(scenario())


def test_many_at_once(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path, busybox) as it:
            found = await asyncio.gather(*(it.run("sh", "-c", f"echo {n}; exit {n}") for n in range(16)))
            assert found == [(b"%d\n" % n, b"", n) for n in range(16)]
            assert it.execs.ids_of(it.container.id) == []

    asyncio.run(scenario())


def test_execs_end_with_their_container_and_refuse_a_second_start(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path, busybox) as it:
            exec_id = await it.make("sleep", "1000")
            session = await it.start(exec_id)
            assert session is not None
            assert it.execs.ids_of(it.container.id) == [exec_id]
            with pytest.raises(Conflict, match="has already run"):
                await it.start(exec_id)
            await it.engine.lifecycle.kill(it.container, 9, stop_signal=15)
            assert await drain(session) == (b"", b"")
            assert await it.code(exec_id) == 137
            with pytest.raises(Conflict, match="is not running"):
                await it.make("true")
            with pytest.raises(NoSuchExec, match="No such exec instance: x"):
                await ExecInspect(it.execs)("x")

    asyncio.run(scenario())


def test_an_exec_that_has_ended_is_forgotten_after_a_while(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path, busybox) as it:
            it.execs = Execs(it.engine.runtime, it.engine.workers, kept_s=0.3)
            ended, unstarted = await it.make("true"), await it.make("true")
            session = await it.start(ended)
            assert session is not None
            await drain(session)
            assert await it.code(ended) == 0
            await asyncio.sleep(0.4)
            with pytest.raises(NoSuchExec):
                it.execs.get(ended)
            assert it.execs.ids_of(it.container.id) == [unstarted]

    asyncio.run(scenario())
