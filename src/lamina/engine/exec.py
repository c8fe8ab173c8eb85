"""Run one more command in a container: create, start, inspect, resize (async)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from lamina.containers.attach import AttachSession, Output
from lamina.containers.execs import Exec, ExecOrder, Execs
from lamina.containers.lifecycle import Lifecycle
from lamina.containers.record import Container
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.errors import Conflict, InvalidArgument, NotFound, ProcessFailed, Unavailable
from lamina.jsonvalue import JsonObject, boolean, from_strings, strings, text


class ProcessMaker(Protocol):
    """Makes the runtime's description of an exec's process (blocking)."""

    def exec_process(self, container: Container, order: ExecOrder) -> JsonObject:
        """Resolve user and environment inside the running container. Raises InvalidArgument."""


@dataclass(frozen=True, slots=True)
class ExecCreate:
    """Describe a command to run in a container."""

    store: ContainerStore
    lifecycle: Lifecycle
    execs: Execs

    async def __call__(self, ref: str, config: JsonObject) -> str:
        """The new exec's id.

        Raises:
            NoSuchContainer: no such container.
            Conflict: it does not run, or is frozen.
            InvalidArgument: no command.
        """
        container = self.store.resolve(ref)
        _require_running(container)
        args = tuple(strings(config, "Cmd"))
        if not args:
            raise InvalidArgument("No exec command specified")
        order = ExecOrder(
            args,
            tty=boolean(config, "Tty"),
            attach_stdin=boolean(config, "AttachStdin"),
            attach_stdout=boolean(config, "AttachStdout"),
            attach_stderr=boolean(config, "AttachStderr"),
            env=tuple(strings(config, "Env")),
            cwd=text(config, "WorkingDir"),
            user=text(config, "User"),
            privileged=boolean(config, "Privileged"),
            detach_keys=text(config, "DetachKeys"),
        )
        one = self.execs.create(container.id, order)
        self.lifecycle.tell(container, f"exec_create: {' '.join(args)}", execID=one.id)
        return one.id


@dataclass(frozen=True, slots=True)
class ExecStart:
    """Run the command of an exec."""

    store: ContainerStore
    lifecycle: Lifecycle
    execs: Execs
    processes: ProcessMaker

    async def __call__(self, exec_id: str, *, detach: bool, tty: bool = False) -> AttachSession | None:
        """Its streams; None when detached. The terminal is as create asked for (`tty` is what the client believes).

        A command that cannot be started is told on the stream, as Docker does, when there is one.

        Raises:
            NoSuchExec: no such exec.
            Conflict: it was started before, or its container does not run.
            CommandNotFound, CommandNotExecutable, ProcessFailed: only when detached.
        """
        one = self.execs.get(exec_id)
        container = self.store.resolve(one.container_id)
        _require_running(container)
        command = " ".join(one.order.args)
        self.lifecycle.tell(container, f"exec_start: {command}", execID=one.id)
        try:
            return await self.lifecycle.whole(
                self.execs.start(
                    one,
                    lambda: self.processes.exec_process(container, one.order),
                    detach=detach,
                    ended=lambda ended: self._ended(container, ended),
                )
            )
        except (ProcessFailed, InvalidArgument, NotFound) as error:
            self._ended(container, one)
            if detach:
                raise
            return _Refusal(one.order.tty, f"{error}\r\n".encode())

    def _ended(self, container: Container, one: Exec) -> None:
        self.lifecycle.tell(container, "exec_die", execID=one.id, exitCode=str(one.exit_code))


class _Refusal(AttachSession):
    """A session that only says why there is none."""

    def __init__(self, tty: bool, words: bytes) -> None:  # noqa: FBT001 - a value, not a switch
        self.tty = tty
        self._words = words

    async def output(self) -> AsyncIterator[Output]:
        yield 1, self._words

    async def write_stdin(self, data: bytes) -> None:
        raise Unavailable(f"the command was not started ({len(data)} bytes of input refused)")

    async def close_stdin(self) -> None:
        return

    async def aclose(self) -> None:
        return


@dataclass(frozen=True, slots=True)
class ExecInspect:
    """What is known of an exec, in Docker's shape."""

    execs: Execs

    async def __call__(self, exec_id: str) -> JsonObject:
        """Raises NoSuchExec."""
        one = self.execs.get(exec_id)
        order = one.order
        process: JsonObject = {
            "tty": order.tty,
            "entrypoint": order.args[0],
            "arguments": from_strings(order.args[1:]),
            "privileged": order.privileged,
        }
        if order.user:
            process["user"] = order.user
        return {
            "ID": one.id,
            "Running": one.running,
            "ExitCode": one.exit_code,
            "ProcessConfig": process,
            "OpenStdin": order.attach_stdin,
            "OpenStderr": order.attach_stderr,
            "OpenStdout": order.attach_stdout,
            "CanRemove": one.exit_code is not None,
            "ContainerID": one.container_id,
            "DetachKeys": order.detach_keys,
            "Pid": one.pid,
        }


@dataclass(frozen=True, slots=True)
class ExecResize:
    """Set the size of an exec's terminal."""

    execs: Execs

    async def __call__(self, exec_id: str, height: int, width: int) -> None:
        """Raises NoSuchExec; Conflict when it does not run or has no terminal."""
        self.execs.resize(self.execs.get(exec_id), height, width)


def _require_running(container: Container) -> None:
    """Source: moby daemon/exec.go, getActiveContainer."""
    if container.state.status is Status.PAUSED:
        raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
    if container.state.status is Status.RESTARTING:
        raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
    if container.state.status is not Status.RUNNING:
        raise Conflict(f"container {container.id} is not running")
