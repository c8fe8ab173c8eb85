import random
import re

import pytest

from lamina.containers.names import CREATURES, QUALITIES, made_up_name, parse_name
from lamina.errors import InvalidArgument


@pytest.mark.parametrize(("given", "kept"), [("web", "web"), ("/web", "web"), ("a1", "a1"), ("A_b.c-d", "A_b.c-d")])
def test_an_allowed_name_is_kept_without_its_slash(given, kept):
    assert parse_name(given) == kept


@pytest.mark.parametrize("given", ["a", "-ab", "a b", "a/b", "//ab", "ä1", "ab\n", "", "_a", "../x"])
def test_a_name_of_other_characters_is_refused_in_dockers_words(given):
    words = f"Invalid container name ({given}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    with pytest.raises(InvalidArgument, match=re.escape(words)):
        parse_name(given)


def test_every_made_up_name_is_allowed():
    assert all(re.fullmatch("[a-z]+", word) for word in QUALITIES + CREATURES)
    assert len(set(QUALITIES)) * len(set(CREATURES)) > 10_000
    name = made_up_name(random.Random(1).choice)
    assert parse_name(name) == name
