"""Run in the machine: makes layers until the power is cut (`work`), and says what is left of them (`look`).

Every line of `work` is printed when the driver has answered; `look` prints what is wrong, and `consistent` at the end.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

from lamina.ids import CacheId
from lamina.storage.devicemapper.driver import DeviceMapperDriver
from lamina.storage.devicemapper.records import decode_device
from lamina.storage.mounting import Mounts
from tests.conformance.grounds_devicemapper import SMALL

ROOT = Path("/scratch/root")
METADATA = ROOT / "devicemapper/metadata"
FILES = 20


def say(*words: str) -> None:
    """Into the journal too, which the next machine reads: synced, so that what was printed is in it."""
    with Path("/scratch/journal").open("a", encoding="ascii") as journal:
        print(*words, file=journal, flush=True)
        os.fsync(journal.fileno())
    print(*words, flush=True)


def opened() -> DeviceMapperDriver:
    sizes = {"dm.loopdatasize": "1G", "dm.loopmetadatasize": "16M"}
    return DeviceMapperDriver(ROOT, {**SMALL[sys.argv[2]], **sizes})


def work() -> None:
    driver = opened()
    choose = random.Random(int(sys.argv[3]))
    sealed: list[CacheId] = []
    number = 0
    while True:
        name = CacheId(f"{number:064x}")
        parent = choose.choice([None, *sealed]) if sealed else None
        say("begin", name, parent or "-")
        driver.create(name, parent)
        say("created", name)
        with Mounts(driver).mounted(name) as tree:
            for file in range(FILES):
                (tree / f"{name}-{file}").write_text(name)
        if choose.random() < 0.6:
            driver.seal(name)
            say("sealed", name)
            sealed.append(name)
        elif choose.random() < 0.7:
            say("removing", name)
            driver.remove(name)
            say("removed", name)
        number += 1


def look() -> None:
    lines = [line.split() for line in Path("/scratch/journal").read_text(encoding="ascii").splitlines()]
    parents = {words[1]: words[2] for words in lines if words[0] == "begin" and len(words) == 3}
    state = {words[1]: words[0] for words in lines}
    driver = opened()
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
    driver.close()
    compare_pool()
    driver = opened()
    for name in sorted(there, key=lambda name: -int(name, 16)):  # children are younger than their parents
        driver.remove(name)
    driver.close()
    left = sorted(os.listdir(METADATA))
    if left != ["base", "deviceset-metadata", "transaction-metadata"]:
        print("left over:", left)
    compare_pool()
    print("consistent", len(state), flush=True)


def check(driver: DeviceMapperDriver, name: CacheId, parents: dict[str, str]) -> None:
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


def compare_pool() -> None:
    """The pool has the devices of the records and no others, and its own metadata is sound."""
    file = ROOT / "devicemapper/devicemapper/metadata"
    checked = subprocess.run(["thin_check", "-q", file], capture_output=True, text=True, check=False)
    if checked.returncode:
        print("thin_check:", checked.stderr.strip())
    dumped = subprocess.run(["thin_dump", file], capture_output=True, text=True, check=True).stdout
    devices = {int(number) for number in re.findall(r'<device dev_id="(\d+)"', dumped)}
    records = {
        decode_device(path.read_bytes(), path.name).device_id
        for path in METADATA.iterdir()
        if path.name not in {"deviceset-metadata", "transaction-metadata"}
    }
    if devices != records:
        print("the pool has", sorted(devices), "the records", sorted(records))


if __name__ == "__main__":
    {"work": work, "look": look}[sys.argv[1]]()
