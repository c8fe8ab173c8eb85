"""The Engine API as this client speaks it: requests, JSON lines, and connections taken over for streams."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from lamina import __version__
from lamina.errors import Conflict, InvalidArgument, LaminaError, NotFound, NotServed, PermissionDenied, Unavailable

NEWEST_API = (1, 51)
DEFAULT_HOST = "unix:///run/lamina.sock"

_CATEGORIES: dict[int, type[LaminaError]] = {
    400: InvalidArgument,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    501: NotServed,
    503: Unavailable,
}


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("lamina")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.connect(self._path)


Source = Callable[[Callable[[bytes], None]], None]
"""Writes a body: called with the function that sends a piece."""


class _Upload:
    """A body of unknown length, sent by a thread of its own: the daemon may answer while it is still coming."""

    def __init__(self, connection: http.client.HTTPConnection, source: Source) -> None:
        self.failure: LaminaError | None = None
        self._connection = connection
        self._source = source

    def begin(self, method: str, target: str, headers: Mapping[str, str]) -> None:
        self._connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
            self._connection.putheader(name, value)
        self._connection.endheaders()
        threading.Thread(target=self._run, args=(self._connection.sock,), daemon=True).start()

    def _run(self, sock: socket.socket) -> None:
        def piece(data: bytes) -> None:
            if data:
                sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))

        try:
            self._source(_Sending(piece))
            sock.sendall(b"0\r\n\r\n")
        except _ClosedError:
            return  # the daemon has seen enough: its answer says why
        except (OSError, LaminaError) as error:
            self.failure = (
                error if isinstance(error, LaminaError) else LaminaError(f"cannot read what to send: {error}")
            )
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # never a truncated body that looks whole


class _ClosedError(Exception):
    """The daemon does not read any further."""


class _Sending:
    """Tells a daemon that went away from a source that cannot be read."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def __call__(self, data: bytes) -> None:
        try:
            self._send(data)
        except OSError as error:
            raise _ClosedError from error


