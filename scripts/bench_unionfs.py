"""The FUSE union beside fuse-overlayfs on the same tree: interleaved rounds, medians, ratios.

.venv/bin/python scripts/bench_unionfs.py [ROUNDS]      needs root, fuse-overlayfs and 1 GB on the disk of TMPDIR
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

FILES, BIG_MB, SMALL_WRITES = 5000, 200, 20_000


def tree(lower: Path) -> None:
    for folder in range(50):
        (lower / f"d{folder}").mkdir(parents=True)
        for number in range(FILES // 50):
            (lower / f"d{folder}" / f"f{number}").write_bytes(b"x" * 500)
    block = os.urandom(1 << 20)
    with (lower / "big").open("wb") as file:
        for _ in range(BIG_MB):
            file.write(block)


@contextlib.contextmanager
def mounted(kind: str, home: Path) -> Iterator[Path]:
    rw, work, mnt = home / "rw", home / "work", home / "mnt"
    for place in (rw, work, mnt):
        place.mkdir()
    lower = home.parent / "lower"
    if kind == "fuse-overlayfs":
        command = ["fuse-overlayfs", "-o", f"lowerdir={lower},upperdir={rw},workdir={work}", mnt]
    else:
        more = ",nopassthrough" if kind == "without passthrough" else ""
        command = [sys.executable, "-m", "lamina", "unionfs", "-o", f"br:{rw}=rw:{lower}=ro+wh{more}", mnt]
    subprocess.run(command, check=True)
    try:
        yield mnt
    finally:
        subprocess.run(["umount", mnt], check=True)
        for place in (rw, work, mnt):
            shutil.rmtree(place)


def timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def read_all(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(1 << 20)
        while file.readinto(buffer):
            pass


def write_all(path: Path, block: bytes, count: int) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(block)


def one_round(mnt: Path) -> dict[str, float]:
    names = [mnt / f"d{folder}" / f"f{number}" for folder in range(50) for number in range(FILES // 50)]
    found: dict[str, float] = {}
    found["stat, cold (op/s)"] = FILES / timed(lambda: [os.lstat(name) for name in names])
    found["open, read, close (op/s)"] = FILES / timed(lambda: [name.read_bytes() for name in names])
    found["read a lower file (MB/s)"] = BIG_MB / timed(lambda: read_all(mnt / "big"))
    block = bytes(1 << 20)
    found["write 1 MiB (MB/s)"] = BIG_MB / timed(lambda: write_all(mnt / "new", block, BIG_MB))
    found["read a new file (MB/s)"] = BIG_MB / timed(lambda: read_all(mnt / "new"))
    small = timed(lambda: write_all(mnt / "small", bytes(4096), SMALL_WRITES))
    found["write 4 KiB (MB/s)"] = SMALL_WRITES * 4096 / 1e6 / small
    found["create (op/s)"] = 1000 / timed(lambda: [(mnt / f"n{number}").touch() for number in range(1000)])
    found["copy-up of 500 files (op/s)"] = 500 / timed(lambda: [os.chmod(name, 0o600) for name in names[:500]])
    return found


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    kinds = ["passthrough", "without passthrough", "fuse-overlayfs"]
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    listings: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        tree(Path(name) / "lower")
        for number in range(rounds):
            for kind in kinds[number % 3 :] + kinds[: number % 3]:
                home = Path(name) / "round"
                home.mkdir(exist_ok=True)
                with mounted(kind, home) as mnt:
                    results[kind].append(one_round(mnt))
                with mounted(kind, home) as mnt:
                    listing = ["ls", "-lR", os.fspath(mnt)]
                    listings[kind].append(timed(lambda: subprocess.run(listing, check=True, capture_output=True)))  # noqa: B023
    for kind in kinds:
        for row, seconds in zip(results[kind], listings[kind], strict=True):
            row["ls -lR (entries/s)"] = (FILES + 50) / seconds
    table = Table(*["", *kinds, "ratio", "ratio without"])
    for row_name in results[kinds[0]][0]:
        medians = [statistics.median(row[row_name] for row in results[kind]) for kind in kinds]
        table.add_row(
            row_name, *(f"{value:,.0f}" for value in medians), f"{medians[0] / medians[2]:.2f}",
            f"{medians[1] / medians[2]:.2f}",
        )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
