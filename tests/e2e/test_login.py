"""Logins: the client keeps the credentials, the engine tries them, and they go to their registry alone."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

from tests.e2e.engines import Engine
from tests.fakes.registries import docker_registry


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """A registry that lets nobody in but me:secret."""
    program = shutil.which("htpasswd")
    if program is None:
        pytest.skip("htpasswd is not installed")
    line = subprocess.run([program, "-Bbn", "me", "secret"], capture_output=True, check=True).stdout
    (tmp_path / "htpasswd").write_bytes(line)
    auth = f"auth:\n  htpasswd: {{realm: here, path: {tmp_path}/htpasswd}}\n"
    with docker_registry(tmp_path / "registry", extra=auth) as port:
        yield f"127.0.0.1:{port}"


def test_a_login_lets_push_pull_and_inspect_in(engine: Engine, guarded: str) -> None:
    name = f"{guarded}/mine/busybox:1"
    engine.docker("tag", "busybox", name)
    refused = engine.docker("push", name, check=False)
    assert refused.returncode == 1
    assert b"unauthorized" in refused.stderr + refused.stdout
    done = engine.docker("login", "-u", "me", "--password-stdin", guarded, stdin=b"secret\n")
    assert b"Login Succeeded" in done.stdout
    engine.docker("push", name)
    engine.docker("rmi", name)
    engine.docker("pull", name)
    with contextlib.closing(docker.DockerClient(base_url=engine.host, version="1.41")) as client:
        auth = {"username": "me", "password": "secret"}
        found = client.images.get_registry_data(name, auth_config=auth)
        assert found.id == client.images.get(name).attrs["RepoDigests"][-1].partition("@")[2]
        assert [one["os"] for one in found.attrs["Platforms"]] == ["linux"]
        with pytest.raises(docker.errors.NotFound):
            client.images.get_registry_data(f"{guarded}/mine/nothing:1", auth_config=auth)
    engine.docker("logout", guarded)
    engine.docker("rmi", name)
    assert engine.docker("pull", name, check=False).returncode == 1


def test_a_wrong_password_is_refused_and_not_kept(engine: Engine, guarded: str) -> None:
    done = engine.docker("login", "-u", "me", "--password-stdin", guarded, stdin=b"wrong\n", check=False)
    assert done.returncode == 1
    assert b"unauthorized: incorrect username or password" in done.stderr
    config = engine.docker_config / "config.json"
    kept = json.loads(config.read_text()).get("auths", {}) if config.exists() else {}
    assert guarded not in kept
    assert "wrong" not in engine.log.read_text()


def test_a_registry_that_is_not_there_is_told(engine: Engine) -> None:
    done = engine.docker("login", "-u", "me", "--password-stdin", "127.0.0.1:1", stdin=b"x\n", check=False)
    assert done.returncode == 1
    assert b"refused" in done.stderr
