from __future__ import annotations

import threading

from lamina.storage.devicemapper.keyed import KeyedLocks


def test_one_name_is_held_by_one_thread_and_others_are_free() -> None:
    locks = KeyedLocks()
    inside: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with locks.locked("a", "b"):
            entered.set()
            leave.wait(10)
            inside.append("first")

    def wait() -> None:
        with locks.locked("b"):
            inside.append("second")

    first = threading.Thread(target=hold)
    first.start()
    assert entered.wait(10)
    second = threading.Thread(target=wait)
    second.start()
    with locks.locked("c"):
        pass
    assert inside == []
    leave.set()
    first.join()
    second.join()
    assert inside == ["first", "second"]


def test_a_thread_may_take_its_lock_again() -> None:
    locks = KeyedLocks()
    with locks.locked("a", "b"), locks.locked("b"), locks.locked("a"):
        pass
    with locks.locked("b", "a"):
        pass


def test_names_nobody_wants_are_forgotten() -> None:
    locks = KeyedLocks()
    for number in range(100):
        with locks.locked(f"{number}"):
            pass
    assert locks._wanted == {}