class Client:
    """One daemon. Connections are made per request, so a long stream never holds another request up."""

    def __init__(self, host: str, environment: Mapping[str, str]) -> None:
        self.host = host
        self._environment = environment
        self._version: str | None = None

    @property
    def version(self) -> str:
        """The API version both sides know, asked for once."""
        if self._version is None:
            response = self._send("HEAD", "/_ping", None, {})
            response.read()
            offered = response.headers.get("Api-Version", "1.41")
            major, _, minor = offered.partition(".")
            newest = min(NEWEST_API, (int(major), int(minor)))
            self._version = f"{newest[0]}.{newest[1]}"
        return self._version

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        stream: Source | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Send a request and give the answer, whose body the caller reads.

        `query` values: None and False are left out, True is 1, a list is said once per item, a dictionary becomes
        JSON. `body` is sent as JSON. `stream` writes the body while the answer is already being read.

        Raises:
            LaminaError: the daemon refused, by category, with its message; or it is not there.
        """
        target = f"/v{self.version}{quote(path, safe='/:@%')}{_query(query)}"
        sent = dict(headers or {})
        payload: bytes | Source | None = stream
        if body is not None:
            payload = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        elif stream is not None:
            sent.setdefault("Content-Type", "application/x-tar")
        response = self._send(method, target, payload, sent)
        if response.status >= 400:
            raise _refusal(response.status, response.read())
        return response

    def call(self, method: str, path: str, **keywords: Any) -> Any:
        """The answer as a JSON value; None for an empty one."""
        data = self.request(method, path, **keywords).read()
        return _json(data) if data.strip() else None

    def lines(self, method: str, path: str, **keywords: Any) -> Iterator[dict[str, Any]]:
        """A stream of JSON objects, as they come.

        Raises:
            LaminaError: also for an error that comes as the last line.
        """
        response = self.request(method, path, **keywords)
        while line := response.readline():
            if not line.strip():
                continue
            message = _json(line)
            if "error" in message:
                raise LaminaError(str(message["error"]))
            yield message

    def take_over(
        self, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> tuple[socket.socket, str]:
        """POST and keep the connection as a raw stream; with the content type that was answered.

        Raises:
            LaminaError: as `request`.
        """
        payload = json.dumps(body).encode() if body is not None else b""
        target = f"/v{self.version}{path}{_query(query)}"
        head = (
            f"POST {target} HTTP/1.1\r\nHost: lamina\r\nUser-Agent: lamina/{__version__}\r\nConnection: Upgrade\r\n"
            f"Upgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        connection = self._connection()
        try:
            connection.connect()
            connection.sock.sendall(head.encode() + payload)
            answer = _read_head(connection.sock)
        except OSError as error:
            raise self._away(error) from error
        status, headers = _parse_head(answer)
        if status not in (101, 200):
            body_bytes = _read_rest(connection.sock, headers)
            raise _refusal(status, body_bytes)
        return connection.sock, headers.get("content-type", "")

    def _send(
        self, method: str, target: str, payload: bytes | Source | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        connection = self._connection()
        sent = {"User-Agent": f"lamina/{__version__}", "Host": "lamina", **headers}
        upload: _Upload | None = None
        try:
            if payload is None or isinstance(payload, bytes):
                self._talk(connection, method, target, payload, sent)
            else:
                upload = _Upload(connection, payload)
                upload.begin(method, target, sent)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            if upload is not None and upload.failure is not None:
                raise upload.failure from error
            raise self._away(error) from error

    def _talk(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        payload: bytes | None,
        headers: dict[str, str],
    ) -> None:
        # A daemon that refuses before it has read everything closes its side: its answer says why.
        with contextlib.suppress(BrokenPipeError):
            connection.request(method, target, payload, headers)

    def _connection(self) -> http.client.HTTPConnection:
        scheme, _, rest = self.host.partition("://")
        if scheme == "unix":
            return _UnixConnection(rest)
        if scheme == "tcp":
            address, _, port = rest.rstrip("/").rpartition(":")
            if not address or not port.isdecimal():
                raise InvalidArgument(f"no port in the address {self.host!r}", hint="such as tcp://127.0.0.1:2376")
            address = address.removeprefix("[").removesuffix("]")
            if self._environment.get("DOCKER_TLS_VERIFY"):
                return http.client.HTTPSConnection(address, int(port), context=self._tls())
            return http.client.HTTPConnection(address, int(port))
        raise InvalidArgument(
            f"unable to parse docker host {self.host!r}", hint="hosts are unix:///path or tcp://host:port"
        )

    def _tls(self) -> Any:
        import ssl

        directory = self._environment.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
        context = ssl.create_default_context(cafile=os.path.join(directory, "ca.pem"))
        context.load_cert_chain(os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem"))
        return context

    def _away(self, error: Exception) -> Unavailable:
        if isinstance(error, PermissionError):
            return Unavailable(
                f"permission denied while trying to connect to the daemon at {self.host}",
                hint="use sudo, or join the group that owns the socket",
            )
        return Unavailable(
            f"Cannot connect to the daemon at {self.host}. Is it running?",
            hint="start it with `lamina daemon`, or point LAMINA_HOST (or DOCKER_HOST) at it",
        )


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise LaminaError("the daemon's answer is no JSON: is this the socket of an engine?") from error


_MAX_HEAD_BYTES = 64 << 10


def _read_head(sock: socket.socket) -> bytes:
    """Exactly the head of an answer: what comes after it stays in the socket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        if not piece or len(head) > _MAX_HEAD_BYTES:
            raise ConnectionError("the daemon closed the connection")
        head += piece
    return head


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon
    }
    return int(first.split()[1]), headers


def _read_rest(sock: socket.socket, headers: Mapping[str, str]) -> bytes:
    wanted = int(headers.get("content-length", "0") or "0")
    found = b""
    while len(found) < wanted:
        piece = sock.recv(65536)
        if not piece:
            break
        found += piece
    return found


def _query(values: Mapping[str, Any] | None) -> str:
    """With its `?`, or nothing."""
    said: list[tuple[str, str]] = []
    for key, value in (values or {}).items():
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                said.append((key, "1"))
            elif one is not None and one is not False:
                said.append((key, json.dumps(one) if isinstance(one, dict) else str(one)))
    return "?" + urlencode(said) if said else ""


def _refusal(status: int, data: bytes) -> LaminaError:
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data.decode(errors="replace").strip() or f"the daemon answered with status {status}"
    return _CATEGORIES.get(status, LaminaError)(message)
