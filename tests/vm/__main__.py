"""The virtual machine by hand.

    python -m tests.vm prepare [zfs]            have everything ready
    python -m tests.vm run [options] -- COMMAND…
    python -m tests.vm clean                    remove the cache

`run` passes the command's output on as it comes, and ends with its exit code; 125 is a failure of the machine itself.
One word is a shell script, several are a program and its arguments.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from pathlib import Path

from tests.vm import cache, initramfs, zfs_module
from tests.vm.debian_kernel import newest
from tests.vm.failures import VmFailed, VmUnavailable
from tests.vm.machine import Machine, Plan, started

FAILED = 125
KILLED = 137


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tests.vm", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    prepare = verbs.add_parser("prepare", help="have everything ready")
    prepare.add_argument("what", nargs="?", choices=["zfs"])
    verbs.add_parser("clean", help="remove the cache")
    run = verbs.add_parser("run", help="run a command in the machine")
    run.add_argument("--modules", default="", metavar="A,B", help="load these first; zfs is among the possible ones")
    run.add_argument("--disk-mb", type=int, default=4096, metavar="N", help="size of the disk at /scratch; 0 for none")
    run.add_argument("--keep-disk", type=Path, metavar="PATH", help="the disk is this file: made if missing, and kept")
    run.add_argument("--share", type=Path, metavar="DIR", help="this directory is at /run/share, writable")
    run.add_argument("--mem", type=int, default=1536, metavar="MB")
    run.add_argument("--cpus", type=int, default=1, metavar="N")
    run.add_argument("--timeout", type=float, default=600, metavar="S")
    run.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    run.add_argument("--udev", action="store_true", help="with udevd; without, libdevmapper makes its nodes itself")
    run.add_argument("--kill-on", metavar="REGEX", help="cut the power when a line of the output matches")
    run.add_argument("--kill-after", type=float, metavar="S", help="… and then only after this many seconds more")
    run.add_argument("command", nargs="+", metavar="COMMAND")
    return parser


def plan(chosen: argparse.Namespace) -> Plan:
    return Plan(
        command=chosen.command,
        environment=dict(pair.split("=", 1) for pair in chosen.env),
        modules=[name for name in chosen.modules.split(",") if name],
        memory_mb=chosen.mem, processors=chosen.cpus, timeout_s=chosen.timeout, disk_mb=chosen.disk_mb,
        disk=chosen.keep_disk, share=chosen.share, with_udev=chosen.udev,
    )  # fmt: skip


def run(chosen: argparse.Namespace) -> int:
    with started(plan(chosen), out=sys.stdout.buffer, err=sys.stderr.buffer) as machine:
        if not chosen.kill_on and chosen.kill_after is None:
            return machine.wait().code
        return cut(machine, chosen.kill_on or "^", chosen.kill_after or 0.0)


def cut(machine: Machine, pattern: str, after_s: float) -> int:
    """Kill the machine at its moment; its own end before that is a failure."""
    if not machine.stdout.wait_for(pattern, machine.plan.timeout_s):
        machine.wait()
        raise VmFailed(f"the command ended before a line matched {pattern}")
    threading.Event().wait(after_s)
    if machine.process.poll() is not None:
        raise VmFailed("the command ended before the machine was to be killed")
    machine.kill()
    return KILLED


def prepare(what: str | None) -> int:
    kernel = newest()
    initramfs.base(kernel)
    if what == "zfs":
        zfs_module.built(kernel)
    return 0


def main() -> int:
    chosen = arguments().parse_args()
    try:
        if chosen.verb == "clean":
            shutil.rmtree(cache.root(), ignore_errors=True)
            return 0
        return prepare(chosen.what) if chosen.verb == "prepare" else run(chosen)
    except (VmFailed, VmUnavailable) as error:
        print(f"vm: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
