"""docs/drivers.md: what each storage driver is for, and which case of the contract was shown for it where.

    scripts/make_docs.py drivers --from build/test-results --write

The results are those of `make test`: JUnit's XML of the run on this kernel and of the runs in the virtual machine.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lamina.storage.devicemapper import options as devicemapper_options

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "drivers.md"
SUITE = "tests/conformance"
_DEVICEMAPPER_OPTIONS = tuple(devicemapper_options._SETTERS)  # noqa: SLF001  the table that it reads them by
_NAME = re.compile(r"(?P<case>.+?)\[(?P<parameters>.*)\]$")


@dataclass(frozen=True)
class Driver:
    """What a reader has to know to choose. `options` are names for --storage-opt."""

    name: str
    choose: str
    needs: str
    options: tuple[str, ...]


DRIVERS = (
    Driver("overlay2", "always, if nothing below speaks for another: it is the fastest and the most used", "kernel 4.0 or newer; a data root that is not itself on overlay", ("overlay2.override_kernel_check",)),
    Driver("btrfs", "the disk is btrfs already; layers are snapshots, limits are quotas of the file system", "a data root on btrfs", ("btrfs.min_space",)),
    Driver("zfs", "the disk is ZFS already; layers are clones, with its checksums and compression", "the zfs module, and a data root on ZFS or `zfs.fsname`", ("zfs.fsname",)),
    Driver("devicemapper", "each container must have a block device and a file system of its own, or a data root of Docker's older releases is to be kept", "device-mapper with thin provisioning; a thin pool for more than a trial (loop files are slow), mkfs.ext4 or mkfs.xfs", _DEVICEMAPPER_OPTIONS),
    Driver("aufs", "a data root of Docker's older releases is to be kept, or a union by a program of our own is wanted", "aufs in the kernel, else /dev/fuse", ()),
    Driver("vfs", "nothing else works, or tests want no magic: every layer is a full copy", "nothing", ()),
)  # fmt: skip
"""In the order that the page has them."""


@dataclass
class Shown:
    """What the results say of one case on one driver. `told` are words of outcomes: a place, `fails`, or a reason."""

    places: set[str] = field(default_factory=set)
    failed: bool = False
    reasons: set[str] = field(default_factory=set)

    @property
    def cell(self) -> str:
        if self.failed:
            return "**fails**"
        return ", ".join(sorted(self.places)) or ("absent" if self.reasons else "")


Table = dict[str, dict[str, Shown]]
"""By case, then by driver."""


def parted(name: str) -> tuple[str, str] | None:
    """Case and driver of a test's name, as `test_x[zfs-1]`; None for a test that is not about a driver."""
    found = _NAME.match(name)
    driver = found["parameters"].split("-")[0] if found else ""
    return (found["case"], driver) if found and driver in {known.name for known in DRIVERS} else None


def is_of_all(module: str) -> bool:
    """A module of the suite that every driver goes through, not one about a driver's own ways."""
    return not any(module.startswith(f"test_{driver.name}") for driver in DRIVERS)


