"""The whole engine on aufs: by the kernel's where there is one, else by our union file system on FUSE."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from lamina.kernel import pidfd
from lamina.kernel.mounts import is_mountpoint, mount_table
from tests.conformance.grounds_aufs import no_union
from tests.e2e import images, toolchain
from tests.e2e.engines import PATIENCE, Engine
from tests.e2e.test_registries import embedded

pytestmark = [pytest.mark.root, pytest.mark.timeout(300 * PATIENCE)]


@pytest.fixture(scope="module")
def shared() -> Iterator[Engine]:
    if reason := no_union():
        pytest.skip(f"aufs: {reason}")
    found = Engine(storage_driver="aufs")
    try:
        found.start()
        found.docker("load", stdin=images.busybox())
        yield found
    finally:
        found.destroy()


@pytest.fixture
def engine(shared: Engine) -> Iterator[Engine]:
    yield shared
    shared.remove_containers()


def root_of(engine: Engine, name: str) -> Path:
    """Where a container's root is mounted."""
    assert engine.data_root is not None
    container = engine.out("inspect", "-f", "{{.Id}}", name)
    mount_id = (engine.data_root / "image/aufs/layerdb/mounts" / container / "mount-id").read_text()
    return engine.data_root / "aufs/mnt" / mount_id


def server_of(mounted: Path) -> int:
    """The process that serves a union, which holds its writable branch; -1 where the kernel does it."""
    entry = next(entry for entry in mount_table() if entry.target == os.fspath(mounted))
    if entry.fstype == "aufs":
        return -1
    branch = os.fspath(mounted.parent.parent / "diff" / mounted.name)
    for name in filter(str.isdecimal, os.listdir("/proc")):
        if branch in _open_files(name):
            return int(name)
    raise AssertionError(f"nothing serves {mounted}")


def _open_files(process: str) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{process}/fd/{fd}"))
    return found


def test_info_says_which_union_is_in_use(engine: Engine) -> None:
    told = dict(json.loads(engine.out("info", "-f", "{{json .DriverStatus}}")))
    assert engine.out("info", "-f", "{{.Driver}}") == "aufs"
    assert told["Union"].startswith(("kernel aufs", "lamina unionfs on FUSE (passthrough: "))
    assert told["Root Dir"] == f"{engine.data_root}/aufs"


