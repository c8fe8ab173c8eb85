"""Storage drivers side by side: the same work on each driver, Lamina and dockerd in turn, medians and ratios.

    make bench-drivers                                            all six; devicemapper and zfs in the virtual machine
    .venv/bin/python scripts/bench_drivers.py --drivers overlay2,btrfs --rounds 3

Every engine has a file system of its own on a sparse image file. Files inside containers are touched through
/proc/PID/root, so that no exec is in the figures. aufs has no dockerd that could run it here: dockerd's fuse-overlayfs
driver, also a union in user space, stands beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).parent.parent))

from rich.console import Console
from rich.table import Table
from tests.e2e import images
from tests.e2e.engines import Engine

DRIVERS = ("overlay2", "aufs", "btrfs", "devicemapper", "vfs", "zfs")
IN_GUEST = ("devicemapper", "zfs")
PEER_DRIVER = {"aufs": "fuse-overlayfs"}
RESULT = "RESULT "

ROWS = (
    "create",
    "remove",
    "mount",
    "first write, 1 GB file",
    "first write, 1,000 files",
    "chown -R, 10,000 files",
    "diff, changed container",
    "unpack, 25,000 files",
    "read through 5 layers",
    "read through 50 layers",
    "read through 120 layers",
    "disk, 10 containers",
)
DISK = ROWS[-1]
Figures = dict[str, dict[str, list[float]]]
"""Row → engine kind → samples: seconds, for `DISK` bytes."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything; 1.0 is what the rows' names say."""

    scale: float

    def of(self, count: int) -> int:
        return max(1, int(count * self.scale))


class Api:
    """The Engine API over one kept connection: what a request costs, without a client program's start."""

    def __init__(self, path: Path) -> None:
        self._connection = http.client.HTTPConnection("localhost", timeout=600)
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.settimeout(600)
        self._connection.sock.connect(os.fspath(path))

    def call(self, method: str, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, f"/v1.41{path}", data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        raw = answer.read()
        if answer.status >= 400:
            raise AssertionError(f"{method} {path}: {answer.status} {raw.decode(errors='replace')}")
        return json.loads(raw) if raw.strip() else None


@dataclass
class Runner:
    """One engine on one driver, with the words that the rows are written in."""

    engine: Engine
    ground: Path
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api(self.engine.socket)

    def create(self, image: str, command: tuple[str, ...] = ("sleep", "100000")) -> str:
        wanted = {"Image": image, "Cmd": list(command), "HostConfig": {"NetworkMode": "none"}}
        made = self.api.call("POST", "/containers/create", wanted)
        assert isinstance(made, dict)
        return str(made["Id"])

    def remove(self, container: str) -> None:
        self.api.call("DELETE", f"/containers/{container}?force=1")

    @contextlib.contextmanager
    def running(self, image: str) -> Iterator[tuple[str, Path]]:
        """A container's id and its root, seen from here."""
        container = self.create(image)
        try:
            self.api.call("POST", f"/containers/{container}/start")
            found = self.api.call("GET", f"/containers/{container}/json")
            assert isinstance(found, dict)
            yield container, Path(f"/proc/{found['State']['Pid']}/root")
        finally:
            self.remove(container)

    def free_bytes(self) -> int:
        os.sync()
        found = os.statvfs(self.ground)
        return found.f_bfree * found.f_frsize


def timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


# --- images ------------------------------------------------------------------------------------------------------------


def _file_layer(names: Iterator[tuple[str, bytes]]) -> bytes:
    entries: list[tuple[str, str, int, bytes | str]] = []
    made: set[str] = set()
    for name, content in names:
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth])
            if directory not in made:
                made.add(directory)
                entries.append((directory, "dir", 0o755, ""))
        entries.append((name, "file", 0o644, content))
    return images.layer(entries)


def make_images(directory: Path, sizes: Sizes) -> None:
    """work.tar, many.tar and deep-N.tar: archives for `docker load`."""
    block = os.urandom(1 << 20)
    noise = io.BytesIO(os.urandom(8 << 20)).getbuffer()
    config = {"Cmd": ["sh"], "Env": ["PATH=/bin"]}
    big = block * sizes.of(1024)
    work = [
        images.busybox_layer(),
        _file_layer(iter([("big", big)])),
        _file_layer((f"dirs/d{n}/f", bytes(noise[n : n + 4096])) for n in range(sizes.of(1000))),
        _file_layer((f"tree/d{n // 100}/f{n}", bytes(noise[n : n + 512])) for n in range(sizes.of(10_000))),
    ]
    (directory / "work.tar").write_bytes(images.archive("work:1", work, config))
    many = (
        (f"usr/share/d{n // 250}/e{n // 25}/f{n}", bytes(noise[n : n + 200 + (n * 37) % 8000]))
        for n in range(sizes.of(25_000))
    )
    (directory / "many.tar").write_bytes(images.archive("many:1", [images.busybox_layer(), _file_layer(many)], config))
    for depth in (5, 50, 120):
        layers = [images.busybox_layer()]
        per_layer = sizes.of(1200) // depth + 1
        for number in range(1, depth):
            files = ((f"deep/l{number}/f{n}", bytes(noise[n : n + 4096])) for n in range(per_layer))
            layers.append(_file_layer(files))
        (directory / f"deep-{depth}.tar").write_bytes(images.archive(f"deep-{depth}:1", layers, config))


