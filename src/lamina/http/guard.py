"""Who may speak over TCP: answers to DNS rebinding and requests forged by web pages (pure).

Source: RFC 6454 (Origin); the engine socket is never meant for pages, so any Origin is refused, and a plain TCP
request must name this host by a loopback name, which a page of another site cannot.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from lamina.errors import PermissionDenied


def check_tcp(headers: Mapping[str, str], *, tls: bool) -> None:
    """Let a request over TCP pass.

    Raises:
        PermissionDenied: it carries an Origin, or names a host that is not this loopback (without TLS).
    """
    origin = headers.get("Origin")
    if origin is not None:
        raise PermissionDenied("requests from web pages are not served (the request has an Origin header)")
    if not tls and not is_loopback_name(headers.get("Host", "")):
        raise PermissionDenied(f"the Host header {headers.get('Host', '')[:100]!r} does not name this loopback address")


def is_loopback_name(host: str) -> bool:
    """`localhost`, a name below it, or a loopback address; with or without a port."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
    name = name.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
