"""A data root moved between storage drivers: everything is as it was, whatever happens on the way."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lamina.errors import StorageFull
from lamina.migration.journal import read_journal
from lamina.migration.move import Wish
from lamina.migration.move import migrate as carry_out
from lamina.migration.progress import Silent
from lamina.migration.records import containers
from lamina.storage.select import survey
from tests.conformance.grounds import image_file
from tests.conformance.grounds_btrfs import btrfs, no_btrfs
from tests.e2e import images
from tests.e2e.engines import Engine
from tests.e2e.migrating import Made, build, migrate, observe, started, told

HERE = ("overlay2", "vfs", "btrfs", "aufs")
"""What this kernel can hold on one file system: btrfs. The others are moved in the virtual machine."""


@dataclass
class Origin:
    """A data root that a migration begins from, and what it shows. Every test leaves it as it found it."""

    engine: Engine
    root: Path
    made: Made
    told: dict[str, str]


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A btrfs, which every driver of this kernel works on."""
    reason = no_btrfs()
    if reason:
        pytest.skip(reason)
    place = Path(tempfile.mkdtemp(prefix="mig", dir="/tmp"))
    try:
        with btrfs(place / "g") as found:
            yield found
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def origins(ground: Path) -> Iterator[dict[str, Origin]]:
    """By driver; made when first asked for."""
    found: dict[str, Origin] = {}
    yield found
    for origin in found.values():
        origin.engine.destroy()


def _origin(origins: dict[str, Origin], ground: Path, driver: str) -> Origin:
    if driver not in origins:
        root = ground / driver
        engine = Engine(storage_driver=driver, data_root=root)
        try:
            build(engine)
            made = observe(root, driver)
            replies: dict[str, str] = {}
            started(engine, lambda engine: replies.update(told(engine)))
        except BaseException:
            engine.destroy()
            raise
        engine.storage_driver = ""  # from now on the data root says it
        origins[driver] = Origin(engine, root, made, replies)
    return origins[driver]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("source", "target"), [*itertools.permutations(HERE, 2)])
def test_every_driver_to_every_other_and_back(
    source: str, target: str, origins: dict[str, Origin], ground: Path
) -> None:
    usable = {report.name for report in survey(ground) if report.usable}
    assert {source, target} <= usable
    origin = _origin(origins, ground, source)
    plan = migrate(origin.root, "--to", target, "--dry-run").stdout
    assert f"{source} to {target}" in plan
    assert not (origin.root / "image" / target).exists()
    migrate(origin.root, "--to", target)
    assert observe(origin.root, target) == origin.made
    started(origin.engine, lambda engine: _as_before(engine, origin, target))
    refused = migrate(origin.root, "--rollback", check=False)
    assert refused.returncode != 0
    assert "container layered" in refused.stderr
    migrate(origin.root, "--rollback", "--force")
    assert observe(origin.root, source) == origin.made
    assert not (origin.root / target).exists()
    assert not (origin.root / "image" / target).exists()


def _as_before(engine: Engine, origin: Origin, target: str) -> None:
    assert engine.out("info", "-f", "{{.Driver}}") == target
    assert told(engine) == origin.told
    for name in ("plain", "layered"):
        assert engine.out("start", "-a", name) == name
    assert engine.out("run", "--rm", "--net", "none", "three:1", "cat", "/srv/only") == "only"


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine of its own on the tests' file system, with the data root built and stopped."""
    engine = Engine()
    try:
        build(engine)
        yield engine
    finally:
        engine.storage_driver = ""
        engine.destroy()


def _root(engine: Engine) -> Path:
    assert engine.data_root is not None
    return engine.data_root


@pytest.mark.timeout(300)
def test_killed_at_each_durable_step_it_goes_on_where_it_was(engine: Engine) -> None:
    root = _root(engine)
    made = observe(root, "overlay2")
    killed = 0
    for number in range(1, 40):
        if not _killed(root, "fsync,syncfs", number, "--to", "vfs"):
            break
        killed += 1
    assert killed >= 5
    assert observe(root, "vfs") == made
    _nothing_left(root, "vfs", made)


@pytest.mark.timeout(300)
def test_killed_at_any_moment_it_goes_on_where_it_was(engine: Engine) -> None:
    root = _root(engine)
    made = observe(root, "overlay2")
    drawn = random.Random(20_26)
    for target, other in (("vfs", "overlay2"), ("overlay2", "vfs")):
        for _ in range(6):
            argv = [sys.executable, "-m", "lamina", "system", "migrate", "--data-root", str(root), "--to", target]
            with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                try:
                    process.wait(drawn.uniform(0.2, 1.5))
                except subprocess.TimeoutExpired:
                    process.kill()
        migrate(root, "--to", target)
        assert observe(root, target) == made
        migrate(root, "--confirm")
        assert not (root / other).exists()
        _nothing_left(root, target, made)


