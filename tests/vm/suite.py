"""The step of `make test` that runs in virtual machines: one for each storage driver that this kernel may lack.

    python -m tests.vm.suite [NAME…]     devicemapper, zfs, host (tests here that start a machine); all by default

Each machine runs the cases of the conformance suite on its driver, and the tests marked `vm_guest` with its name. Results
are in build/test-results: the output, and JUnit's XML, which docs/drivers.md is made from.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.vm import initramfs, zfs_module
from tests.vm.debian_kernel import newest
from tests.vm.failures import VmFailed, VmUnavailable
from tests.vm.machine import Plan, require_programs, run

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "build" / "test-results"
_NOTHING_COLLECTED = 5


@dataclass(frozen=True, slots=True)
class Guest:
    """One machine and the kernel modules that make it what it is."""

    name: str
    modules: tuple[str, ...]
    memory_mb: int = 1536
    disk_mb: int = 12288
    timeout_s: float = 3600


GUESTS = (
    Guest("devicemapper", ("dm_thin_pool", "xfs", "quota_v2")),
    Guest("zfs", ("dm_thin_pool", "xfs", "zfs"), memory_mb=2048),
)


@dataclass(frozen=True, slots=True)
class Result:
    """How one step ended, and the lines to show: one if all is well."""

    is_good: bool
    said: str


def in_guest(guest: Guest) -> Result:
    files = test_files(guest)
    share = RESULTS / f"vm-{guest.name}"
    share.mkdir(parents=True, exist_ok=True)
    (share / "junit.xml").unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "900", "--durations", "10", "-o", "faulthandler_timeout=600",
        "--junitxml", "/run/share/junit.xml", *files,
    ]  # fmt: skip
    plan = Plan(
        command=command, directory=ROOT, environment={"LAMINA_VM_GUEST": guest.name, "CI": os.environ.get("CI", "")},
        modules=guest.modules, memory_mb=guest.memory_mb, timeout_s=guest.timeout_s, disk_mb=guest.disk_mb, share=share,
    )  # fmt: skip
    with (share / "output").open("wb") as output:
        ended = run(plan, out=output, err=output)
    return _judged(ended.code, (share / "output").read_text(errors="replace"))


def test_files(guest: Guest) -> list[str]:
    """Found here, where Python is faster: the machine's own pytest reads these files alone."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "LAMINA_VM_GUEST": guest.name},
    )  # fmt: skip
    if done.returncode not in {0, _NOTHING_COLLECTED}:
        raise VmFailed(f"the tests for {guest.name} cannot be collected:\n{done.stdout[-3000:]}")
    files = sorted({line.split("::")[0] for line in done.stdout.splitlines() if "::" in line})
    if not files:
        raise VmFailed(f"there are no tests for {guest.name}")
    return files


def on_host() -> Result:
    """The tests that start machines themselves."""
    words = ["-q", "-m", "vm", "--timeout", "900", "--junitxml", os.fspath(RESULTS / "vm-host.xml"), "tests"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return _judged(done.returncode, done.stdout)


def _judged(code: int, output: str) -> Result:
    lines = output.strip().splitlines() or ["(no output)"]
    return Result(is_good=True, said=lines[-1]) if code == 0 else Result(is_good=False, said=output)


def reported(name: str, step: Callable[[], Result]) -> bool:
    """Run the step and print its line; a failure with all it said."""
    began = time.monotonic()
    try:
        result = step()
    except (VmFailed, VmUnavailable) as error:
        result = Result(is_good=False, said=str(error))
    except Exception:  # noqa: BLE001  a broken step is a red line, and the others go on
        result = Result(is_good=False, said=traceback.format_exc())
    took = f"{(time.monotonic() - began) * 1000:6.0f} ms"
    if result.is_good:
        print(f"  ok    {name:<18} {took}   {result.said.strip('= ')[:70]}", flush=True)
    else:
        print(f"  FAIL  {name:<18} {took}\n{result.said}", flush=True)
    return result.is_good


def prepared(names: list[str]) -> str:
    """Have kernel and modules ready; why that cannot be, or nothing."""
    try:
        require_programs()
        kernel = newest()
        initramfs.base(kernel)
        if "zfs" in names:
            zfs_module.built(kernel)
    except VmUnavailable as error:
        return str(error)
    return ""


def main(names: list[str]) -> int:
    steps: dict[str, Callable[[], Result]] = {guest.name: lambda guest=guest: in_guest(guest) for guest in GUESTS}
    steps["host"] = on_host
    if not set(names) <= set(steps):
        print(__doc__, file=sys.stderr)
        return 2
    chosen = names or list(steps)
    missing = prepared(chosen)
    if missing:
        is_needed = bool(os.environ.get("CI"))
        print(f"  {'FAIL' if is_needed else 'skip'}  virtual machines: {missing}")
        return 1 if is_needed else 0
    RESULTS.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda name: reported(f"vm: {name}", steps[name]), chosen))
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
