"""The verbs on running containers, as the API calls them."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from lamina.clock import SystemClock
from lamina.containers.state import Status
from lamina.engine.attach import Attach, Resize
from lamina.engine.kill import Kill
from lamina.engine.logs import Logs
from lamina.engine.pause import Pause, Unpause
from lamina.engine.remove import Remove
from lamina.engine.restart import Restart
from lamina.engine.services import LogWanted
from lamina.engine.start import Start
from lamina.engine.stop import Stop
from lamina.engine.top import Top
from lamina.engine.wait import Wait
from lamina.errors import Conflict, InvalidArgument, NoSuchContainer, NotModified, Unsupported
from lamina.kernel import cgroup
from tests.containers.harness import Host, collect, host

pytestmark = pytest.mark.e2e
COUNTING = "n=0; while [ $n -lt 200 ]; do n=$((n+1)); echo line $n; usleep 2000; done; printf unended"


async def log_texts(engine: Host, ref: str, wanted: LogWanted) -> list[str]:
    logs = Logs(engine.store, engine.lifecycle, engine.workers, SystemClock())
    async with contextlib.aclosing(logs(ref, wanted)) as entries:
        return [entry.data.decode() async for entry in entries]


def test_following_misses_no_line_and_ends_with_the_container(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("sh", "-c", COUNTING)
            await Start(engine.store, engine.lifecycle)(container.name)
            wanted = LogWanted(stdout=True, stderr=True, follow=True)
            everything = [f"line {number}\n" for number in range(1, 201)] + ["unended"]
            followed = await asyncio.gather(*(log_texts(engine, container.id, wanted) for _ in range(3)))
            assert followed == [everything] * 3
            assert await log_texts(engine, container.id, LogWanted(stdout=True, stderr=True)) == everything
            assert await log_texts(engine, container.id, LogWanted(stdout=True, stderr=True, tail=2)) == everything[-2:]
            assert await log_texts(engine, container.id, LogWanted(stdout=False, stderr=True)) == []
            assert await log_texts(engine, container.id, wanted) == everything

    asyncio.run(scenario())


def test_since_and_until_cut_by_time(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            clock = SystemClock()
            container = engine.add("sh", "-c", "echo one; sleep 0.2; echo two; sleep 1000")
            await engine.lifecycle.start(container)
            until = clock.now_ns() + 100_000_000
            assert await log_texts(
                engine, container.id, LogWanted(stdout=True, stderr=True, follow=True, until_ns=until)
            ) == ["one\n"]
            run = engine.lifecycle.running(container)
            while len(await log_texts(engine, container.id, LogWanted(stdout=True, stderr=True))) < 2:
                await run.logged.after(run.logged.count)
            since = LogWanted(stdout=True, stderr=True, since_ns=until)
            assert await log_texts(engine, container.id, since) == ["two\n"]

    asyncio.run(scenario())


def test_a_log_driver_that_keeps_nothing_cannot_be_read(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("true", host_config={"LogConfig": {"Type": "none"}})
            with pytest.raises(Unsupported, match="does not support reading"):
                await log_texts(engine, container.id, LogWanted(stdout=True, stderr=True))

    asyncio.run(scenario())


def test_attach_with_logs_gives_what_was_before_and_then_what_comes(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            attach = Attach(engine.store, engine.lifecycle, engine.workers)
            container = engine.add("sh", "-c", "echo begin; read x; echo $x", OpenStdin=True, StdinOnce=True)
            await engine.lifecycle.start(container)
            kinds = {"stdin": True, "stdout": True, "stderr": True}
            first = await attach(container.id, **kinds, stream=True, logs=False)
            second = await attach(container.id, **kinds, stream=True, logs=True)
            await first.write_stdin(b"end\n")
            assert await collect(second) == (b"begin\nend\n", b"")
            await first.aclose()
            await engine.lifecycle.wait(container, "not-running")
            only = await attach(container.id, **kinds, stream=False, logs=True)
            assert await collect(only) == (b"begin\nend\n", b"")

    asyncio.run(scenario())


def test_a_restart_keeps_a_container_that_removes_itself(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("sleep", "1000", host_config={"AutoRemove": True}, StopSignal="KILL")
            await engine.lifecycle.start(container)
            pid = container.state.pid
            await Restart(engine.store, engine.lifecycle)(container.id)
            assert container.state.status is Status.RUNNING
            assert container.state.pid != pid
            wanted = ["start", "kill", "die", "stop", "start", "restart"]
            assert engine.told.actions(container) == wanted

    asyncio.run(scenario())


def test_verbs_on_a_container_by_name_and_prefix(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("sh", "-c", "trap 'exit 4' USR1; while :; do sleep 0.01; done", StopTimeout=0)
            both = (engine.store, engine.lifecycle)
            start, stop, kill, remove = (
                Start(*both),
                Stop(*both),
                Kill(*both),
                Remove(*both),
            )
            with pytest.raises(NoSuchContainer, match="No such container: nope"):
                await start("nope")
            await start(container.name)
            with pytest.raises(NotModified):
                await start(container.id[:8])
            with pytest.raises(InvalidArgument, match="invalid signal: NOPE"):
                await kill(container.id, "NOPE")
            with pytest.raises(InvalidArgument, match='invalid condition: "never"'):
                await Wait(*both).subscribe(container.id, "never")
            with pytest.raises(Conflict, match="container is running: stop the container before removing or force"):
                await remove(container.id)
            await Pause(*both)(container.id)
            with pytest.raises(Conflict, match="is paused"):
                await Attach(*both, engine.workers)(
                    container.id, stdin=False, stdout=True, stderr=True, stream=True, logs=False
                )
            await Unpause(*both)(container.id)
            ended = await Wait(*both).subscribe(container.id, "next-exit")
            await kill(container.id, "USR1")
            assert (await ended).status_code == 4
            await start(container.id)
            await stop(container.id)
            assert container.state.exit_code == 137
            with pytest.raises(Conflict, match="is not running"):
                await Resize(*both)(container.id, 10, 10)
            await start(container.id)
            await remove(container.id, force=True)
            with pytest.raises(NoSuchContainer):
                await remove(container.id)

    asyncio.run(scenario())


def test_removing_by_force_what_removes_itself_succeeds(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            remove = Remove(engine.store, engine.lifecycle)
            for _ in range(5):
                container = engine.add("sleep", "1000", host_config={"AutoRemove": True})
                await engine.lifecycle.start(container)
                await remove(container.id, force=True)
                with pytest.raises(NoSuchContainer):
                    engine.store.resolve(container.id)

    asyncio.run(scenario())


def test_top_shows_the_processes_of_the_container_alone(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("sh", "-c", "sleep 1000 & sleep 2000; true")
            await engine.lifecycle.start(container)
            top = Top(engine.store, engine.lifecycle, cgroup.detect(), engine.workers)
            async with asyncio.timeout(10):
                found = await top(container.id)
                while len(found["Processes"]) < 3:
                    found = await top(container.id)
            commands = sorted(row[-1] for row in found["Processes"])
            assert commands[:2] == ["sh -c sleep 1000 & sleep 2000; true", "sleep 1000"]
            assert (await top(container.id, "aux"))["Titles"][:2] == ["USER", "PID"]
            with pytest.raises(InvalidArgument):
                await top(container.id, "-o cmd")

    asyncio.run(scenario())