def suite_cases() -> set[tuple[str, str]]:
    """Every case of today's suite with every driver it is asked of."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", SUITE],
        cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "LAMINA_VM_GUEST": "yes"},
    )  # fmt: skip
    found = set()
    for line in done.stdout.splitlines():
        path, _, name = line.partition("::")
        pair = parted(name.rpartition("::")[2]) if path.startswith(SUITE) else None
        if pair and is_of_all(Path(path).stem):
            found.add((f"{Path(path).stem}: {pair[0]}", pair[1]))
    return {(readable(case), driver) for case, driver in found}


def readable(case: str) -> str:
    """`test_storage_full: test_a_limit_lasts` as `full: a limit lasts`."""
    module, _, name = case.partition(": ")
    subject = module.removeprefix("test_").removeprefix("storage_").replace("_", " ")
    return f"{subject}: {name.removeprefix('test_').replace('_', ' ')}"


def results(files: Iterable[Path]) -> tuple[Table, dict[str, str]]:
    """What the files say, and the kernel of each place."""
    table: Table = {}
    kernels: dict[str, str] = {}
    for file in files:
        place = "vm" if any(part.startswith("vm") for part in file.parts[-2:]) else "here"
        root = ElementTree.parse(file).getroot()
        for told in root.iter("property"):
            if told.get("name") == "kernel":
                kernels[place] = told.get("value", "")
        for test in root.iter("testcase"):
            _enter(table, test, place)
    return table, kernels


def _enter(table: Table, test: ElementTree.Element, place: str) -> None:
    modules = [part for part in test.get("classname", "").split(".") if part.startswith("test_")]
    pair = parted(test.get("name", ""))
    if (
        not pair
        or not modules
        or not is_of_all(modules[0])
        or not test.get("classname", "").startswith(SUITE.replace("/", "."))
    ):
        return
    case, driver = readable(f"{modules[0]}: {pair[0]}"), pair[1]
    shown = table.setdefault(case, {}).setdefault(driver, Shown())
    skipped = test.find("skipped")
    if test.find("failure") is not None or test.find("error") is not None:
        shown.failed = True
    elif skipped is not None:
        shown.reasons.add(_reason(skipped.get("message", ""), driver))
    else:
        shown.places.add(place)


def _reason(message: str, driver: str) -> str:
    """Why a case was skipped, without what is different in every run."""
    words = message.removeprefix("Skipped: ").removeprefix(f"{driver}: ")
    return words.split(": [Errno")[0].split("; runs in")[0]


def page(directory: Path) -> str:
    """The whole page, from every XML file below the directory."""
    table, kernels = results(sorted(directory.rglob("*.xml")))
    today = suite_cases()
    lines = [_HEAD.format(here=kernels.get("here", platform.release()), vm=kernels.get("vm", "Debian's kernel"))]
    lines += ["| driver | choose it when | needs | `--storage-opt` |", "| --- | --- | --- | --- |"]
    for driver in DRIVERS:
        options = " ".join(f"`{option}`" for option in driver.options) or "none"
        lines.append(f"| {driver.name} | {driver.choose} | {driver.needs} | {options} |")
    lines += ["", _SIZES, "", "## The cases", "", _CASES, ""]
    lines += [f"| case | {' | '.join(driver.name for driver in DRIVERS)} |", f"| --- |{' --- |' * len(DRIVERS)}"]
    notes: dict[str, int] = {}
    for case in sorted({case for case, _ in today}):
        cells = [
            _cell(table.get(case, {}).get(driver.name), notes) if (case, driver.name) in today else "n/a"
            for driver in DRIVERS
        ]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    if notes:
        lines += ["", "Absent because:", "", *(f"{number}. {reason}" for reason, number in notes.items())]
    return "\n".join(lines) + "\n"


def _cell(shown: Shown | None, notes: dict[str, int]) -> str:
    if shown is None:
        return "not run"
    if shown.cell != "absent":
        return shown.cell
    numbers = [notes.setdefault(reason, len(notes) + 1) for reason in sorted(shown.reasons)]
    return f"absent ({', '.join(map(str, numbers))})"


def listed(text: str) -> set[tuple[str, str]]:
    """Every case and driver that the page has a cell for; what is not asked of a driver has none."""
    found: set[tuple[str, str]] = set()
    columns: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if cells[0] == "case":
            columns = cells[1:]
        elif columns and line.startswith("| ") and not line.startswith("| ---"):
            found.update((cells[0], driver) for driver, cell in zip(columns, cells[1:], strict=True) if cell != "n/a")
    return found


_HEAD = """\
# Storage drivers

Made by `scripts/make_docs.py drivers --from build/test-results --write` from the results of `make test`; do not edit. The
cells are those of one run: *here* was kernel {here}, *vm* kernel {vm} in a virtual machine.

`lamina info` says which of them work on a data root, and what would help the others. `lamina system migrate --to DRIVER`
moves a data root from any to any other. The same cases are asked of every one ([the suite](../tests/conformance)), and a
state machine compares random trees of layers with plain directories.

## Which one
"""

_SIZES = """\
A container's own `--storage-opt size=20G` bounds its writable layer: on devicemapper, btrfs and zfs always, on overlay2 and
vfs where the data root's file system keeps project quotas (xfs or ext4, mounted with `prjquota`)."""

_CASES = """\
*here*: passed on the kernel of the machine that ran the tests. *vm*: passed in the virtual machine. *absent*: neither has
what it takes, with the reason. *n/a*: not asked of this driver, which lacks the ability that the case is about."""