def _killed(root: Path, call: str, number: int, *arguments: str) -> bool:
    """A migration command, killed at a system call of one of its threads; False when it came to its end before that."""
    kill = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]  # fmt: skip
    done = migrate(root, *arguments, check=False, prefix=kill)
    # Killed after the very last write, there is nothing left to go on with.
    assert done.returncode in {0, -9, 137} or "no migration of" in done.stderr, done.stderr
    return done.returncode in {-9, 137}


@pytest.mark.timeout(300)
def test_the_way_back_and_the_end_can_be_killed_too(engine: Engine) -> None:
    root = _root(engine)
    made = observe(root, "overlay2")
    engine.storage_driver = ""
    drawn = random.Random(7)
    for call, arguments, driver in (
        ("fsync", "--rollback", "overlay2"),
        ("unlink,unlinkat,rmdir", "--rollback", "overlay2"),
        ("fsync", "--confirm", "vfs"),
        ("unlink,unlinkat,rmdir", "--confirm", "overlay2"),
    ):
        target = "overlay2" if (root / "vfs").exists() else "vfs"
        migrate(root, "--to", target)
        other = "vfs" if driver == "overlay2" else "overlay2"
        number, killed = (1 if call == "fsync" else 25), 0
        while _killed(root, call, number, arguments):
            killed += 1
            number += 1 if call == "fsync" else 1 + drawn.randrange(3 * number)
            if killed == 2:
                assert started(engine, lambda engine: engine.out("info", "-f", "{{.Driver}}")) == driver
                if arguments == "--confirm":
                    assert "there is no way back" in migrate(root, "--rollback", check=False).stderr
        assert killed >= 2
        assert observe(root, driver) == made
        assert not (root / other).exists()
        assert not (root / "image" / other).exists()
        _nothing_left(root, driver, made)


