"""Containers start, write, end and go, under the real runtime and monitor."""

import asyncio
import os
import resource
import signal
import time
from pathlib import Path

import pytest

from lamina.clock import SystemClock
from lamina.containers.attach import Wanted
from lamina.containers.lifecycle import Lifecycle
from lamina.containers.state import Status
from lamina.errors import CommandNotExecutable, CommandNotFound, Conflict, NoSuchContainer, NotModified, Unavailable
from lamina.jsonvalue import JsonObject
from lamina.kernel import pidfd
from tests.containers.harness import collect, host

pytestmark = pytest.mark.e2e


def test_output_of_both_streams_and_the_exit_code_arrive(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("sh", "-c", "echo out; echo err >&2; printf unended; exit 7")
            assert await engine.output(container) == (b"out\nunended", b"err\n", 7)
            assert container.state.status is Status.EXITED
            assert container.state.exit_code == 7
            lines = [(line["stream"], line["log"]) for line in engine.log(container)]
            assert sorted(lines) == [("stderr", "err\n"), ("stdout", "out\n"), ("stdout", "unended")]
            assert engine.told.actions(container) == ["start", "die"]
            await engine.lifecycle.remove(container, volumes=True)
            assert engine.resources.held == set()
            assert engine.runtime.known() == []

    asyncio.run(scenario())


def test_a_hundred_thousand_lines_arrive_exactly(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("seq", "100000")
            stdout, _, code = await engine.output(container)
            wanted = b"".join(b"%d\n" % number for number in range(1, 100001))
            assert (stdout == wanted, code) == (True, 0)
            assert "".join(str(line["log"]) for line in engine.log(container)).encode() == wanted

    asyncio.run(scenario())


def test_a_journal_that_is_freed_while_it_is_read_loses_nothing(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            unbound: JsonObject = {"LogConfig": {"Type": "json-file", "Config": {"max-size": "-1"}}}
            words = ("sh", "-c", "seq 300000; read x; echo $x")
            container = engine.add(*words, host_config=unbound, OpenStdin=True, StdinOnce=True)
            session = engine.lifecycle.attach(container, Wanted(stdin=True))
            await engine.lifecycle.start(container)
            run = engine.lifecycle.running(container)
            received = b""
            async for _, data in session.output():
                received += data
                if received.endswith(b"\n300000\n"):
                    break
            # Behind the last reader, the front of the journal goes as soon as there is more output.
            await session.write_stdin(b"end\n")
            await session.aclose()
            await run.settled.wait()
            wanted = b"".join(b"%d\n" % number for number in range(1, 300_001))
            assert received == wanted
            assert run.start.journal > 0
            assert "".join(str(line["log"]) for line in engine.log(container)).encode() == wanted + b"end\n"

    asyncio.run(scenario())


def test_binary_bytes_arrive_exactly(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("head", "-c", "3000000", "/bin/busybox")
            binary = (busybox / "bin/busybox").read_bytes()[:3000000]
            assert (await engine.output(container))[0] == binary

    asyncio.run(scenario())


def test_the_same_container_starts_again_and_its_log_grows(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("echo", "hello")
            for _ in range(3):
                assert await engine.output(container) == (b"hello\n", b"", 0)
            assert [line["log"] for line in engine.log(container)] == ["hello\n"] * 3

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("command", "error", "code", "words"),
    [
        ("nosuch", CommandNotFound, 127, 'exec: "nosuch": executable file not found in $PATH: unknown'),
        ("/nope/x", CommandNotFound, 127, "no such file or directory"),
        ("/etc", CommandNotExecutable, 126, "permission denied"),
    ],
)
def test_a_command_that_cannot_run_is_told_in_dockers_words(
    tmp_path: Path, busybox: Path, command: str, error: type[Exception], code: int, words: str
) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add(command)
            zombies = pidfd.zombie_children()
            session = engine.lifecycle.attach(container, Wanted())
            with pytest.raises(error, match="OCI runtime create failed") as caught:
                await engine.lifecycle.start(container)
            assert words in str(caught.value)
            assert container.state.exit_code == code
            assert container.state.error == str(caught.value)
            assert await collect(session) == (b"", b"")
            assert engine.runtime.known() == []
            assert pidfd.zombie_children() <= zombies
            assert engine.resources.held == set()

    asyncio.run(scenario())


def test_stop_sends_the_signal_and_kills_who_does_not_listen(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            polite = engine.add("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.02; done")
            deaf = engine.add("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
            session = engine.lifecycle.attach(deaf, Wanted())
            for container in (polite, deaf):
                await engine.lifecycle.start(container)
            async for _ in session.output():
                break
            await engine.lifecycle.stop(polite, signal.SIGTERM, 10)
            assert polite.state.exit_code in (5, 143)
            await engine.lifecycle.stop(deaf, signal.SIGTERM, 0.1)
            assert deaf.state.exit_code == 137
            assert engine.told.actions(deaf) == ["start", "kill", "kill", "die", "stop"]
            with pytest.raises(NotModified):
                await engine.lifecycle.stop(deaf, signal.SIGTERM, 1)
            with pytest.raises(Conflict, match="is not running"):
                await engine.lifecycle.kill(deaf, 9, stop_signal=15)
            await session.aclose()

    asyncio.run(scenario())


def test_a_frozen_container_does_nothing_until_it_is_thawed(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("sleep", "1000")
            await engine.lifecycle.start(container)
            await engine.lifecycle.pause(container)
            assert container.state.status is Status.PAUSED
            with pytest.raises(Conflict, match="already paused"):
                await engine.lifecycle.pause(container)
            await engine.lifecycle.unpause(container)
            await engine.lifecycle.pause(container)
            await engine.lifecycle.kill(container, 9, stop_signal=15)
            assert container.state.exit_code == 137

    asyncio.run(scenario())


def test_a_removed_container_leaves_nothing(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("true", host_config={"AutoRemove": True})
            removed = engine.lifecycle.wait(container, "removed")
            await engine.lifecycle.start(container)
            assert (await removed).status_code == 0
            with pytest.raises(NoSuchContainer):
                engine.store.resolve(container.id)
            assert not engine.store.directory(container.id).exists()
            assert engine.runtime.known() == []
            assert engine.told.actions(container) == ["start", "die", "destroy"]

    asyncio.run(scenario())


def test_a_terminal_joins_the_streams_and_takes_its_size(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add(
                "sh", "-c", "read x; stty size; echo err >&2", Tty=True, OpenStdin=True, StdinOnce=True
            )
            session = engine.lifecycle.attach(container, Wanted(stdin=True))
            await engine.lifecycle.start(container)
            await engine.lifecycle.resize(container, 33, 77)
            await session.write_stdin(b"go\n")
            assert (await collect(session))[0] == b"go\r\n33 77\r\nerr\r\n"

    asyncio.run(scenario())


def test_stdin_reaches_its_end_when_the_client_has_sent_everything(tmp_path: Path, busybox: Path) -> None:
    sent = bytes(range(256)) * 40_000

    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("sh", "-c", "cat; echo done", OpenStdin=True, StdinOnce=True)
            session = engine.lifecycle.attach(container, Wanted(stdin=True))

            async def feed() -> None:
                await session.write_stdin(sent)
                await session.close_stdin()

            async with asyncio.TaskGroup() as group:
                received = group.create_task(collect(session))
                group.create_task(feed())
                await engine.lifecycle.start(container)
            assert received.result()[0] == sent + b"done\n"

    asyncio.run(scenario())


def test_every_client_gets_everything_from_where_it_came_in(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("cat", OpenStdin=True, StdinOnce=True)
            first = engine.lifecycle.attach(container, Wanted(stdin=True))
            second = engine.lifecycle.attach(container, Wanted())
            await engine.lifecycle.start(container)
            await first.write_stdin(b"one\n")
            async for output in first.output():
                assert output == (1, b"one\n")
                break
            late = engine.lifecycle.attach(container, Wanted(from_start=False))
            await first.write_stdin(b"two\n")
            await first.close_stdin()
            assert await collect(second) == (b"one\ntwo\n", b"")
            assert await collect(late) == (b"two\n", b"")
            await first.aclose()

    asyncio.run(scenario())


def test_a_container_without_log_still_shows_its_output(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("sh", "-c", "echo out; echo err >&2", host_config={"LogConfig": {"Type": "none"}})
            assert await engine.output(container) == (b"out\n", b"err\n", 0)
            async with engine.workers.holding(container.id):  # behind its exit, the record is still being written
                names = sorted(path.name for path in engine.store.directory(container.id).iterdir())
            assert names == [
                "checkpoints",
                "config.v2.json",
                "hostconfig.json",
            ]

    asyncio.run(scenario())


def test_a_container_without_log_reads_its_input_to_the_end(tmp_path: Path, busybox: Path) -> None:
    sent = bytes(range(256)) * 4000

    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("cat", host_config={"LogConfig": {"Type": "none"}}, OpenStdin=True, StdinOnce=True)
            session = engine.lifecycle.attach(container, Wanted(stdin=True))
            await engine.lifecycle.start(container)
            async with asyncio.TaskGroup() as group:
                received = group.create_task(collect(session))
                await session.write_stdin(sent)
                await session.close_stdin()
            assert received.result()[0] == sent

    asyncio.run(scenario())


def test_who_gives_up_waiting_is_forgotten(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("true")
            given_up, kept = (engine.lifecycle.wait(container, "next-exit") for _ in range(2))
            given_up.cancel()
            await engine.output(container)
            assert (await kept).status_code == 0

    asyncio.run(scenario())


def test_twenty_at_once(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            containers = [engine.add("sh", "-c", f"echo {number}; exit {number}") for number in range(20)]
            found = await asyncio.gather(*(engine.output(container) for container in containers))
            assert found == [(b"%d\n" % number, b"", number) for number in range(20)]

    asyncio.run(scenario())


def test_a_container_whose_monitor_is_killed_is_killed_too(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("sleep", "1000")
            await engine.lifecycle.start(container)
            pid = container.state.pid
            run = engine.lifecycle.running(container)
            waiting = engine.lifecycle.wait(container, "not-running")
            signal.pidfd_send_signal(run.monitor.pidfd, signal.SIGKILL)
            assert (await waiting).status_code == 137
            await engine.lifecycle.remove(container, volumes=True)
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    asyncio.run(scenario())


def test_a_run_is_quick(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> float:
        async with host(tmp_path, busybox) as engine:
            times = []
            for _ in range(5):
                container = engine.add("true")
                began = time.monotonic()
                await engine.output(container)
                times.append(time.monotonic() - began)
                await engine.lifecycle.remove(container, volumes=True)
            return min(times)

    assert asyncio.run(scenario()) < 0.5


def test_the_end_of_a_run_is_told_though_its_output_cannot_be_carried(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add(
                "sh",
                "-c",
                "read x; yes $(head -c 1000 /dev/zero | tr '\\0' a) | head -c 20000000; exit 3",
                OpenStdin=True,
            )
            session = engine.lifecycle.attach(container, Wanted(stdin=True, stdout=False, stderr=False))
            await engine.lifecycle.start(container)
            directory = engine.store.directory(container.id)
            directory.rename(tmp_path / "away")  # from now on no mark can be written when the long journal is freed
            await session.write_stdin(b"go\n")
            async with asyncio.timeout(20):
                assert (await engine.lifecycle.wait(container, "not-running")).status_code == 3
            await session.aclose()

    asyncio.run(scenario())


def test_a_record_with_a_strange_time_hides_no_exit(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("sh", "-c", "sleep 0.2; exit 3")
            await engine.lifecycle.start(container)
            container.state.started_at = "yesterday"
            async with asyncio.timeout(10):
                assert (await engine.lifecycle.wait(container, "not-running")).status_code == 3

    asyncio.run(scenario())


def test_a_stop_without_end_does_not_keep_the_daemon(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(10), host(tmp_path, busybox) as engine:
            container = engine.add("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
            session = engine.lifecycle.attach(container, Wanted())
            await engine.lifecycle.start(container)
            async for _ in session.output():
                break
            await session.aclose()
            stopping = asyncio.ensure_future(engine.lifecycle.stop(container, signal.SIGTERM, None))
            while "kill" not in engine.told.actions(container):  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await stopping

    asyncio.run(scenario())


def test_a_client_that_takes_nothing_does_not_hide_the_end_of_an_unlogged_run(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine:
            container = engine.add("yes", host_config={"LogConfig": {"Type": "none"}})
            session = engine.lifecycle.attach(container, Wanted())
            waiting = engine.lifecycle.wait(container, "next-exit")
            await engine.lifecycle.start(container)
            run = engine.lifecycle.running(container)
            async for _ in session.output():
                break  # and never again
            async with asyncio.timeout(20):
                while not run._listeners[0].full():  # noqa: ASYNC110 - there is nothing to wait on
                    await asyncio.sleep(0.01)
                await engine.lifecycle.kill(container, signal.SIGKILL, stop_signal=signal.SIGTERM)
                assert (await waiting).status_code == 137
            assert run.settled.is_set()
            await session.aclose()

    asyncio.run(scenario())


def test_running_out_of_descriptors_does_not_end_the_engine(tmp_path: Path, busybox: Path) -> None:
    async def scenario() -> None:
        async with host(tmp_path, busybox) as engine, asyncio.TaskGroup() as tasks:
            lifecycle = Lifecycle(
                store=engine.store, runtime=engine.runtime, resources=engine.resources, events=engine.told,
                workers=engine.workers, clock=SystemClock(), tasks=tasks, strangers_s=0.01,
            )  # fmt: skip
            await engine.workers.call(os.getpid)  # its threads are there
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                await asyncio.sleep(0.2)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await lifecycle.aclose()
            assert await engine.output(engine.add("echo", "served")) == (b"served\n", b"", 0)

    asyncio.run(scenario())
