"""The pairs of drivers that take another kernel: devicemapper and zfs, with each other, overlay2 and vfs."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conformance.grounds_devicemapper import DATA_BYTES, METADATA_BYTES, SMALL
from tests.conformance.grounds_zfs import command, pool
from tests.e2e.engines import Engine
from tests.e2e.migrating import Made, build, migrate, observe, started, told

pytestmark = [pytest.mark.root, pytest.mark.e2e, pytest.mark.vm_guest("zfs"), pytest.mark.timeout(900)]

ROUND = ("overlay2", "devicemapper", "vfs", "devicemapper", "zfs", "vfs", "zfs", "devicemapper", "overlay2", "zfs", "overlay2")  # fmt: skip
"""Every ordered pair of the four that has devicemapper or zfs in it, once, with one data root."""
STEPS = [*pairwise(ROUND)]


@dataclass
class Journey:
    """One data root on its way through the drivers."""

    engine: Engine
    options: dict[str, dict[str, str]]
    made: Made
    at: int = 0
    told: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        assert self.engine.data_root is not None
        return self.engine.data_root

    def words(self, *drivers: str) -> list[str]:
        return [
            f"--storage-opt={key}={value}"
            for driver in drivers
            for key, value in self.options.get(driver, {}).items()
        ]  # fmt: skip

    def see(self, driver: str) -> dict[str, str]:
        """What a daemon tells on this driver; the containers start."""
        self.engine.arguments = self.words(driver)
        found: dict[str, str] = {}

        def look(engine: Engine) -> None:
            assert engine.out("info", "-f", "{{.Driver}}") == driver
            found.update(told(engine))
            assert engine.out("run", "--rm", "--net", "none", "three:1", "cat", "/srv/only") == "only"

        started(self.engine, look)
        return found


@pytest.fixture(scope="module")
def journey() -> Iterator[Journey]:
    with ExitStack() as stack:
        place = Path(tempfile.mkdtemp(prefix="mig"))
        stack.callback(os.rmdir, place)
        dataset = f"{pool()}/migration"
        command("zfs", "create", "-o", "mountpoint=none", dataset)
        loops = {"dm.loopdatasize": str(DATA_BYTES), "dm.loopmetadatasize": str(METADATA_BYTES)}
        options = {"zfs": {"zfs.fsname": dataset}, "devicemapper": SMALL["ext4"] | loops}
        engine = Engine(data_root=place / "d")
        stack.callback(engine.destroy)
        build(engine)
        engine.storage_driver = ""
        made = observe(place / "d", "overlay2")
        journey = Journey(engine, options, made)
        journey.told = journey.see("overlay2")
        yield journey
        subprocess.run(["rm", "-rf", place / "d"], check=True)


@pytest.mark.parametrize("number", range(len(STEPS)), ids=[f"{source}-{target}" for source, target in STEPS])
def test_the_next_driver_has_everything(journey: Journey, number: int) -> None:
    source, target = STEPS[number]
    if journey.at != number:
        pytest.fail(f"the data root is still on its way to {ROUND[journey.at]}")
    words = journey.words(source, target)
    if source == "overlay2":
        _killed_once(journey.root, target, words)
    migrate(journey.root, "--to", target, *words)
    assert observe(journey.root, target, journey.options.get(target)) == journey.made
    if target in journey.options and target not in ROUND[: number + 1]:
        assert journey.see(target) == journey.told
    if source == "overlay2":
        migrate(journey.root, "--rollback", *words)
        assert observe(journey.root, source) == journey.made
        _no_devices()
        migrate(journey.root, "--to", target, *words)
    migrate(journey.root, "--confirm", *words)
    assert not (journey.root / source).exists()
    if target in {"overlay2", "vfs"}:
        _no_devices()
    journey.at += 1


def _killed_once(root: Path, target: str, words: list[str]) -> None:
    argv = [sys.executable, "-m", "lamina", "system", "migrate", "--data-root", str(root), "--to", target, *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for _ in range(random.Random(len(target)).randrange(1, 4)):
            process.stderr.readline()  # a layer, or a container, is copied
        process.kill()


def _no_devices() -> None:
    """Nothing of a driver that has been left is in the kernel any more."""
    listed = subprocess.run(["dmsetup", "ls"], capture_output=True, text=True, check=True).stdout
    assert listed.strip() == "No devices found", listed
    assert (
        subprocess.run(["losetup", "-l", "-n"], capture_output=True, text=True, check=True).stdout.count("devicemapper")
        == 0
    )
    assert command("zfs", "list", "-rHo", "name", "-t", "all", f"{pool()}/migration").split() == [f"{pool()}/migration"]
