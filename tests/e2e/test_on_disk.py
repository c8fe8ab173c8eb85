"""docs/on-disk.md is complete: no file of a used data root that no row names, none of another kind or mode."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lamina.registry.hello_world import make, write_oci_layout
from tests.e2e import images
from tests.e2e.engines import Engine
from tests.e2e.grounds import data_root_for
from tests.e2e.test_registries import embedded, skopeo

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "on-disk.md").read_text()
_ROW = re.compile(r"^\| `([^`]+)` \| (?:(\S) )?([0-7]{4}|\*) \| ([^|]+) \|", re.MULTILINE)
DRIVERS = ("aufs", "btrfs", "devicemapper", "overlay2", "vfs", "zfs")
_HEX = "[0-9a-f]{64}"
_PARTS = {
    "<driver>": "(?:overlay2|vfs|btrfs|aufs)",
    "<cache id>": f"{_HEX}(?:-init)?",
    "<random id>": "[0-9a-f]+",
    "<exec id>": "[0-9a-f]{16}",
    "<upload id>": "[0-9a-f]{32}",
    "<short>": "[A-Z2-7]{26}",
    "<n>": "[0-9]+",
    "<name>": "[^/]+",
    "<tag>": "[^/]+",
    "<repository>": ".+",
    **dict.fromkeys(("<image id>", "<layer digest>", "<diff id>", "<chain id>", "<container id>", "<digest>"), _HEX),
}
_KINDS = {
    stat.S_IFDIR: "d",
    stat.S_IFREG: "f",
    stat.S_IFLNK: "l",
    stat.S_IFBLK: "b",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
    stat.S_IFCHR: "c",
}
PASSING = {
    "lamina",
    "lamina/storage.json",
    "tmp-old",
    "image/<driver>/layerdb/sha256/<chain id>-<random id>-removing",
    "image/<driver>/layerdb/tmp/write-set-<n>",
    "btrfs/scratch/<name>",
    "btrfs/scratch/<name>/**",
    "overlay2/lamina-probe-<name>",
    "aufs/lamina-probe-<name>",
    "aufs/diff/<cache id>-removing",
    "aufs/mnt/<cache id>-removing",
    "overlay2/lamina-removing-<id>",
    "overlay2/backingFsBlockDev",
    "vfs/backingFsBlockDev",
    "vfs/limiting/<cache id>",
    "overlay2/<cache id>-merged",
    "containers/.making-<container id>",
    "containers/.new-<container id>",
    "containers/.gone-<container id>",
    "containers/<container id>/<container id>-json.log.<n>",
    "containers/<container id>/<container id>-json.log.<n>.gz",
    "containers/<container id>/<container id>-json.log.next",
    "/bundles/<container id>/oom",
    "/exits/<container id>",
    "/execs/<exec id>",
    "/probe-<name>",
}
"""Rows of files that are there for a moment only, after an accident, or on file systems of a certain kind."""


@dataclass(frozen=True)
class Row:
    pattern: str
    kind: str
    mode: str
    owner: str

    def matches(self, path: str) -> bool:
        parts = re.split(r"(<[^>]+>|\*\*)", self.pattern)
        return (
            re.fullmatch("".join(_PARTS.get(p, ".+" if p == "**" else re.escape(p)) for p in parts), path) is not None
        )


def rows() -> list[Row]:
    return [Row(*found) for found in _ROW.findall(PAGE)]


def walked(top: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every path below, as the page writes it; what goes away meanwhile does not count."""
    yield prefix or ".", top.lstat()
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = Path(directory, name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            yield prefix + str(path.relative_to(top)), status


def complaints(found: Iterable[tuple[str, os.stat_result]], known: list[Row], seen: set[str]) -> list[str]:
    wrong = []
    for path, status in found:
        # The first row that fits: `**` stands behind the rows that name something.
        fitting = [row for row in known if row.matches(path)]
        if not fitting:
            wrong.append(f"{path}: not on the page")
            continue
        row = next((row for row in fitting if "**" not in row.pattern), fitting[0])
        seen.add(row.pattern)
        kind, mode = _KINDS[stat.S_IFMT(status.st_mode)], f"{stat.S_IMODE(status.st_mode):04o}"
        if row.kind not in {"", kind}:
            wrong.append(f"{path}: is {kind}, the page says {row.kind}")
        if row.mode not in {"*", mode}:
            wrong.append(f"{path}: has mode {mode}, the page says {row.mode}")
    return wrong


@pytest.fixture(params=["overlay2", "vfs", "btrfs", "aufs"])
def used(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Engine, Path]]:
    """An engine that has done about everything that leaves a file, and a registry's directory."""
    registry = tmp_path / "registry"
    with data_root_for(request.param) as data_root, embedded(registry) as address:
        engine = Engine(storage_driver=request.param, data_root=data_root)
        try:
            engine.start()
            use(engine, address, tmp_path)
            yield engine, registry
        finally:
            engine.docker("volume", "prune", "-af", check=False)
            engine.destroy()