def test_a_container_lives_its_whole_life(engine: Engine, tmp_path: Path) -> None:
    engine.docker(
        "run", "-d", "--name", "box", "busybox", "sh", "-c", "echo mine > /file; rm /etc/group; exec sleep 1000"
    )
    engine.docker("exec", "box", "sh", "-c", "until test -e /file && ! test -e /etc/group; do :; done")
    assert sorted(engine.out("diff", "box").splitlines()) == ["A /file", "C /etc", "D /etc/group"]
    (tmp_path / "in").write_text("copied\n")
    engine.docker("cp", os.fspath(tmp_path / "in"), "box:/root/in")
    engine.docker("cp", "box:/file", os.fspath(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine\n"
    engine.docker("commit", "box", "committed")
    assert engine.out("run", "--rm", "committed", "cat", "/file", "/root/in") == "mine\ncopied"
    assert engine.docker("run", "--rm", "committed", "test", "-e", "/etc/group", check=False).returncode == 1
    engine.docker("rm", "-f", "box")
    saved = engine.docker("save", "committed").stdout
    engine.docker("rmi", "committed")
    engine.docker("load", stdin=saved)
    assert engine.docker("save", "committed").stdout == saved
    assert engine.out("run", "--rm", "committed", "cat", "/file") == "mine"
    engine.docker("rmi", "committed")


def test_a_committed_layer_holds_whiteouts_and_nothing_of_the_unions_own(engine: Engine) -> None:
    engine.docker(
        "run", "--name", "box", "busybox", "sh", "-c", "rm /etc/group; rm -r /home; mkdir /home; touch /home/f"
    )
    engine.docker("commit", "box", "committed")
    saved = engine.docker("save", "committed").stdout
    names: list[list[str]] = []
    with tarfile.open(fileobj=BytesIO(saved)) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        for layer in manifest[0]["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(layer)) as tar:
                names.append(sorted(tar.getnames()))
    assert names[-1] == ["etc", "etc/.wh.group", "home", "home/.wh..wh..opq", "home/f"]
    engine.docker("rm", "box")
    engine.docker("rmi", "committed")


def test_a_pushed_image_comes_back_the_same(engine: Engine, tmp_path: Path) -> None:
    with embedded(tmp_path / "registry") as registry:
        name = f"{registry}/box:1"
        engine.docker("run", "--name", "box", "busybox", "sh", "-c", "rm -r /home; echo 1 > /f")
        engine.docker("commit", "box", name)
        image_id = engine.out("inspect", "-f", "{{.Id}}", name)
        engine.docker("push", name)
        engine.docker("rm", "box")
        engine.docker("rmi", name)
        engine.docker("pull", name)
        assert engine.out("inspect", "-f", "{{.Id}}", name) == image_id
        assert engine.out("run", "--rm", name, "sh", "-c", "cat /f; test -e /home || echo gone") == "1\ngone"
        engine.docker("rmi", name)


def test_nothing_is_left_on_disk(engine: Engine) -> None:
    assert engine.data_root is not None
    diff = engine.data_root / "aufs/diff"
    before = sorted(os.listdir(diff))
    engine.docker("run", "--rm", "busybox", "touch", "/f")
    assert sorted(os.listdir(diff)) == before
    for part in ("layers", "mnt"):
        assert sorted(os.listdir(engine.data_root / "aufs" / part)) == before


def test_a_container_and_its_union_run_on_while_the_daemon_is_killed(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo 1 > /f; exec sleep 1000")
    engine.docker("exec", "box", "sh", "-c", "until test -s /f; do :; done")
    process, mounted = engine.out("inspect", "-f", "{{.State.Pid}}", "box"), root_of(engine, "box")
    server = server_of(mounted)
    engine.kill()
    engine.start()
    assert engine.out("inspect", "-f", "{{.State.Running}} {{.State.Pid}}", "box") == f"true {process}"
    assert server_of(mounted) == server
    assert engine.out("exec", "box", "cat", "/f") == "1"
    engine.docker("rm", "-f", "box")
    assert not is_mountpoint(mounted)


def test_a_container_whose_server_died_is_told_so_and_starts_again_with_all_it_wrote(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo 1 >> /f; exec sleep 1000")
    engine.docker("exec", "box", "sh", "-c", "until test -s /f; do :; done")
    server = server_of(root_of(engine, "box"))
    if server == -1:
        return  # the kernel's aufs has no server that could die
    held = pidfd.open_pidfd(server)
    try:
        pidfd.send(held, signal.SIGKILL)
        assert pidfd.wait_ended(held, 10)
    finally:
        pidfd.close(held)
    told = engine.docker("cp", "box:/f", "-", check=False)
    assert told.returncode != 0
    assert b"the process that served it has ended" in told.stderr
    engine.docker("stop", "-t", "1", "box")
    engine.docker("start", "box")
    engine.docker("exec", "box", "sh", "-c", "until test $(wc -l < /f) = 2; do :; done")
    engine.docker("rm", "-f", "box")


def test_the_union_lies_outside_the_containers_cgroup(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    server = server_of(root_of(engine, "box"))
    if server == -1:
        return  # the kernel's aufs has no process
    inside = engine.out("inspect", "-f", "{{.State.Pid}}", "box")
    assert Path(f"/proc/{server}/cgroup").read_text() != Path(f"/proc/{inside}/cgroup").read_text()
    engine.docker("pause", "box")
    assert os.listdir(root_of(engine, "box"))
    engine.docker("unpause", "box")


@pytest.fixture(scope="module")
def loaded(shared: Engine) -> Engine:
    if absent := toolchain.missing():
        pytest.skip(f"{absent} is not on this machine")
    shared.docker("load", stdin=toolchain.image(), timeout_s=120)
    return shared


class TestRealPrograms:
    def test_git_clones_changes_and_commits(self, loaded: Engine, tmp_path: Path) -> None:
        origin = tmp_path / "origin"
        subprocess.run(["git", "init", "-q", "-b", "main", origin], check=True)
        for number in range(300):
            place = origin / f"d{number % 20}" / f"f{number}"
            place.parent.mkdir(exist_ok=True)
            place.write_text(f"{number}\n" * 50)
        who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        subprocess.run(["git", "-C", origin, "add", "."], check=True)
        subprocess.run(["git", "-C", origin, *who, "commit", "-qm", "one"], check=True)
        steps = [
            "git config --global safe.directory '*'",
            "git config --global user.name t && git config --global user.email t@example.com",
            "git clone -q --bare /origin /root/bare.git",
            "git clone -q /root/bare.git /root/work",
            "cd /root/work && test $(git ls-files | wc -l) = 300",
            "git mv d1 moved && git rm -qr d2 && echo changed > d3/f3 && git commit -qam two",
            "git checkout -q HEAD~1 && test -e d1/f1 && git checkout -q main && test -e moved/f1 && ! test -e d2",
            "git gc -q && git fsck --strict && test -z \"$(git status --porcelain)\" && git push -q origin main",
        ]  # fmt: skip
        loaded.docker(
            "run", "--rm", "-v", f"{origin}:/origin:ro", "toolchain", "sh", "-ec", "\n".join(steps), timeout_s=120
        )

    def test_gcc_compiles_links_and_the_program_runs(self, loaded: Engine) -> None:
        source = "#include <stdio.h>\nint main(void) { return puts(__VERSION__) < 0; }"
        steps = f"cd /tmp\ncat > a.c <<'end'\n{source}\nend\ngcc -O2 -c a.c\ngcc -o a a.o\n./a"
        assert loaded.out("run", "--rm", "toolchain", "sh", "-ec", steps, timeout_s=120).count(".") >= 2

    def test_apt_installs_upgrades_and_removes_packages(self, loaded: Engine, tmp_path: Path) -> None:
        files = {f"usr/share/{{}}/d{number % 10}/f{number}": f"{number}\n" for number in range(150)}
        made = [
            toolchain.debian_package(
                tmp_path, name, version, {path.format(name): text + version for path, text in files.items()}, **more
            )
            for name, version, more in (
                ("one", "1.0", {"Depends": "two"}), ("two", "1.0", {}), ("three", "1.0", {"Depends": "one (>= 1.0)"}),
            )
        ]  # fmt: skip
        upgrade = toolchain.debian_package(tmp_path, "two", "2.0", {"usr/share/two/only-in-2": "2\n"})
        toolchain.repository(tmp_path, made)
        apt = "apt-get -q -y -o APT::Sandbox::User=root -o Acquire::Languages=none -o Dpkg::Use-Pty=0"
        steps = [
            "echo 'deb [trusted=yes] file:/repository ./' > /etc/apt/sources.list",
            f"{apt} update",
            f"{apt} install three",
            "test $(ls -R /usr/share/one | grep -c f) = 150 && cat /var/lib/three.installed",
            "test -z \"$(dpkg --audit)\"",
            f"dpkg -i /repository/{upgrade.name}",
            "test \"$(cat /var/lib/two.installed)\" = 2.0 && ! test -e /usr/share/two/d1 && test -e /usr/share/two/only-in-2",
            f"{apt} remove --purge one",
            "! test -e /usr/share/one && ! test -e /usr/share/three && ! test -e /etc/one.conf && test -e /etc/two.conf",
            "test -z \"$(dpkg --audit)\"",
        ]  # fmt: skip
        loaded.docker("run", "--name", "apt", "-v", f"{tmp_path}:/repository:ro", "toolchain", "sh", "-ec",
                      "\n".join(steps), timeout_s=180)  # fmt: skip
        changed = loaded.out("diff", "apt").splitlines()
        assert "A /usr/share/two/only-in-2" in changed
        assert not any("/usr/share/one" in line for line in changed)
        loaded.docker("rm", "apt")
