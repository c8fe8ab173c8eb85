"""Packet filter rules in one transaction."""

import os
from collections.abc import Iterator

import pytest

from lamina.errors import Unsupported
from lamina.kernel import libc
from lamina.kernel.nftables import Nftables

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _own_network() -> Iterator[None]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc.unshare(libc.CLONE_NEWNET)
    yield
    libc.setns(before, libc.CLONE_NEWNET)
    os.close(before)


def test_a_failing_rule_leaves_none_of_the_transaction() -> None:
    nftables = Nftables()
    with pytest.raises(Unsupported, match="cannot set packet filter rules"):
        nftables.run("table ip one {\n}\nadd rule ip absent c accept\n")
    with pytest.raises(Unsupported):
        nftables.run("delete table ip one\n")


def test_rules_that_are_there_can_be_deleted() -> None:
    nftables = Nftables()
    nftables.run("table ip one {\nchain c {\nip saddr 10.0.0.0/8 accept\n}\n}\n")
    nftables.run("delete table ip one\n")
    with pytest.raises(Unsupported):
        nftables.run("delete table ip one\n")


def test_nonsense_is_told_with_the_librarys_words() -> None:
    with pytest.raises(Unsupported, match="syntax error"):
        Nftables().run("this is not a rule")
