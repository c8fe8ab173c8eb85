"""Who stands on whom."""

from lamina.ids import CacheId
from lamina.storage.children import Children


def test_a_parent_is_held_until_its_last_child_has_gone() -> None:
    children: Children[str] = Children()
    for name in ("a", "b", "b"):
        children.add("parent", CacheId(name))
    assert children.count("parent") == 2
    children.discard("parent", CacheId("a"))
    children.discard("parent", CacheId("a"))
    assert children.count("parent") == 1
    children.discard("parent", CacheId("b"))
    children.discard("stranger", CacheId("b"))
    assert children.count("parent") == 0
