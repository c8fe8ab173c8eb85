"""Attach and exec: the streams of a process over a connection that has left HTTP (async)."""

from __future__ import annotations

import asyncio
from enum import Enum

from lamina.api.routing import Call
from lamina.api.streams import closing
from lamina.engine.services import Session
from lamina.errors import Unavailable
from lamina.http.hijack import RawConnection
from lamina.wire.engine.detach import DetachScanner
from lamina.wire.engine.rawstream import MULTIPLEXED, RAW, frame
from lamina.wire.engine.versions import MULTIPLEXED_SINCE


def take_over(call: Call, *, tty: bool) -> RawConnection:
    """Answer 101 to a client that asked to upgrade, 200 to one that did not; both continue as raw bytes."""
    if "Upgrade" not in call.request.headers:
        return call.request.hijack(f"HTTP/1.1 200 OK\r\nContent-Type: {RAW}\r\n\r\n".encode())
    content_type = MULTIPLEXED if not tty and call.version >= MULTIPLEXED_SINCE else RAW
    return call.request.hijack(
        b"HTTP/1.1 101 UPGRADED\r\n"
        b"Content-Type: " + content_type.encode() + b"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )


async def take_over_for(session: Session, call: Call, *, tty: bool) -> RawConnection:
    """As `take_over`; when the client is gone already, the session is let go of."""
    try:
        return take_over(call, tty=tty)
    except BaseException:
        await session.aclose()
        raise


class Ending(Enum):
    """Why a client's view of a process ended."""

    SAID_ALL = "the process has said everything"
    DETACHED = "the client typed the detach keys"
    CLIENT_GONE = "the client is gone: what it did not take is lost to it alone"


class _DetachedError(Exception):
    """The detach keys were typed."""


async def pump(session: Session, connection: RawConnection, *, keys: bytes, stdin: bool, framed: bool) -> Ending:
    """Carry bytes both ways until the process has said everything, the client is gone, or it typed the detach keys.

    The client's half-close is the end of stdin; output goes on, with a header before each piece when `framed`. Detach
    keys count only with a terminal. Lets go of the session in any case.
    """
    scanner = DetachScanner(keys if session.tty else b"")
    ending = Ending.SAID_ALL
    try:
        async with asyncio.TaskGroup() as both:
            typing = both.create_task(_type_in(session, connection, scanner, stdin=stdin))
            async with closing(session.output()) as output:
                async for stream, data in output:
                    await connection.write(frame(stream, data) if framed else data)
            typing.cancel()
    except* ConnectionError:
        ending = Ending.CLIENT_GONE
    except* _DetachedError:
        ending = Ending.DETACHED
    finally:
        await session.aclose()
        connection.close()
    return ending


async def _type_in(session: Session, connection: RawConnection, scanner: DetachScanner, *, stdin: bool) -> None:
    if stdin:
        await _feed_stdin(session, connection, scanner)
    await connection.lost()
    raise ConnectionResetError("the client went away")


async def _feed_stdin(session: Session, connection: RawConnection, scanner: DetachScanner) -> None:
    try:
        while data := await connection.read():
            if passed := scanner.feed(data):
                await session.write_stdin(passed)
            if scanner.detached:
                raise _DetachedError
        if held := scanner.flush():
            await session.write_stdin(held)
        await session.close_stdin()
    except ConnectionResetError:
        raise
    except (OSError, Unavailable):
        return  # the process reads no more; what is still typed goes nowhere
