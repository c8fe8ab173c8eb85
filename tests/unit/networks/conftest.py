"""A network namespace for one test, so that the machine's own links, routes and rules stay as they are."""

import os
from collections.abc import Iterator

import pytest

from lamina.kernel import libc
from lamina.kernel.netlink import Netlink, set_up


@pytest.fixture
def own_network() -> Iterator[None]:
    """The test's thread, and every thread it starts, is in a fresh network namespace."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc.unshare(libc.CLONE_NEWNET)
    try:
        with Netlink() as netlink:
            netlink.run(set_up(1))
        yield
    finally:
        libc.setns(before, libc.CLONE_NEWNET)
        os.close(before)
