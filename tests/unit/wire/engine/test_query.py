from __future__ import annotations

import pytest

from lamina.errors import InvalidArgument
from lamina.wire.engine import query


@pytest.mark.parametrize("text", ["", "0", "no", "false", "none", "False", " NO "])
def test_false(text):
    assert query.boolean({"k": [text]}, "k", default=True) is False


@pytest.mark.parametrize("text", ["1", "true", "yes", "anything"])
def test_true(text):
    assert query.boolean({"k": [text]}, "k") is True


def test_absent_is_the_default():
    assert query.boolean({}, "k", default=True) is True
    assert query.integer({}, "k") is None
    assert query.integer({"k": [""]}, "k") is None
    assert query.text({}, "k", "d") == "d"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("1.5", 1_500_000_000), ("1.000000001", 1_000_000_001), ("-1", -1_000_000_000), ("", None),
     ("1.0000000019", 1_000_000_001)],
)  # fmt: skip
def test_times(text, expected):
    assert query.timestamp_ns({"k": [text]}, "k") == expected


@pytest.mark.parametrize("text", ["x", "1.", "1e3", "2020-01-01", "1.2.3", "\u0661"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(InvalidArgument):
        query.timestamp_ns({"k": [text]}, "k")


@pytest.mark.parametrize("text", ["x", "1.5", "9" * 30, "0x1"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(InvalidArgument):
        query.integer({"k": [text]}, "k")