def _nothing_left(root: Path, driver: str, made: Made) -> None:
    """No layer that no record names, nothing half made, nothing mounted."""
    store = root / "image" / driver / "layerdb"
    named = {place.read_text() for place in store.glob("sha256/*/cache-id")}
    for place in (*store.glob("mounts/*/mount-id"), *store.glob("mounts/*/init-id")):
        named.add(place.read_text())
    home = root / driver / "dir" if driver == "vfs" else root / driver
    assert {name for name in os.listdir(home) if name != "l"} == named
    assert len(named) == len(made.tars) + 4
    assert not list(store.glob("tmp/*"))
    assert not [line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {root}/" in line]
    for place in root.rglob(".lamina-*"):
        raise AssertionError(f"left behind: {place}")


class StopsAtAContainer(Silent):
    """Somebody who watches, and interrupts when a container has been copied."""

    def end(self, name: str, outcome: str) -> None:
        if name in self.containers:
            raise KeyboardInterrupt

    def __init__(self, containers: Collection[str]) -> None:
        self.containers = containers


@pytest.mark.timeout(180)
def test_what_a_daemon_wrote_meanwhile_is_not_forgotten(engine: Engine) -> None:
    """Killed half way, used with the old driver, then finished: the copies of before count no more."""
    root = _root(engine)
    with pytest.raises(KeyboardInterrupt):
        carry_out(Wish(root, "vfs"), StopsAtAContainer({name[:12] for name in containers(root)}))
    journal = read_journal(root)
    assert journal is not None
    assert journal.filled

    def use(engine: Engine) -> None:
        assert engine.out("info", "-f", "{{.Driver}}") == "overlay2"
        engine.docker("start", "-a", "plain")
        engine.docker("rm", "layered")
        engine.docker("rmi", "three:1")
        engine.docker("run", "--name", "later", "--net", "none", "one:1", "sh", "-c", "echo later >/later")

    engine.storage_driver = ""
    started(engine, use)
    assert b"was not finished" in engine.log.read_bytes()
    made = observe(root, "overlay2")
    assert set(made.trees) & {"plain", "layered", "later"} == {"plain", "later"}
    migrate(root, "--to", "vfs")
    assert observe(root, "vfs") == made


def test_running_containers_are_left_alone_with_their_daemon_and_without(engine: Engine) -> None:
    root = _root(engine)
    engine.storage_driver = ""
    engine.start()
    name = engine.out("run", "-d", "--net", "none", "one:1", "sleep", "600")
    refused = migrate(root, "--to", "vfs", check=False, host=engine.host)
    assert refused.returncode == 1
    assert f"1 of the containers in {root} run" in refused.stderr
    assert "lamina stop" in refused.stderr
    assert "is in use" in migrate(root, "--to", "vfs", check=False).stderr  # it does not know this daemon
    engine.stop()
    refused = migrate(root, "--to", "vfs", check=False)
    assert refused.returncode == 1
    assert f"1 of the containers in {root} run: {name[:12]}" in refused.stderr
    assert f"lamina stop {name[:12]}" in refused.stderr
    assert not (root / "lamina").exists()
    engine.start()
    assert engine.out("inspect", "-f", "{{.State.Running}}", name) == "true"
    engine.docker("kill", name)
    engine.docker("rm", "-f", name)


@pytest.mark.timeout(180)
def test_an_idle_daemon_lends_its_data_root_and_goes_on_with_the_new_driver(engine: Engine) -> None:
    root = _root(engine)
    refused = started(engine, lambda engine: migrate(root, "--to", "vfs", check=False, host=engine.host))
    assert "the daemon was told to use the storage driver overlay2" in refused.stderr
    made = observe(root, "overlay2")
    engine.storage_driver = ""
    engine.start()
    before = told(engine)
    for target in ("vfs", "overlay2"):
        done = migrate(root, "--to", target, host=engine.host)
        assert "waits until this is done" in done.stderr
        engine.wait_ready()
        assert engine.out("info", "-f", "{{.Driver}}") == target
        assert told(engine) == before
        if target == "vfs":
            migrate(root, "--confirm")  # beside the daemon
            assert engine.out("start", "-a", "plain") == "plain"
    # A borrower that is killed ends the loan too.
    migrate(root, "--confirm")
    kill = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=syncfs", "-e", "inject=syncfs:signal=KILL:when=1"]
    assert migrate(root, "--to", "vfs", check=False, host=engine.host, prefix=kill).returncode != 0
    engine.wait_ready()
    assert engine.out("info", "-f", "{{.Driver}}") == "overlay2"
    migrate(root, "--rollback", host=engine.host)
    engine.wait_ready()
    assert told(engine)["images"] == before["images"]
    engine.stop()
    assert observe(root, "overlay2").tars == made.tars


def test_what_is_wrong_is_said_before_anything_is_written(engine: Engine) -> None:
    root = _root(engine)
    before = sorted(os.listdir(root))
    for arguments, message in (
        (("--to", "nope"), "unknown storage driver 'nope'"),
        (("--to", "overlay2"), "has the storage driver overlay2 already"),
        (("--to", "zfs"), "zfs does not work on"),
        (("--confirm",), "no migration of"),
        (("--rollback",), "no migration of"),
        (("--to", "vfs", "--confirm"), "what is to be done?"),
        (("--to", "vfs", "--storage-opt", "btrfs.min_space=1"), "belongs neither to overlay2 nor to vfs"),
    ):
        refused = migrate(root, *arguments, check=False)
        assert refused.returncode != 0
        assert message in refused.stderr, arguments
        assert "Traceback" not in refused.stderr
    assert sorted(os.listdir(root)) == before


def test_a_damaged_layer_stops_it_and_is_named(engine: Engine) -> None:
    root = _root(engine)
    (victim,) = [place for place in (root / "overlay2").glob("*/diff/opt/big") if place.stat().st_nlink == 1]
    with victim.open("r+b") as file:
        file.write(b"damage")
    refused = migrate(root, "--to", "vfs", check=False)
    assert refused.returncode != 0
    assert "opt/big" in refused.stderr
    assert "lamina rmi" in refused.stderr
    migrate(root, "--rollback")
    assert not (root / "vfs").exists()
    assert not (root / "lamina").exists()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("target", ["vfs", "btrfs"])
def test_dockerd_opens_what_came_and_what_came_back(ground: Path, target: str) -> None:
    """To another driver and back again: a dockerd we did not write reads the result of both."""
    root = ground / f"for-dockerd-{target}"
    engine = Engine(data_root=root)
    try:
        build(engine)
    finally:
        engine.destroy()
    migrate(root, "--to", target)
    migrate(root, "--confirm")
    theirs = Engine(
        kind="dockerd", storage_driver=target, data_root=root,
        arguments=("--bridge=none", "--iptables=false", "--ip-masq=false"),
    )  # fmt: skip
    try:
        started(theirs, _usable)
        migrate(root, "--to", "overlay2")
        migrate(root, "--confirm")
        theirs.storage_driver = "overlay2"
        started(theirs, _usable)
    finally:
        theirs.destroy()


def _usable(engine: Engine) -> None:
    assert "A /new file" in engine.out("diff", "layered")
    assert engine.out("start", "-a", "plain") == "plain"
    assert engine.out("run", "--rm", "--net", "none", "three:1", "cat", "/srv/only") == "only"
    assert len(engine.docker("save", "three:1").stdout) > len(images.busybox_layer())


@pytest.mark.timeout(180)
def test_what_the_new_driver_cannot_hold_is_told_and_only_left_behind_when_asked(engine: Engine) -> None:
    """On overlay2 a device 0:0 means that a name is gone, so no container can have one."""
    root = _root(engine)
    migrate(root, "--to", "vfs")
    migrate(root, "--confirm")
    made = observe(root, "vfs")
    (mount_id,) = [
        (root / "image/vfs/layerdb/mounts" / key / "mount-id").read_text()
        for key, record in containers(root).items()
        if record.name == "plain"
    ]
    os.mknod(root / "vfs/dir" / mount_id / "home/white", stat.S_IFCHR | 0o600, 0)
    refused = migrate(root, "--to", "overlay2", check=False)
    assert refused.returncode == 1
    assert "/home/white: " in refused.stderr
    assert "--force" in refused.stderr
    done = migrate(root, "--to", "overlay2", "--force")
    assert "left behind: container" in done.stderr
    assert "3 more had been copied before" in done.stdout
    assert observe(root, "overlay2") == made


@pytest.mark.timeout(180)
def test_room_is_looked_for_first_and_running_out_of_it_loses_nothing(tmp_path: Path) -> None:
    with image_file(tmp_path / "small", ("mkfs.ext4", "-q"), size_bytes=192 << 20) as place:
        engine = Engine(data_root=place / "d")
        try:
            build(engine)
            root = _root(engine)
            made = observe(root, "overlay2")
            free = os.statvfs(place)
            with (place / "filler").open("wb") as filler:
                os.posix_fallocate(filler.fileno(), 0, free.f_bavail * free.f_frsize - (12 << 20))
            for arguments in (("--dry-run",), ()):
                refused = migrate(root, "--to", "vfs", *arguments, check=False)
                assert refused.returncode == 1
                assert re.search(r"the store of vfs is expected to take .*MB, and .* has .*MB left", refused.stderr)
            assert not (root / "lamina").exists()
            with pytest.raises(StorageFull):  # it turns out in the middle of it, as when somebody else writes
                carry_out(Wish(root, "vfs"), Fills(place))
            assert observe(root, "overlay2") == made
            (place / "filler").unlink()
            (place / "more").unlink()
            migrate(root, "--to", "vfs")
            assert observe(root, "vfs") == made
        finally:
            engine.storage_driver = ""
            engine.destroy()


class Fills(Silent):
    """Somebody else, who takes all the room while layers are copied; at first there is some."""

    def __init__(self, place: Path) -> None:
        os.truncate(place / "filler", 0)
        self._place = place

    def begin(self, name: str, total_bytes: int) -> None:
        free = os.statvfs(self._place)
        with (self._place / "more").open("ab") as file, contextlib.suppress(OSError):  # somebody was faster
            at = file.tell()
            os.posix_fallocate(file.fileno(), at, max(1, free.f_bavail * free.f_frsize - (1 << 20)))


@pytest.mark.timeout(180)
def test_a_limit_of_a_container_is_kept_or_its_loss_is_told(tmp_path: Path) -> None:
    """vfs bounds nothing on a plain ext4, btrfs does."""
    with btrfs(tmp_path / "g") as ground:
        engine = Engine(storage_driver="btrfs", data_root=ground / "d")
        try:
            engine.start()
            engine.docker("load", stdin=images.busybox())
            fill = "dd if=/dev/zero of=/big bs=1M count=80 2>/dev/null; wc -c </big; echo x >/more && echo wrote"
            engine.docker(
                "create", "--name", "small", "--net", "none", "--storage-opt", "size=50M", "busybox", "sh", "-c", fill
            )
            engine.stop()
            engine.storage_driver = ""
            root = _root(engine)
            for target, told_of in (("overlay2", "loses its limit"), ("btrfs", "holds more than its limit")):
                done = migrate(root, "--to", target)
                assert told_of in done.stderr
                migrate(root, "--confirm")
                size, *wrote = started(engine, _output_of_small).split()
                assert int(size) == 80 << 20
                assert wrote == (["wrote"] if target == "overlay2" else [])
        finally:
            engine.destroy()


def _output_of_small(engine: Engine) -> str:
    return engine.docker("start", "-a", "small", check=False).stdout.decode()
