"""A container's streams: attach, logs, resize (async)."""

from __future__ import annotations

from urllib.parse import quote_plus

from lamina.api.hijack import pump, take_over_for
from lamina.api.routing import Call, Route
from lamina.api.streams import closing, line
from lamina.engine.services import LogLine, LogWanted
from lamina.errors import InvalidArgument, Unsupported
from lamina.http.exchange import Answer, Reply
from lamina.jsonvalue import JsonObject, boolean, mapping, text
from lamina.wire.engine.detach import parse_keys
from lamina.wire.engine.rawstream import MULTIPLEXED, RAW, frame
from lamina.wire.engine.versions import MULTIPLEXED_SINCE, Version

_ONE_SHOT_SINCE = Version(1, 41)


async def attach(call: Call) -> Answer:
    verb = call.verb(call.services.attach)
    keys = parse_keys(call.text("detachKeys"))
    stdin = call.flag("stdin")
    session = await verb(
        call.names["id"],
        stdin=stdin,
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        stream=call.flag("stream"),
        logs=call.flag("logs"),
    )
    call.request.end_with_client()
    connection = await take_over_for(session, call, tty=session.tty)
    await pump(session, connection, keys=keys, stdin=stdin, framed=not session.tty)
    return connection


async def logs(call: Call) -> Answer:
    verb, inspect = call.verb(call.services.logs), call.verb(call.services.inspect)
    wanted = LogWanted(
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        since_ns=call.time_ns("since"),
        until_ns=call.time_ns("until"),
        tail=_tail(call.text("tail")),
        follow=call.flag("follow"),
    )
    if not (wanted.stdout or wanted.stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    container = await inspect(call.names["id"], False)  # noqa: FBT003 (size: not needed)
    tty = boolean(mapping(container, "Config"), "Tty")
    call.request.end_with_client()
    framed_type = MULTIPLEXED if call.version >= MULTIPLEXED_SINCE else RAW
    stream = call.request.stream(200, [("Content-Type", RAW if tty else framed_type)])
    head = _LineHead(has_time=call.flag("timestamps"), has_details=call.flag("details"))
    if wanted.follow:
        _check_readable(container)
        await stream.begin()  # the first line may be long in coming
    async with closing(verb(call.names["id"], wanted)) as entries:
        async for entry in entries:
            data = head.before(entry) + entry.data
            await stream.write(data if tty else frame(entry.stream, data))
    await stream.end()
    return stream


async def stats(call: Call) -> Answer:
    streams = call.flag("stream", default=True)
    one_shot = call.flag("one-shot") and call.version >= _ONE_SHOT_SINCE
    if streams and one_shot:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    figures = call.verb(call.services.stats)(call.names["id"], stream=streams, one_shot=one_shot)
    call.request.end_with_client()
    stream = call.request.stream(200, [("Content-Type", "application/json")])
    async with closing(figures):
        async for one in figures:
            await stream.write(line(one))
    await stream.end()
    return stream


async def resize(call: Call) -> Answer:
    height, width = _size(call)
    await call.verb(call.services.resize)(call.names["id"], height, width)
    return Reply(200)


async def resize_exec(call: Call) -> Answer:
    height, width = _size(call)
    await call.verb(call.services.exec_resize)(call.names["id"], height, width)
    return Reply(200)


def _check_readable(container: JsonObject) -> None:
    driver = text(mapping(mapping(container, "HostConfig"), "LogConfig"), "Type")
    if driver not in {"", "json-file"}:
        raise Unsupported("configured logging driver does not support reading")


class _LineHead:
    """What comes before each line, and not before the pieces that a long one comes in: its time, its attributes."""

    def __init__(self, *, has_time: bool, has_details: bool) -> None:
        self._has_time = has_time
        self._has_details = has_details
        self._within_line: set[int] = set()

    def before(self, entry: LogLine) -> bytes:
        begins = entry.stream not in self._within_line
        if entry.data.endswith(b"\n"):
            self._within_line.discard(entry.stream)
        else:
            self._within_line.add(entry.stream)
        if not begins:
            return b""
        time = f"{nine_digits(entry.time)} " if self._has_time else ""
        # Of a line without attributes the space behind them is left, as in Docker.
        details = ",".join(f"{quote_plus(k)}={quote_plus(v)}" for k, v in sorted(entry.attrs.items())) + " "
        return f"{time}{details if self._has_details else ''}".encode()


def nine_digits(time: str) -> str:
    """An RFC 3339 time in UTC with all nine digits of its fraction, as `logs -t` prints it."""
    whole, _, fraction = time.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z"


def _tail(text: str) -> int | None:
    # Docker takes whatever is no number for "all".
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _size(call: Call) -> tuple[int, int]:
    height, width = call.number("h"), call.number("w")
    if height is None or width is None or not (0 <= height <= 65535 and 0 <= width <= 65535):
        raise InvalidArgument("invalid size: h and w are rows and columns, 0 to 65535")
    return height, width


ROWS = (
    Route("POST", "/containers/{id}/attach", attach, "ContainerAttach", takes_over=True),
    Route("GET", "/containers/{id}/logs", logs, "ContainerLogs"),
    Route("GET", "/containers/{id}/stats", stats, "ContainerStats"),
    Route("POST", "/containers/{id}/resize", resize, "ContainerResize"),
    Route("POST", "/exec/{id}/resize", resize_exec, "ExecResize"),
)
