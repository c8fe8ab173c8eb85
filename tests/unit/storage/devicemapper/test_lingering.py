from __future__ import annotations

import threading

from lamina.storage.devicemapper.lingering import Lingering


def test_what_is_added_goes_in_a_moment_and_once() -> None:
    gone: list[str] = []
    went = threading.Event()

    def let_go(name: str) -> None:
        gone.append(name)
        if len(gone) == 2:
            went.set()

    lingering = Lingering("store-1", let_go)
    for name in ("a", "b", "a"):
        lingering.add(name)
    assert gone == []
    assert went.wait(30)
    assert sorted(gone) == ["a", "b"]


def test_what_is_used_again_stays() -> None:
    gone: list[str] = []
    went = threading.Event()
    lingering = Lingering("store-2", lambda name: (gone.append(name), went.set())[0])
    lingering.add("used")
    lingering.add("unused")
    lingering.keep("used")
    lingering.keep("never there")
    assert went.wait(30)
    lingering.forget_all()
    assert gone == ["unused"]


def test_who_opens_a_store_again_takes_its_devices_over() -> None:
    gone: list[str] = []
    before = Lingering("store-3", gone.append)
    before.add("a")
    after = Lingering("store-3", gone.append)
    after.forget_all()
    before.forget_all()
    assert gone == []
