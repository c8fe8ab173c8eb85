"""Run in the machine: makes layers until the power is cut (`work`), and says what is left of them (`look`).

Every line of `work` is printed when the driver has answered; `look` prints what is wrong, and `consistent` at the end.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from lamina.ids import CacheId
from lamina.storage.mounting import Mounts
from lamina.storage.zfs.driver import Zfs
from tests.conformance.grounds_zfs import command

POOL = "survivor"
IMAGE = Path("/scratch/disk")
ROOT = Path("/scratch/root")
FILES = 20


def say(*words: str) -> None:
    """Into the journal too, which the next machine reads: synced, so that what was printed is in it."""
    with Path("/scratch/journal").open("a", encoding="ascii") as journal:
        print(*words, file=journal, flush=True)
        os.fsync(journal.fileno())
    print(*words, flush=True)


def prepare() -> Zfs:
    with IMAGE.open("wb") as image:  # blocks of its own: the file system below must have nothing to lose
        for _ in range(192):
            image.write(bytes(1 << 20))
        os.fsync(image.fileno())
    command("zpool", "create", "-f", "-O", "mountpoint=none", POOL, os.fspath(IMAGE))
    command("zfs", "create", "-o", f"mountpoint={ROOT}", f"{POOL}/docker")
    return Zfs(ROOT)


def fill(driver: Zfs, name: CacheId) -> None:
    with Mounts(driver).mounted(name) as tree:
        for number in range(FILES):
            (tree / f"{name}-{number}").write_text(name)


def work() -> None:
    driver = prepare()
    choose = random.Random(int(sys.argv[2]))
    sealed: list[CacheId] = []
    removed = 0
    number = 0
    while True:
        name = CacheId(f"{number:064x}")
        parent = choose.choice([None, *sealed]) if sealed else None
        say("begin", name, parent or "-")
        driver.create(name, parent)
        say("created", name)
        fill(driver, name)
        if choose.random() < 0.6:
            driver.seal(name)
            say("sealed", name)
            sealed.append(name)
        elif choose.random() < 0.7:
            say("removing", name)
            driver.remove(name)
            say("removed", name)
            removed += 1
        number += 1


def look() -> None:
    command("zpool", "import", "-d", os.fspath(IMAGE.parent), POOL)
    if not os.path.ismount(ROOT):
        command("zfs", "mount", f"{POOL}/docker")
    lines = [line.split() for line in Path("/scratch/journal").read_text(encoding="ascii").splitlines()]
    state: dict[str, str] = {}
    parents = {words[1]: words[2] for words in lines if words[0] == "begin" and len(words) == 3}
    for words in lines:
        state[words[1]] = words[0]
    driver = Zfs(ROOT)
    there = driver.cache_ids()
    for name, last in state.items():
        if last in {"created", "sealed"} and name not in there:
            print("lost:", name, "was", last)
        if last == "removed" and name in there:
            print("came back:", name)
        if last == "sealed" and name in there:
            check(driver, CacheId(name), parents)
    for name in there - state.keys():
        print("unheard of:", name)
    for name in sorted(there, key=lambda name: -int(name, 16)):  # children are younger than their parents
        driver.remove(name)
    driver.close()
    left = subprocess.run(
        ["zfs", "list", "-Hro", "name", "-t", "all", POOL], capture_output=True, text=True, check=True
    )
    if left.stdout.split() != [POOL, f"{POOL}/docker"]:
        print("left over:", left.stdout)
    print("consistent", len(state), flush=True)


def check(driver: Zfs, name: CacheId, parents: dict[str, str]) -> None:
    """A sealed layer shows its own files and those of all layers below it, whole."""
    expected: dict[str, str] = {}
    layer: str = name
    while layer != "-":
        expected |= {f"{layer}-{number}": layer for number in range(FILES)}
        layer = parents[layer]
    with Mounts(driver).mounted(name) as tree:
        found = {file: (tree / file).read_text() for file in os.listdir(tree)}
    if found != expected:
        print("damaged:", name, "shows", len(found), "of", len(expected))


if __name__ == "__main__":
    {"work": work, "look": look}[sys.argv[1]]()
