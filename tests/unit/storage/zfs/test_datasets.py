from __future__ import annotations

import pytest

from lamina.storage.zfs.datasets import Child, is_going_name

HEX = "0123456789abcdef" * 4


def child(name: str, *, marked: bool = False, mountpoint: str = "legacy") -> Child:
    return Child(f"tank/docker/{name}", marked, mountpoint, origin="", snapshots=())


@pytest.mark.parametrize(
    ("found", "is_layer", "is_going"),
    [
        (child("base", marked=True), True, False),
        (child("base"), False, False),
        (child(HEX), True, False),
        (child(f"{HEX}-init"), True, False),
        (child(HEX, mountpoint="/var/lib/docker/x"), True, False),
        (child(HEX, mountpoint=""), False, False),
        (child(HEX[:-1]), False, False),
        (child(f"{HEX}-removing-17"), False, True),
        (child("base-removing-17", marked=True), False, True),
        (child("backup-removing-17"), False, False),
        (child(":odd", marked=True), False, False),
    ],
    ids=lambda value: value.short_name if isinstance(value, Child) else None,
)
def test_only_what_a_driver_made_is_a_layer(found: Child, *, is_layer: bool, is_going: bool) -> None:
    """Somebody else's dataset below ours must never be taken for a layer: unknown layers are swept."""
    assert (found.is_layer, found.is_going) == (is_layer, is_going)


def test_names_of_what_is_going_are_known() -> None:
    assert is_going_name("base-removing-4294967295")
    assert not is_going_name("base-removing-")
    assert not is_going_name("removing-1")
