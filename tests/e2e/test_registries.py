"""Our registry with clients that we did not write, and our daemon with registries under strain."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.oci.digest import digest_of
from lamina.registry.hello_world import make, message, write_oci_layout
from tests.e2e.engines import DOCKER_20, DOCKER_28, Engine
from tests.fakes.registries import docker_registry

HELLO = make()
_SERVE = """
import asyncio, sys
from pathlib import Path
from lamina.registry.serve import serve
asyncio.run(serve(Path(sys.argv[1]), "127.0.0.1", 0, ready=lambda port: print(port, flush=True)))
"""


@contextlib.contextmanager
def embedded(root: Path) -> Iterator[str]:
    """Our registry as a process; its HOST:PORT."""
    process = subprocess.Popen([sys.executable, "-c", _SERVE, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with embedded(tmp_path / "registry") as address:
        yield address


@pytest.fixture
def dockerd() -> Iterator[Engine]:
    engine = Engine(kind="dockerd", arguments=("--bridge=none", "--iptables=false"))
    try:
        yield engine.start()
    finally:
        engine.destroy()


def skopeo(*arguments: str) -> str:
    program = shutil.which("skopeo")
    if program is None:
        pytest.skip("skopeo is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def push_hello(registry: str, tmp_path: Path, name: str = "library/hello-world") -> str:
    layout = tmp_path / "layout"
    if not layout.exists():
        write_oci_layout(HELLO, layout)
    target = f"{registry}/{name}:latest"
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{target}")
    return target


def test_skopeo_pushes_mounts_lists_and_pulls_to_the_byte(registry: str, tmp_path: Path) -> None:
    target = push_hello(registry, tmp_path)
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    skopeo("copy", "--all", *plain, f"docker://{target}", f"docker://{registry}/other/hello:v2")
    skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{registry}/other/hello:v2", f"dir:{tmp_path}/dir")
    assert digest_of((tmp_path / "dir" / "manifest.json").read_bytes()) == HELLO.digest
    for digest, blob in HELLO.blobs().items():
        assert (tmp_path / "dir" / digest.partition(":")[2]).read_bytes() == blob
    tags = json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{registry}/other/hello"))
    assert tags["Tags"] == ["v2"]
    skopeo("delete", "--tls-verify=false", f"docker://{registry}/other/hello:v2")
    tags = json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{registry}/other/hello"))
    assert not tags["Tags"]


@pytest.mark.parametrize("cli", [DOCKER_20, DOCKER_28])
def test_a_real_dockerd_pulls_from_ours_and_pushes_to_it(
    registry: str, dockerd: Engine, tmp_path: Path, cli: str
) -> None:
    if not Path(cli).exists():
        pytest.skip(f"no docker client at {cli}")
    target = push_hello(registry, tmp_path)
    pulled = dockerd.out("pull", target, cli=cli)
    assert f"Digest: {HELLO.digest}" in pulled
    assert dockerd.out("image", "inspect", "--format", "{{.Id}}", target, cli=cli) == HELLO.images[0].image_id
    again = f"{registry}/again/hello:v1"
    dockerd.docker("tag", target, again, cli=cli)
    pushed = dockerd.out("push", again, cli=cli)
    assert "v1: digest: sha256:" in pushed
    dockerd.docker("rmi", target, again, cli=cli)
    dockerd.docker("pull", again, cli=cli)
    assert dockerd.out("image", "inspect", "--format", "{{.Id}}", again, cli=cli) == HELLO.images[0].image_id


def test_the_docker_client_pulls_pushes_and_is_told_what_went_wrong(
    engine: Engine, registry: str, tmp_path: Path
) -> None:
    target = push_hello(registry, tmp_path)
    pulled = engine.out("pull", target).splitlines()
    assert pulled[0] == "latest: Pulling from library/hello-world"
    assert pulled[-3:] == [f"Digest: {HELLO.digest}", f"Status: Downloaded newer image for {target}", target]
    assert f"Status: Image is up to date for {target}" in engine.out("pull", target)
    assert engine.out("run", "--rm", "--net", "none", target) == message("amd64").decode().strip()
    again = f"{registry}/again/hello:v1"
    engine.docker("tag", target, again)
    assert "v1: digest: sha256:" in engine.out("push", again)
    for name, words in (
        (f"{registry}/library/hello-world:nothing", "manifest unknown"),
        ("127.0.0.1:1/nobody/there", "connection refused"),
        ("no-such-registry.invalid/a", "no such host"),
    ):
        refused = engine.docker("pull", name, check=False)
        assert refused.returncode == 1
        assert words in refused.stderr.decode()
    engine.docker("rmi", target, again)


def test_a_daemon_killed_in_the_middle_of_a_pull_starts_clean_and_pulls_again(
    fresh_engine: Engine, tmp_path: Path
) -> None:
    if fresh_engine.kind != "lamina":
        pytest.skip("a real dockerd leaves rubbish behind")
    with docker_registry(tmp_path / "debian") as port:
        layout = tmp_path / "big.tar"
        _big_archive(layout)
        target = f"127.0.0.1:{port}/big:1"
        skopeo("copy", "--dest-tls-verify=false", f"docker-archive:{layout}", f"docker://{target}")
        fresh_engine.start()
        pulling = fresh_engine.popen("pull", target)
        assert fresh_engine.data_root is not None
        staging = fresh_engine.data_root / "image" / "overlay2" / "layerdb" / "tmp"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (staging.is_dir() and os.listdir(staging)):
            time.sleep(0.005)
        fresh_engine.kill()
        pulling.communicate(timeout=20)
        assert pulling.returncode != 0
        assert os.listdir(staging) != []
        fresh_engine.start()
        assert os.listdir(staging) == []
        assert fresh_engine.out("images", "-aq") == ""
        fresh_engine.docker("pull", target)
        fresh_engine.docker("rmi", target)
        layers = fresh_engine.data_root / "image" / "overlay2" / "layerdb" / "sha256"
        assert os.listdir(layers) == []


def _big_archive(path: Path) -> None:
    """A docker archive of three layers of some megabytes that do not compress."""
    import io
    import tarfile

    layers = []
    for number in range(3):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as layer:
            for index in range(40):
                header = tarfile.TarInfo(f"layer{number}/file{index}")
                header.size = 1 << 19
                layer.addfile(header, io.BytesIO(os.urandom(1 << 19)))
        layers.append(out.getvalue())
    config = {"architecture": "amd64", "os": "linux", "config": {}}
    rootfs = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
    files = {f"{number}.tar": layer for number, layer in enumerate(layers)}
    files["config.json"] = json.dumps({**config, "rootfs": rootfs}).encode()
    entry = {"Config": "config.json", "RepoTags": ["big:1"], "Layers": [f"{number}.tar" for number in range(3)]}
    files["manifest.json"] = json.dumps([entry]).encode()
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
