import pytest

from lamina.containers.capabilities import ALL, DEFAULT, from_mask, granted
from lamina.errors import InvalidArgument, Unsupported

EVERY = frozenset(ALL)


def test_the_default_is_dockers():
    assert set(granted([], [], EVERY)) == from_mask(0xA80425FB)


def test_names_go_with_and_without_prefix_in_any_case():
    assert "CAP_NET_ADMIN" in granted(["net_admin"], [], EVERY)
    assert "CAP_NET_ADMIN" in granted(["CAP_NET_ADMIN"], [], EVERY)
    assert "CAP_CHOWN" not in granted([], ["chown"], EVERY)


def test_all_added_without_one_is_all_but_one():
    assert set(granted(["ALL"], ["SYS_ADMIN"], EVERY)) == EVERY - {"CAP_SYS_ADMIN"}


def test_all_dropped_leaves_what_was_added():
    assert granted(["CHOWN"], ["ALL"], EVERY) == ("CAP_CHOWN",)
    assert granted([], ["ALL"], EVERY) == ()


def test_privileged_is_everything_the_daemon_has():
    available = EVERY - {"CAP_SYS_RESOURCE"}
    assert set(granted([], ["CHOWN"], available, privileged=True)) == available
    assert "CAP_SYS_RESOURCE" not in granted(["ALL"], [], available)


def test_default_ones_that_the_daemon_lacks_are_left_out():
    assert set(granted([], [], EVERY - {"CAP_MKNOD"})) == set(DEFAULT) - {"CAP_MKNOD"}


def test_one_that_the_daemon_lacks_cannot_be_added():
    with pytest.raises(Unsupported, match="CAP_SYS_RESOURCE"):
        granted(["SYS_RESOURCE"], [], EVERY - {"CAP_SYS_RESOURCE"})


def test_an_unknown_name_is_refused():
    with pytest.raises(InvalidArgument, match='invalid capability: "FLY"'):
        granted([], ["FLY"], EVERY)
