from __future__ import annotations

import pytest

from lamina.errors import InvalidArgument
from lamina.http.exchange import split_target


def test_targets_are_split_and_decoded():
    assert split_target("/a%2Fb/c?x=1&x=%20&y") == ("/a/b/c", {"x": ["1", " "], "y": [""]})
    assert split_target("http://h:1/a?b=c") == ("/a", {"b": ["c"]})
    assert split_target("*") == ("/", {})
    assert split_target("//a/../b") == ("//a/../b", {})


@pytest.mark.parametrize("target", ["/%ff", "/a%00", "/%0d%0a", "/a%7f", "/?" + "a=b&" * 2000])
def test_targets_that_mean_nothing_are_refused(target):
    with pytest.raises(InvalidArgument):
        split_target(target)
