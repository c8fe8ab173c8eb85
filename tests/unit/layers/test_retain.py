import pytest

from lamina.errors import Conflict
from lamina.layers.retain import Holds
from lamina.oci.digest import ChainId, Digest

CHAIN = ChainId(Digest("sha256:" + "1" * 64))


def test_the_last_hold_given_back_is_told() -> None:
    holds = Holds()
    holds.take(CHAIN)
    holds.take(CHAIN)
    assert holds.count(CHAIN) == 2
    assert holds.give(CHAIN) is False
    assert holds.give(CHAIN) is True
    assert holds.count(CHAIN) == 0


def test_more_than_was_taken_is_not_given_back() -> None:
    with pytest.raises(Conflict, match="nobody holds"):
        Holds().give(CHAIN)
