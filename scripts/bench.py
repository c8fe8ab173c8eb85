"""Lamina beside Debian's dockerd and podman: one docker client, one registry, interleaved, medians and ratios.

    make bench                              everything (about ten minutes)
    .venv/bin/python scripts/bench.py run   only the rows whose name holds "run"

Rounds alternate between the engines, so that a slow minute of the machine hits all of them; quote the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).parent.parent))

from rich.console import Console
from rich.table import Table
from tests.e2e import images
from tests.e2e.engines import Engine

REGISTRY_CONFIG = """version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def registry(home: Path) -> Iterator[str]:
    """Debian's docker-registry on loopback: host:port."""
    port = free_port()
    config = home / "registry.yml"
    config.write_text(REGISTRY_CONFIG.format(root=home / "registry", port=port))
    process = subprocess.Popen(
        ["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        import urllib.request

        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1).close()
                break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def big_image(path: Path, *, megabytes: int, files: int) -> None:
    """A docker archive of four layers whose files look like a distribution's: many small, few big, half compressible."""
    import hashlib
    import io
    import json
    import tarfile

    rnd = random.Random(7)
    words = [bytes(rnd.choices(b"abcdefghijklmnopqrstuvwxyz", k=rnd.randint(2, 11))) for _ in range(4000)]
    text = b" ".join(rnd.choices(words, k=400_000))
    noise = rnd.randbytes(4 << 20)
    sizes = [int(rnd.paretovariate(1.1) * 2000) for _ in range(files)]
    scale = megabytes * 1e6 / sum(min(size, 30_000_000) for size in sizes)
    sizes = [int(min(size, 30_000_000) * scale) for size in sizes]
    layer_files: list[Path] = []
    diff_ids: list[str] = []
    at = 0
    for number in range(4):
        layer = path.with_suffix(f".layer{number}")
        with tarfile.open(layer, "w", format=tarfile.USTAR_FORMAT) as tar:
            folder = ""
            for index in range(files // 4):
                if index % 12 == 0:
                    folder = f"usr/share/l{number}/d{index // 240}/e{index // 12}"
                    header = tarfile.TarInfo(folder)
                    header.type, header.mode, header.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
                    tar.addfile(header)
                size = sizes[at]
                at += 1
                body = io.BytesIO()
                while body.tell() < size:
                    source = text if rnd.random() < 0.6 else noise
                    start = rnd.randrange(len(source) - 1)
                    body.write(source[start : start + min(size - body.tell(), 200_000)])
                header = tarfile.TarInfo(f"{folder}/f{index}.dat")
                header.size, header.mode, header.mtime = size, 0o644, 1_700_000_000 + index
                body.seek(0)
                tar.addfile(header, body)
        with layer.open("rb") as stream:
            diff_ids.append("sha256:" + hashlib.file_digest(stream, "sha256").hexdigest())
        layer_files.append(layer)
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
                         "rootfs": {"type": "layers", "diff_ids": diff_ids},
                         "history": [{"created": "2024-01-01T00:00:00Z"} for _ in diff_ids]}).encode()  # fmt: skip
    image_id = hashlib.sha256(config).hexdigest()
    names = [f"{digest[7:]}/layer.tar" for digest in diff_ids]
    manifest = json.dumps([{"Config": f"{image_id}.json", "RepoTags": ["big:1"], "Layers": names}]).encode()
    with tarfile.open(path, "w") as tar:
        for name, layer in zip(names, layer_files, strict=True):
            tar.add(layer, arcname=name)
            layer.unlink()
        for name, data in ((f"{image_id}.json", config), ("manifest.json", manifest)):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


class Podman:
    """podman with directories of its own, for the verbs that it has."""

    kind = "podman"

    def __init__(self, home: Path) -> None:
        self.prefix = ["podman", "--root", str(home / "podman"), "--runroot", str(home / "podman-run"), "--runtime", "runc",
                       "--cgroup-manager", "cgroupfs"]  # fmt: skip
        # podman raises limits as far as it may; where it may not raise them at all, it could not run anything.
        (home / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        )
        self.environment = {**os.environ, "CONTAINERS_CONF": str(home / "containers.conf")}

    def docker(self, *arguments: str, check: bool = True, **_: object) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [*self.prefix, *arguments], capture_output=True, check=False, timeout=300, env=self.environment
        )
        if check and done.returncode != 0:
            raise AssertionError(f"podman {arguments[0]}: {done.stderr.decode().strip()}")
        return done

    def out(self, *arguments: str) -> str:
        return self.docker(*arguments).stdout.decode().strip()


def timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def pss_mib(roots: list[int]) -> float:
    """Proportional set size of process trees, MiB."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    todo, total = list(roots), 0
    while todo:
        pid = todo.pop()
        todo += parents.get(pid, [])
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def tree_of(engine: Engine) -> list[int]:
    """The daemon and the monitors of its containers (which have left its tree), without the containers themselves."""
    assert engine.process is not None
    found = [engine.process.pid]
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes()
                program = argv.split(b"\0")[0].rsplit(b"/", 1)[-1]
                if program in (b"conmon", b"containerd-shim-runc-v2") and os.fsencode(engine.home) in argv:
                    found.append(int(entry.name))
    return found


class Bench:
    """Rows of the table, measured on every engine in turn."""

    def __init__(self, only: str, rounds: int) -> None:
        self.only, self.rounds = only, rounds
        self.rows: list[tuple[str, dict[str, float], str]] = []
        self.console = Console()

    def row(
        self,
        name: str,
        engines: list[object],
        action: Callable[..., float],
        *,
        rounds: int | None = None,
        unit: str = "ms",
    ) -> None:
        """`action(engine)` gives seconds (or, for other units, the figure itself)."""
        if self.only not in name:
            return
        samples: dict[str, list[float]] = {}
        gave_up: set[str] = set()
        for turn in range(rounds or self.rounds):
            for engine in engines:
                if engine.kind in gave_up:  # type: ignore[attr-defined]
                    continue
                try:
                    value = action(engine)
                except (AssertionError, subprocess.SubprocessError) as error:
                    gave_up.add(engine.kind)  # type: ignore[attr-defined]
                    self.console.print(
                        f"  {name}: {str(error).strip().splitlines()[-1][-200:]}", style="dim", markup=False
                    )
                    continue
                if turn > 0 or (rounds or self.rounds) == 1:
                    samples.setdefault(engine.kind, []).append(value)  # type: ignore[attr-defined]
        medians = {kind: statistics.median(values) for kind, values in samples.items()}
        self.rows.append((name, medians, unit))
        self.console.print(
            f"  {name:32}" + "".join(f"{kind} {_shown(value, unit)}   " for kind, value in medians.items())
        )

    def table(self) -> None:
        table = Table(title="Medians; ratio = Lamina over dockerd in this run")
        for column in ("", "Lamina", "dockerd 20.10", "podman", "floor", "ratio"):
            table.add_column(column, justify="left" if not column else "right")
        for name, medians, unit in self.rows:
            ratio = medians["lamina"] / medians["dockerd"] if {"lamina", "dockerd"} <= medians.keys() else None
            table.add_row(name, *(_shown(medians.get(kind), unit) for kind in ("lamina", "dockerd", "podman", "floor")),
                          f"{ratio:.2f}" if ratio else "")  # fmt: skip
        self.console.print(table)


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "MiB":
        return f"{value:.1f} MiB"
    return f"{value * 1000:.0f} ms" if value < 10 else f"{value:.1f} s"


class Floor:
    """What nothing can beat here: a bare `runc run`, and a copy of the unpacked tree."""

    kind = "floor"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("only", nargs="?", default="", help="only rows whose name holds this")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--megabytes", type=int, default=714)
    arguments.add_argument("--files", type=int, default=28_000)
    given = arguments.parse_args()
    home = Path(tempfile.mkdtemp(prefix="lambench", dir="/tmp"))
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, home, ignore_errors=True)
        lamina, dockerd = Engine(kind="lamina"), Engine(kind="dockerd")
        for engine in (lamina, dockerd):
            undo.callback(engine.destroy)
            engine.start()
            engine.docker("load", stdin=images.busybox())
        podman = Podman(home)
        # podman keeps its storage mounted on itself.
        undo.callback(
            subprocess.run, ["umount", "-l", home / "podman" / "overlay"], stderr=subprocess.DEVNULL, check=False
        )
        (home / "busybox.tar").write_bytes(images.busybox())
        podman.docker("load", "-i", str(home / "busybox.tar"), check=False)
        bench = Bench(given.only, given.rounds)
        measure(bench, lamina, dockerd, podman, home, given, undo)
        bench.table()


def measure(
    bench: Bench,
    lamina: Engine,
    dockerd: Engine,
    podman: Podman,
    home: Path,
    given: argparse.Namespace,
    undo: contextlib.ExitStack,
) -> None:
    both: list[object] = [lamina, dockerd]
    three: list[object] = [lamina, dockerd, podman]
    bench.row("memory idle", both, lambda e: pss_mib(tree_of(e)), rounds=1, unit="MiB")
    bundle = _bundle(home)

    def run_none(engine: object) -> float:
        if isinstance(engine, Floor):
            return timed(
                lambda: subprocess.run(["runc", "run", "-b", bundle, "floor"], check=True, capture_output=True)
            )
        return timed(lambda: engine.docker("run", "--rm", "--net", "none", "busybox", "true"))  # type: ignore[attr-defined]

    bench.row("run --rm", three, lambda e: timed(lambda: e.docker("run", "--rm", "busybox", "true")))
    bench.row("run --rm --net none", [*three, Floor()], run_none)

    def create(engine: Engine) -> float:
        names: list[str] = []
        took = timed(lambda: names.append(engine.out("create", "busybox", "true")))
        engine.docker("rm", *names)
        return took

    bench.row("create", three, create)
    sleepers = {e.kind: e.out("run", "-d", "busybox", "sleep", "100000") for e in (lamina, dockerd)}
    sleepers["podman"] = (
        podman.docker("run", "-d", "--net", "none", "busybox", "sleep", "100000", check=False).stdout.decode().strip()
    )
    bench.row("exec", three, lambda e: timed(lambda: e.docker("exec", sleepers[e.kind], "true")))
    podman.docker("rm", "-f", sleepers["podman"], check=False)

    def remove(engine: Engine) -> float:
        name = engine.out("run", "-d", "busybox", "sleep", "100000")
        return timed(lambda: engine.docker("rm", "-f", name))

    bench.row("rm -f running", three, remove)

    def parallel(engine: Engine) -> float:
        def all_of_them() -> None:
            with ThreadPoolExecutor(20) as pool:
                list(pool.map(lambda _: engine.docker("run", "--rm", "busybox", "true"), range(20)))

        return timed(all_of_them)

    bench.row("20 x run in parallel", both, parallel, rounds=4)

    def per_container(engine: Engine) -> float:
        before = pss_mib(tree_of(engine))
        names = [engine.out("run", "-d", "--net", "none", "busybox", "sleep", "100000") for _ in range(10)]
        time.sleep(1)
        after = pss_mib(tree_of(engine))
        containers = pss_mib([int(engine.out("inspect", "-f", "{{.State.Pid}}", name)) for name in names])
        engine.docker("rm", "-f", *names)
        return max(0.0, after - before - containers) / 10

    bench.row("memory per container", both, per_container, rounds=1, unit="MiB")
    if any(bench.only in name for name in ("pull 700 MB", "load 700 MB", "save 700 MB", "copy of the tree")):
        _big(bench, lamina, dockerd, podman, home, given, undo)
    if bench.only in "images with 500" or bench.only in "ps with 500":
        _crowd(bench, both)


def _big(
    bench: Bench,
    lamina: Engine,
    dockerd: Engine,
    podman: Podman,
    home: Path,
    given: argparse.Namespace,
    undo: contextlib.ExitStack,
) -> None:
    host = undo.enter_context(registry(home))
    archive = home / "big.tar"
    big_image(archive, megabytes=given.megabytes, files=given.files)
    name = f"{host}/big:1"
    subprocess.run(
        [
            "skopeo",
            "copy",
            "-q",
            "--insecure-policy",
            "--dest-tls-verify=false",
            f"docker-archive:{archive}",
            f"docker://{name}",
        ],
        check=True,
    )
    engines: list[object] = [lamina, dockerd, podman]

    def pull(engine: Engine) -> float:
        flags = ["--tls-verify=false"] if engine.kind == "podman" else []
        os.sync()
        took = timed(lambda: engine.docker("pull", "-q", *flags, name, timeout_s=300))
        engine.docker("rmi", name)
        return took

    bench.row("pull 700 MB", engines, pull, rounds=3)

    def load(engine: Engine) -> float:
        os.sync()
        return timed(lambda: engine.docker("load", "-q", "-i", str(archive), timeout_s=300))

    def load_and_remove(engine: Engine) -> float:
        took = load(engine)
        engine.docker("rmi", "big:1")
        return took

    bench.row("load 700 MB", engines, load_and_remove, rounds=3)
    for engine in engines:
        load(engine)  # type: ignore[arg-type]
    out = home / "saved.tar"

    def save(engine: Engine) -> float:
        out.unlink(missing_ok=True)
        os.sync()
        return timed(lambda: engine.docker("save", "-o", str(out), "big:1", timeout_s=300))

    bench.row("save 700 MB", engines, save, rounds=3)
    out.unlink(missing_ok=True)

    def copy_tree(_: Floor) -> float:
        target = home / "copy"
        shutil.rmtree(target, ignore_errors=True)
        os.sync()
        took = timed(lambda: subprocess.run(["cp", "-a", lamina.data_root / "overlay2", target], check=True))  # type: ignore[operator]
        shutil.rmtree(target)
        return took

    bench.row("copy of the tree", [Floor()], copy_tree, rounds=2)
    for engine in engines:
        engine.docker("rmi", "big:1")  # type: ignore[attr-defined]


def _crowd(bench: Bench, both: list[object]) -> None:
    for engine in both:
        assert isinstance(engine, Engine)
        for n in range(500):
            engine.docker("tag", "busybox", f"many/{n}:1")
            engine.docker("create", "busybox", "true")
    bench.row("images with 500", both, lambda e: timed(lambda: e.docker("images", "-q")))
    bench.row("ps with 500", both, lambda e: timed(lambda: e.docker("ps", "-aq")))


def _bundle(home: Path) -> str:
    """An OCI bundle of the same image, for the bare runtime."""
    import json

    bundle = home / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", bundle / "rootfs"], input=images.busybox_layer(), check=True)
    subprocess.run(["runc", "spec", "-b", bundle], check=True)

    spec = json.loads((bundle / "config.json").read_text())
    spec["process"].update(terminal=False, args=["true"])
    (bundle / "config.json").write_text(json.dumps(spec))
    return os.fspath(bundle)


if __name__ == "__main__":
    main()