# --- grounds -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ground(driver: str, home: Path, gigabytes: int) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A fresh file system for one engine, and the daemon's arguments that go with it."""
    place = home / "ground"
    place.mkdir()
    image = home / "image"
    with image.open("wb") as file:
        file.truncate(gigabytes << 30)
    if driver == "zfs":
        pool = f"bench{os.getpid()}{home.name[-4:]}".replace("_", "x")
        subprocess.run(["zpool", "create", "-f", "-O", f"mountpoint={place}", pool, image], check=True)
        try:
            yield place, (f"--storage-opt=zfs.fsname={pool}",)
        finally:
            subprocess.run(["zpool", "destroy", "-f", pool], check=False)
        return
    make = ["mkfs.btrfs", "-q"] if driver == "btrfs" else ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0"]
    subprocess.run([*make, image], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    options: tuple[str, ...] = ()
    if driver == "devicemapper":
        options = tuple(
            f"--storage-opt={option}"
            for option in ("dm.override_udev_sync_check=true", "dm.basesize=4G", "dm.loopdatasize=12G",
                           "dm.loopmetadatasize=256M", "dm.fs=ext4")
        )  # fmt: skip
    try:
        yield place, options
    finally:
        subprocess.run(["umount", "-l", place], check=False)


@contextlib.contextmanager
def runner(kind: str, driver: str, home: Path, gigabytes: int) -> Iterator[Runner]:
    base = home / f"{driver}-{kind}"
    base.mkdir()
    chosen = PEER_DRIVER.get(driver, driver) if kind == "dockerd" else driver
    quiet = () if kind == "lamina" else ("--bridge=none", "--iptables=false", "--ip6tables=false")
    with ground(driver, base, gigabytes) as (place, options):
        engine = Engine(
            kind=kind, storage_driver=chosen, data_root=place / "root", arguments=(*options, *quiet),
            home=Path(tempfile.mkdtemp(prefix="ldb", dir="/tmp")),
        )  # fmt: skip
        try:
            engine.start(120)
            yield Runner(engine, place)
        finally:
            engine.destroy()
    shutil.rmtree(base, ignore_errors=True)


# --- the rows ----------------------------------------------------------------------------------------------------------


def creation(at: Runner) -> dict[str, float]:
    names: list[str] = []
    create_s = timed(lambda: names.append(at.create("work:1")))
    path = f"/containers/{names[0]}/archive?path=/"
    mount_s = timed(lambda: at.api.call("HEAD", path))
    return {"create": create_s, "mount": mount_s, "remove": timed(lambda: at.remove(names[0]))}


def changing(at: Runner) -> dict[str, float]:
    """First writes and chown in a fresh container, then what the engine says has changed."""
    with at.running("work:1") as (container, root):

        def write(path: Path) -> None:
            with path.open("r+b", buffering=0) as file:
                file.write(b"x")

        def write_each() -> None:
            for directory in (root / "dirs").iterdir():
                write(directory / "f")

        def chown_all() -> None:
            for top, directories, files in os.walk(root / "tree"):
                for name in directories + files:
                    os.lchown(os.path.join(top, name), 7, 7)

        return {
            "first write, 1 GB file": timed(lambda: write(root / "big")),
            "first write, 1,000 files": timed(write_each),
            "chown -R, 10,000 files": timed(chown_all),
            "diff, changed container": timed(lambda: at.api.call("GET", f"/containers/{container}/changes")),
        }


def unpacking(at: Runner, archives: Path) -> dict[str, float]:
    at.engine.docker("rmi", "-f", "many:1", check=False)
    os.sync()
    load = ("load", "-q", "-i", os.fspath(archives / "many.tar"))
    return {"unpack, 25,000 files": timed(lambda: at.engine.docker(*load, timeout_s=900))}


def reading(at: Runner, depth: int) -> dict[str, float]:
    with at.running(f"deep-{depth}:1") as (_, root):
        Path("/proc/sys/vm/drop_caches").write_text("3")

        def read_all() -> None:
            for top, _, files in os.walk(root / "deep"):
                for name in files:
                    Path(top, name).read_bytes()

        return {f"read through {depth} layers": timed(read_all)}


def disk(at: Runner) -> dict[str, float]:
    before = at.free_bytes()
    names = [at.create("many:1", ("touch", "/mine")) for _ in range(10)]
    for name in names:
        at.api.call("POST", f"/containers/{name}/start")
        at.api.call("POST", f"/containers/{name}/wait")
    used = before - at.free_bytes()
    for name in names:
        at.remove(name)
    return {DISK: float(max(used, 0))}


class Turns:
    """The runners of one driver, taking turns; the first turn warms up."""

    def __init__(self, runners: dict[str, Runner]) -> None:
        self.runners = runners
        self.figures: Figures = {}

    def __call__(self, action: Callable[[Runner], dict[str, float]], rounds: int) -> None:
        for turn in range(rounds + 1):
            for kind, at in self.runners.items():
                for row, value in action(at).items():
                    if turn:
                        self.figures.setdefault(row, {}).setdefault(kind, []).append(value)


def measure(driver: str, archives: Path, home: Path, given: argparse.Namespace, console: Console) -> Figures:
    """All rows of one driver, Lamina and dockerd in turn."""
    with contextlib.ExitStack() as stack:
        turns = Turns(_runners(driver, home, given, stack, console))
        for at in turns.runners.values():
            for archive in sorted(archives.glob("*.tar")):
                at.engine.docker("load", "-q", "-i", os.fspath(archive), timeout_s=1800)
        turns(creation, given.rounds * 2)
        turns(changing, given.rounds)
        turns(lambda at: unpacking(at, archives), given.rounds)
        for depth in (5, 50, 120):
            turns(functools.partial(reading, depth=depth), given.rounds)
        turns(disk, 1)
        return turns.figures


def _runners(
    driver: str, home: Path, given: argparse.Namespace, stack: contextlib.ExitStack, console: Console
) -> dict[str, Runner]:
    """Lamina, and dockerd where it has the driver and the driver runs."""
    runners = {"lamina": stack.enter_context(runner("lamina", driver, home, given.gigabytes))}
    try:
        runners["dockerd"] = stack.enter_context(runner("dockerd", driver, home, given.gigabytes))
    except AssertionError as error:
        reason = str(error).strip().splitlines()[-1][:160]
        console.print(f"  {driver}: no dockerd beside it: {reason}", style="dim", markup=False)
    return runners


def in_guest(driver: str, given: argparse.Namespace, console: Console) -> Figures:
    """The same in the virtual machine, with less of everything: its processor is emulated."""
    command = [
        sys.executable, "-m", "tests.vm", "run", "--disk-mb", "40000", "--mem", "3072", "--timeout", "3600",
        *(("--modules", "zfs") if driver == "zfs" else ()), "--",
        sys.executable, __file__, "--drivers", driver, "--here", "--scale", str(given.guest_scale),
        "--rounds", str(max(1, given.rounds // 2)), "--gigabytes", "14", "--directory", "/scratch",
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(RESULT):
            found = json.loads(line.removeprefix(RESULT))[driver]
            assert isinstance(found, dict)
            return found
    console.print(f"  {driver}: no figures from the virtual machine (exit {done.returncode})", style="red")
    return {}


# --- the tables --------------------------------------------------------------------------------------------------------


def _shown(row: str, value: float) -> str:
    if row == DISK:
        return f"{value / 1e6:.0f} MB"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def _cell(row: str, samples: dict[str, list[float]]) -> str:
    ours = statistics.median(samples["lamina"])
    if "dockerd" not in samples:
        return _shown(row, ours)
    theirs = statistics.median(samples["dockerd"])
    ratio = f"{ours / theirs:.2f}" if theirs else "-"
    return f"{_shown(row, ours)} / {_shown(row, theirs)} = {ratio}"


def print_table(found: dict[str, Figures], console: Console) -> None:
    """Rows down, drivers across: Lamina / dockerd = ratio."""
    table = Table(title="Lamina / dockerd = ratio (medians)")
    table.add_column("")
    for driver in found:
        peer = f" (beside {PEER_DRIVER[driver]})" if driver in PEER_DRIVER else ""
        table.add_column(driver + peer, justify="right")
    for row in ROWS:
        table.add_row(row, *(_cell(row, figures[row]) if row in figures else "" for figures in found.values()))
    console.print(table)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--drivers", default=",".join(DRIVERS), help="which, with commas between")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--scale", type=float, default=1.0, help="part of the sizes that the rows name")
    arguments.add_argument("--guest-scale", type=float, default=0.1, help="the same for the virtual machine")
    arguments.add_argument("--gigabytes", type=int, default=24, help="size of each engine's (sparse) file system")
    arguments.add_argument("--directory", default="/tmp", help="where the file systems' images lie")
    arguments.add_argument("--here", action="store_true", help="also devicemapper and zfs on this kernel")
    given = arguments.parse_args()
    console = Console(stderr=given.here)
    home = Path(tempfile.mkdtemp(prefix="lamina-drivers-", dir=given.directory))
    found: dict[str, Figures] = {}
    try:
        archives = home / "archives"
        archives.mkdir()
        make_images(archives, Sizes(given.scale))
        for driver in given.drivers.split(","):
            console.print(f"{driver} …")
            if driver in IN_GUEST and not given.here:
                found[driver] = in_guest(driver, given, console)
            else:
                found[driver] = measure(driver, archives, home, given, console)
            for row in ROWS:
                if row in found[driver]:
                    console.print(f"  {row:28}{_cell(row, found[driver][row])}", markup=False)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if given.here:
        print(RESULT + json.dumps(found))
        return
    print_table(found, console)


if __name__ == "__main__":
    main()
