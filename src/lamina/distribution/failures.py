"""What goes wrong with a registry, as errors that say so (async: it knows the errors of the HTTP library).

The texts keep the words that people and scripts know from Docker: "connection refused", "no such host", "x509",
"manifest unknown", "unauthorized", "denied", "toomanyrequests".
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from lamina.errors import LaminaError, NotFound, PermissionDenied, Unauthenticated, Unavailable
from lamina.wire.registry.codes import Refusal


class Unreachable(Unavailable):
    """No conversation with the registry came about, or it broke off: another try, or another endpoint, may help.

    `is_settled`: the same endpoint will say the same again.
    """

    def __init__(self, message: str, *, hint: str = "", is_settled: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_settled = is_settled


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request was for: `host` as the user knows it; `subject` such as `manifest for redis:7`."""

    host: str
    image: str
    subject: str
    is_push: bool = False
    with_credentials: bool = False


def unreachable(host: str, error: BaseException) -> LaminaError:
    """A connection that failed or broke off."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _not_trusted(host, error.certificate_error)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return _not_trusted(host, error) if "CERTIFICATE_VERIFY_FAILED" in str(error) else _no_tls(host, error)
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return _not_found_by_name(host, error)
    if isinstance(error, asyncio.TimeoutError):
        return Unreachable(f"registry {host} does not answer: i/o timeout")
    if isinstance(error, OSError) and error.errno == errno.ECONNREFUSED:
        return Unreachable(
            f"cannot reach registry {host}: connection refused",
            hint="is the registry running, and the port right?",
            is_settled=True,
        )
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return Unreachable(f"registry {host} broke off the connection: unexpected EOF")
    if isinstance(error, OSError) and error.errno:
        return Unreachable(f"cannot reach registry {host}: {errno_text(error.errno)}")
    return Unreachable(f"cannot talk to registry {host}: {str(error) or type(error).__name__}")


def _not_found_by_name(host: str, error: OSError) -> LaminaError:
    if error.errno == socket.EAI_AGAIN:
        return Unreachable(f"cannot reach registry {host}: temporary failure in name resolution")
    return Unreachable(
        f"cannot reach registry {host}: no such host", hint="check the name, and the DNS of this host", is_settled=True
    )


def errno_text(number: int) -> str:
    """The kernel's text, as Go prints it: without a capital."""
    return {
        errno.ECONNRESET: "connection reset by peer",
        errno.ENETUNREACH: "network is unreachable",
        errno.EHOSTUNREACH: "no route to host",
        errno.ETIMEDOUT: "connection timed out",
        errno.EPIPE: "broken pipe",
    }.get(number, errno.errorcode.get(number, f"error {number}"))


def _not_trusted(host: str, error: BaseException) -> LaminaError:
    reason = getattr(error, "verify_message", "") or str(error)
    return Unavailable(
        f"registry {host} is not trusted: x509: certificate signed by unknown authority ({reason})"
        if "hostname" not in reason.lower() and "expired" not in reason.lower() and "IP address" not in reason
        else f"registry {host} is not trusted: x509: {reason}",
        hint=f"put the authority's certificate at /etc/docker/certs.d/{host}/ca.crt, or use --insecure-registry {host}",
    )


def _no_tls(host: str, error: BaseException) -> LaminaError:
    if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER_FAILURE" in str(error):
        return Unreachable(
            f"registry {host} does not speak TLS: http: server gave HTTP response to HTTPS client",
            hint=f"if that is meant to be so: --insecure-registry {host}",
            is_settled=True,
        )
    return Unreachable(f"no TLS connection to registry {host}: {error}")


def refused(asked: Asked, status: int, refusals: Sequence[Refusal], *, retry_after: str = "") -> LaminaError:
    """An answer other than the one hoped for."""
    told = _told(refusals)
    verb = "push" if asked.is_push else "pull"
    if status == 401:
        why = "the registry refused the given credentials" if asked.with_credentials else "authentication required"
        return Unauthenticated(
            f"{verb} access denied for {asked.image}, repository does not exist or may require 'docker login': "
            f"unauthorized: {told or why}",
            hint=f"log in with `docker login {asked.host}`",
        )
    if status == 403:
        return PermissionDenied(
            f"{verb} access denied for {asked.image}: denied: {told or 'requested access to the resource is denied'}"
        )
    if status == 404:
        return _not_found(asked, refusals)
    if status == 429:
        wait = f"; it says to wait {retry_after} s" if retry_after.isascii() and retry_after.isdigit() else ""
        return Unavailable(
            f"toomanyrequests: registry {asked.host} refuses for now: {told or 'too many requests'}{wait}"
        )
    text = f"registry {asked.host} answered {status} for {asked.subject}{': ' if told else ''}{told}"
    return Unreachable(text) if status >= 500 else LaminaError(text)


def _not_found(asked: Asked, refusals: Sequence[Refusal]) -> LaminaError:
    told = _told(refusals)
    if any(refusal.code == "NAME_UNKNOWN" for refusal in refusals):
        return NotFound(f"repository {asked.image} not found: name unknown: {told}")
    unknown = "manifest unknown" if asked.subject.startswith("manifest") else "blob unknown"
    detail = f": {told}" if told and told != unknown else ""
    return NotFound(f"{asked.subject} not found: {unknown}{detail}")


def _told(refusals: Sequence[Refusal]) -> str:
    return "; ".join(refusal.message or refusal.code for refusal in refusals[:3])