def use(engine: Engine, registry: str, tmp_path: Path) -> None:
    write_oci_layout(make(), tmp_path / "layout")
    skopeo(
        "copy", "--all", "--dest-tls-verify=false", f"oci:{tmp_path / 'layout'}:latest", f"docker://{registry}/hello"
    )
    engine.docker("pull", f"{registry}/hello")
    engine.docker("load", stdin=images.busybox())
    engine.docker("run", "--name", "ended", "--net=none", "busybox", "sh", "-c", "echo said; touch /made")
    engine.docker("commit", "ended", "committed:1")
    engine.docker("tag", "committed:1", "committed:2")
    engine.docker("volume", "create", "--opt=type=tmpfs", "--opt=device=tmpfs", "--opt=o=size=1m", "mounted")
    engine.docker("create", "--name=made", "-v=named:/data", "-v=/anonymous", "busybox", "true")
    engine.docker(
        "run",
        "-dit",
        "--name=live",
        "--ipc=shareable",
        "-v=named:/data",
        "-v=mounted:/m",
        "--tmpfs=/t",
        "busybox",
        "sh",
    )
    engine.docker("exec", "live", "sh", "-c", "echo x | tee /data/file /dev/shm/file; mkdir -p /new/directory")
    if engine.storage_driver == "btrfs":
        engine.docker("create", "--name=limited", "--storage-opt=size=100m", "busybox", "true")
    long = "i=0; while [ $i -lt 20 ]; do head -c 1000000 /dev/zero | tr '\\0' 'x' | fold -w 100; i=$((i+1)); done; sleep 1000"
    engine.docker("run", "-d", "--name=talks", "busybox", "sh", "-c", long)
    engine.docker("run", "-d", "--name=silent", "--log-driver=none", "busybox", "sleep", "1000")
    talks = engine.out("inspect", "--format", "{{.Id}}", "talks")
    assert engine.data_root is not None
    wait_for(engine.data_root / "containers" / talks / "journal-0.at")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.05)


def both_roots(engine: Engine, seen: set[str]) -> list[str]:
    assert engine.data_root is not None
    data = [row for row in rows() if not row.pattern.startswith("/")]
    run = [row for row in rows() if row.pattern.startswith("/")]
    return complaints(walked(engine.data_root, ""), data, seen) + complaints(walked(engine.exec_root, "/"), run, seen)


def test_no_file_without_a_row_and_no_row_without_a_file(used: tuple[Engine, Path]) -> None:
    engine, registry = used
    seen: set[str] = set()
    assert both_roots(engine, seen) == []
    kept = [found for found in walked(registry, "") if not stat.S_ISDIR(found[1].st_mode)]
    assert complaints(kept, rows(), seen) == []
    others = tuple(name for name in DRIVERS if name != engine.storage_driver)
    missing = {row.pattern for row in rows()} - seen - PASSING
    assert {pattern for pattern in missing if not pattern.startswith((*others, "uploads/"))} == set()
    engine.kill()
    engine.start()
    engine.docker("run", "--rm", "busybox", "true")
    assert both_roots(engine, seen) == []


def test_every_owner_on_the_page_exists() -> None:
    for row in rows():
        for module in re.findall(r"`([^`]+)`", row.owner):
            assert (ROOT / "src" / "lamina" / module).is_file(), module


def test_the_comparison_itself(tmp_path: Path) -> None:
    (tmp_path / "stray").write_text("x")
    tmp_path.chmod(0o700)
    known = [Row(".", "d", "0710", "")]
    assert complaints(walked(tmp_path, ""), known, set()) == [
        ".: has mode 0700, the page says 0710",
        "stray: not on the page",
    ]
