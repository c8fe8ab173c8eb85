"""Engines as processes: Lamina's daemon, and a real dockerd to check the tests themselves against."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DOCKER_28 = "/usr/local/bin/docker"
DOCKER_20 = "/usr/bin/docker"
# The virtual machine's processor is emulated.
PATIENCE = 8 if "LAMINA_VM_GUEST" in os.environ else 1


def until(condition: Callable[[], bool], what: str, timeout_s: float = 20) -> None:
    """Return as soon as the condition holds; `what` says what was waited for in vain."""
    deadline = time.monotonic() + timeout_s * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.03)


def docker_cli() -> str:
    """The docker client that tests use unless they name one."""
    found = os.environ.get("LAMINA_TEST_DOCKER") or shutil.which("docker")
    assert found, "no docker command line: apt-get install docker.io"
    return found


@dataclass
class Engine:
    """One daemon with directories of its own; `docker(...)` drives it with the real client."""

    kind: str = "lamina"
    storage_driver: str = "overlay2"
    arguments: Sequence[str] = ()
    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="lam")))
    data_root: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.socket = self.home / "s.sock"
        self.exec_root = self.home / "x"
        self.data_root = self.data_root or self.home / "d"
        self.log = self.home / "log"
        self.docker_config = self.home / "config"
        self.docker_config.mkdir(exist_ok=True)

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def argv(self) -> list[str]:
        own = [sys.executable, "-m", "lamina", "daemon"] if self.kind == "lamina" else ["/usr/sbin/dockerd"]
        return [
            *own,
            f"--data-root={self.data_root}",
            f"--exec-root={self.exec_root}",
            f"--pidfile={self.home / 'pid'}",
            f"--host={self.host}",
            f"--storage-driver={self.storage_driver}",
            *self.arguments,
        ]

    def start(self, timeout_s: float = 30) -> Engine:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_ready(timeout_s)
        return self

    def wait_ready(self, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s * PATIENCE
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(
                    f"{self.kind} ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}"
                )
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(2)
                    probe.connect(os.fspath(self.socket))
                    probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                    if b"200" in probe.recv(64):
                        return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"{self.kind} did not answer within {timeout_s} s:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """SIGKILL: what a crash is like."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """An orderly stop; its exit status."""
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.kind} did not stop:\n{self.log.read_text()[-4000:]}") from None

    def environment(self, **extra: str) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.host, "DOCKER_CONFIG": os.fspath(self.docker_config), **extra}

    def docker(
        self,
        *arguments: str,
        check: bool = True,
        stdin: bytes = b"",
        timeout_s: float = 60,
        cli: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [cli or docker_cli(), *arguments],
            input=stdin, capture_output=True, timeout=timeout_s * PATIENCE, env=self.environment(**(env or {})), check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(
                f"docker {' '.join(arguments)}: exit {done.returncode}\n{done.stdout.decode(errors='replace')[-2000:]}"
                f"{done.stderr.decode(errors='replace')[-2000:]}\n--- log\n{self.log.read_text()[-3000:]}"
            )
        return done

    def out(self, *arguments: str, **keywords: object) -> str:
        """Standard output, decoded and stripped."""
        return self.docker(*arguments, **keywords).stdout.decode().strip()  # type: ignore[arg-type]

    def popen(self, *arguments: str, cli: str | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [cli or docker_cli(), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment(),
        )  # fmt: skip

    def remove_containers(self) -> None:
        ids = self.out("ps", "-aq").split()
        if ids:
            self.docker("rm", "-fv", *ids)

    def destroy(self) -> None:
        """Stop, and leave nothing on this machine. Fails when the engine itself left something mounted."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.remove_containers()
        finally:
            left = self._stop_and_clean()
        if self.kind == "lamina":
            assert left == [], f"left mounted: {left}"

    def _stop_and_clean(self) -> list[str]:
        try:
            self.stop()
        finally:
            left = [
                line.split()[1]
                for line in Path("/proc/self/mounts").read_text().splitlines()
                if line.split()[1].startswith(os.fspath(self.home) + "/")
            ]
            for target in reversed(left):
                subprocess.run(["umount", "-l", target], check=False)
            shutil.rmtree(self.home, ignore_errors=True)
        return left
