"""A daemon that is killed with -9 loses nothing: the next one finds its containers, their output and their exits."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lamina.containers.attach import Wanted
from lamina.containers.recover import recover
from lamina.containers.runtime import MonitoredRuntime
from lamina.containers.state import Status
from lamina.errors import NoSuchContainer
from lamina.ids import ContainerId
from lamina.kernel import pidfd
from tests.containers.harness import collect, host

pytestmark = pytest.mark.e2e

CHILD = """
import asyncio, sys
from pathlib import Path
from lamina.ids import ContainerId
from lamina.kernel import pidfd
from tests.containers.harness import host

async def main():
    async with host(Path(sys.argv[1]), Path(sys.argv[2])) as engine:
        writer = engine.add("sh", "-c", "n=0; while [ $n -lt 300 ]; do n=$((n+1)); echo line $n; usleep 10000; done; exit 5")
        till_told = f"while [ ! -e /{sys.argv[3]} ]; do usleep 20000; done"
        quick = engine.add("sh", "-c", till_told + "; echo bye; exit 3")
        gone = engine.add("sh", "-c", till_told, host_config={"AutoRemove": True})
        reader = engine.add("cat", OpenStdin=True)
        idle = engine.add("sleep", "1000")
        ended = engine.add("echo", "done")
        await engine.output(ended)
        for container in (writer, quick, gone, reader, idle):
            await engine.lifecycle.start(container)
        await engine.lifecycle.pause(idle)
        while engine.lifecycle.run_of(writer).logged.count < 20:
            await engine.lifecycle.run_of(writer).logged.after(engine.lifecycle.run_of(writer).logged.count)
        print(*(c.id for c in (writer, quick, gone, reader, idle, ended)), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def killed_daemon(directory: Path, rootfs: Path) -> list[str]:
    """Run a daemon that starts containers, and kill it when it has read some of their output."""
    top = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{top}:{top / 'src'}"}
    told = f"told-{directory.name}"
    argv = [sys.executable, "-c", CHILD, str(directory), str(rootfs), told]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        ids = child.stdout.readline().decode().split()
        child.send_signal(signal.SIGKILL)
    (rootfs / told).touch()  # two of them end now that nobody sees it
    assert len(ids) == 6
    return ids


def test_a_killed_daemon_loses_nothing(tmp_path: Path, busybox: Path) -> None:
    ids = killed_daemon(tmp_path, busybox)

    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            engine.store.load(ids)
            writer, quick, gone, reader, idle, ended = (engine.store.resolve(one) for one in ids)
            assert writer.state.status is Status.RUNNING
            await until_ended(engine.runtime, quick.id, gone.id)
            found = await recover(
                store=engine.store, runtime=engine.runtime, lifecycle=engine.lifecycle, workers=engine.workers
            )
            assert set(found.adopted) == {writer.id, reader.id, idle.id}
            assert set(found.ended) == {quick.id, gone.id}
            assert (ended.state.status, ended.state.exit_code) == (Status.EXITED, 0)

            # What ended meanwhile has its exit code and all of its output; auto-removal was made up for.
            assert (quick.state.status, quick.state.exit_code) == (Status.EXITED, 3)
            assert [line["log"] for line in engine.log(quick)] == ["bye\n"]
            with pytest.raises(NoSuchContainer):
                engine.store.resolve(gone.id)

            # What runs is followed again, from its first line.
            session = engine.lifecycle.attach(writer, Wanted())
            stdout, _ = await collect(session)
            assert stdout == b"".join(b"line %d\n" % number for number in range(1, 301))
            assert (await engine.lifecycle.wait(writer, "not-running")).status_code == 5
            assert [line["log"] for line in engine.log(writer)] == [f"line {number}\n" for number in range(1, 301)]

            # Standard input, pause and signals work as before.
            session = engine.lifecycle.attach(reader, Wanted(stdin=True))
            await session.write_stdin(b"hello\n")
            async for output in session.output():
                assert output == (1, b"hello\n")
                break
            await session.aclose()
            await engine.lifecycle.stop(reader, signal.SIGKILL, 10)
            assert reader.state.exit_code == 137
            assert idle.state.status is Status.PAUSED
            await engine.lifecycle.unpause(idle)
            await engine.lifecycle.kill(idle, 9, stop_signal=15)
            for container in (writer, quick, reader, idle, ended):
                await engine.lifecycle.remove(container, volumes=True)
            assert engine.runtime.known() == []

    asyncio.run(scenario())


async def until_ended(runtime: MonitoredRuntime, *container_ids: ContainerId) -> None:
    for container_id in container_ids:
        monitor = runtime.find(container_id)
        if monitor is not None:
            assert pidfd.wait_ended(monitor.pidfd, 20)
            monitor.close()


def test_a_removal_that_was_interrupted_is_finished(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("true")
            container.state.status = Status.DEAD
            found = await recover(
                store=engine.store, runtime=engine.runtime, lifecycle=engine.lifecycle, workers=engine.workers
            )
            assert found.removed == (container.id,)
            with pytest.raises(NoSuchContainer):
                engine.store.resolve(container.id)

    asyncio.run(scenario())


def test_a_container_whose_end_nobody_saw_has_dockers_code_255(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("true")
            container.state.status = Status.RUNNING
            container.state.started_at = "2026-01-01T00:00:00Z"
            await recover(
                store=engine.store, runtime=engine.runtime, lifecycle=engine.lifecycle, workers=engine.workers
            )
            assert (container.state.status, container.state.exit_code) == (Status.EXITED, 255)
            assert (
                json.loads((engine.store.directory(container.id) / "config.v2.json").read_bytes())["State"]["ExitCode"]
                == 255
            )

    asyncio.run(scenario())


def test_runtime_state_that_no_record_names_is_swept(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("sleep", "1000")
            await engine.lifecycle.start(container)
            await engine.lifecycle.aclose()
            engine.store.forget(container)
            await recover(
                store=engine.store, runtime=engine.runtime, lifecycle=engine.lifecycle, workers=engine.workers
            )
            assert engine.runtime.known() == []
            with pytest.raises(ProcessLookupError):
                os.kill(container.state.pid, 0)

    asyncio.run(scenario())
