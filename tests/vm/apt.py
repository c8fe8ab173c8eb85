"""Debian packages: downloaded and unpacked, not installed, so that this machine stays as it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.vm.failures import VmUnavailable


def output(*words: str | Path, cwd: Path | None = None) -> str:
    """What a program prints. Raises VmUnavailable with the end of what it said when it fails or is not there."""
    try:
        done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, env=english())
    except FileNotFoundError:
        raise VmUnavailable(f"{words[0]} is not installed") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise VmUnavailable(f"{words[0]} {words[1] if len(words) > 1 else ''} failed: {' / '.join(said)}")
    return done.stdout


def english() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def debian_version() -> str:
    """The number of this machine's Debian release, as 12."""
    found = re.search(r'^VERSION_ID="?(\d+)', Path("/etc/os-release").read_text(), re.MULTILINE)
    if not found or not shutil.which("apt-get"):
        raise VmUnavailable(
            "the virtual machine takes its kernel from Debian's packages, and this machine is not Debian"
        )
    return found[1]


def architecture() -> str:
    return output("dpkg", "--print-architecture").strip()


class Apt:
    """apt-get with this machine's package lists, or with lists of its own."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        self.options = ["-o", "APT::Sandbox::User=root", *options] if os.geteuid() == 0 else [*options]

    def update(self) -> None:
        output("apt-get", *self.options, "update", "-q")

    def candidates(self, package: str) -> list[str]:
        """What a package without contents of its own asks for, e.g. the kernels that linux-image-amd64 stands for."""
        lines = output("apt-cache", *self.options, "depends", "--no-recommends", package).splitlines()
        return [line.split()[1].strip("<>") for line in lines if line.strip().lstrip("|").startswith("Depends:")]

    def version(self, package: str) -> str | None:
        """The version that would be downloaded, None for a package that the lists do not have."""
        for line in output("apt-cache", *self.options, "policy", package).splitlines():
            if line.strip().startswith("Candidate:") and "(none)" not in line:
                return line.split()[1]
        return None

    def download(self, packages: Sequence[str], into: Path) -> list[Path]:
        """The package files. Lists that are older than the archive are updated once, where this user may."""
        into.mkdir(parents=True, exist_ok=True)
        try:
            output("apt-get", *self.options, "download", "-q", *packages, cwd=into)
        except VmUnavailable:
            self.update()
            output("apt-get", *self.options, "download", "-q", *packages, cwd=into)
        return [next(into.glob(f"{package}_*.deb")) for package in packages]

    def install(self, packages: Sequence[str]) -> None:
        """Onto this machine, which takes root; what is installed already costs nothing."""
        missing = [package for package in packages if not installed(package)]
        if not missing:
            return
        if os.geteuid() != 0:
            raise VmUnavailable(f"missing: {' '.join(missing)}. As root: apt-get install {' '.join(missing)}")
        words = ("apt-get", *self.options, "install", "-q", "-y", "--no-install-recommends", *missing)
        try:
            output(*words)
        except VmUnavailable:
            self.update()
            output(*words)


def installed(package: str) -> bool:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status}", package],
        capture_output=True, text=True, check=False, env=english(),
    )  # fmt: skip
    return done.stdout == "installed"


def unpack(package: Path, into: Path) -> None:
    output("dpkg-deb", "-x", package, into)
