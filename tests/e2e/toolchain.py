"""An image with this machine's own git, gcc and apt: heavier users of a file system than busybox is."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

from tests.e2e import images

_PROGRAMS = (
    "git",
    "gcc",
    "dpkg",
    "dpkg-deb",
    "dpkg-query",
    "dpkg-split",
    "apt-get",
    "apt-config",
    "tar",
    "ldconfig",
    "diff",
    "find",
)
_PACKAGES = re.compile(
    r"git|gcc-\d+(-[a-z0-9-]+)?|cpp-\d+(-[a-z0-9-]+)?|binutils(-[a-z0-9-]+)?|libgcc-\d+-dev|libc6-dev|linux-libc-dev|libc-dev-bin|base-passwd"
)
_LEFT_OUT = re.compile(r"/usr/share/(doc|man|locale|lintian|bug|info)/|\.(py|gz)$|lto-wrapper|lto1|gold$|\bdwp$")
_DIRECTORIES = (
    "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/trusted.gpg.d", "etc/apt/sources.list.d",
    "etc/dpkg/dpkg.cfg.d", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/lib/apt/lists/partial",
    "var/cache/apt/archives/partial", "var/log/apt", "usr/share/dpkg",
)  # fmt: skip


def missing() -> str:
    """The program that this machine lacks; empty when it has all."""
    return next((name for name in _PROGRAMS if shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin") is None), "")


@cache
def image(tag: str = "toolchain:latest") -> bytes:
    """`docker load` input: busybox, and above it the programs with every library they load."""
    config = {"Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"]}
    return images.archive(tag, [_merged_busybox(), _tools()], config)


def debian_package(directory: Path, name: str, version: str, files: dict[str, str], **fields: str) -> Path:
    """A .deb with these files, a configuration file and a script that runs at its installation."""
    tree = directory / f"{name}-{version}"
    for path, content in {**files, f"etc/{name}.conf": f"of {version}\n"}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    control = tree / "DEBIAN"
    control.mkdir()
    told = {"Package": name, "Version": version, "Architecture": "all", "Maintainer": "Tests <tests@example.com>",
            "Description": "made by a test", **fields}  # fmt: skip
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in told.items()))
    (control / "conffiles").write_text(f"/etc/{name}.conf\n")
    script = control / "postinst"
    script.write_text(f"#!/bin/sh\nset -e\necho {version} > /var/lib/{name}.installed\n")
    script.chmod(0o755)
    made = directory / f"{name}_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, made], check=True, capture_output=True)
    return made


def repository(directory: Path, packages: list[Path]) -> None:
    """The index that apt reads."""
    import hashlib

    index = []
    for package in packages:
        control = subprocess.run(["dpkg-deb", "-f", package], check=True, capture_output=True, text=True).stdout
        data = package.read_bytes()
        index.append(
            f"{control}Filename: ./{package.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
    (directory / "Packages").write_text("\n".join(index))


def _merged_busybox() -> bytes:
    """busybox on a merged /usr, where Debian's programs expect their loader."""
    entries: list[tuple[str, str, int, bytes | str]] = [
        (name, "dir", 0o755, "")
        for name in ("etc", "root", "usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var", "proc")
    ]
    entries += [(name, "link", 0o777, f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")]
    entries += [
        ("tmp", "dir", 0o1777, ""),
        ("etc/passwd", "file", 0o644, images.PASSWD),
        ("etc/group", "file", 0o644, images.GROUP),
    ]
    entries.append(("usr/bin/busybox", "file", 0o755, images.BUSYBOX.read_bytes()))
    names = subprocess.run([images.BUSYBOX, "--list"], capture_output=True, check=True, text=True).stdout.split()
    entries += [(f"usr/bin/{name}", "link", 0o777, "busybox") for name in sorted(set(names)) if name != "busybox"]
    return images.layer(entries)


def _tools() -> bytes:
    """Files of this machine under their real names, with the symlinks that lead to them."""
    wanted: dict[str, Path] = {}
    for name in _PROGRAMS:
        found = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
        assert found is not None
        _take(Path(found), wanted)
    installed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\n"], check=True, capture_output=True, text=True
    ).stdout.split()
    packages = [name for name in installed if _PACKAGES.fullmatch(name)]
    listed = subprocess.run(["dpkg", "-L", *packages], check=True, capture_output=True, text=True).stdout
    methods = [os.fspath(place) for name in ("file", "copy", "store") for place in [Path("/usr/lib/apt/methods", name)]]
    tables = [os.fspath(place) for place in Path("/usr/share/dpkg").glob("*table")]
    for path in [*listed.splitlines(), *methods, *tables]:
        if path.startswith("/") and not _LEFT_OUT.search(path) and (os.path.isfile(path) or os.path.islink(path)):
            _take(Path(path), wanted)
    for library in _libraries([place for place in wanted.values() if not place.is_symlink()]):
        _take(library, wanted)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in _DIRECTORIES:
            header = tarfile.TarInfo(name)
            header.type, header.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(header)
        for name in ("var/lib/dpkg/status", "var/lib/dpkg/available"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        for name, place in sorted(wanted.items()):
            tar.add(place, name, recursive=False)
    return buffer.getvalue()


def _take(path: Path, wanted: dict[str, Path]) -> None:
    """One file under its name with the directories resolved; of a symlink also what it leads to."""
    place = Path(os.path.realpath(path.parent)) / path.name
    name = os.fspath(place).lstrip("/")
    if name in wanted or not os.path.lexists(place):
        return
    wanted[name] = place
    if place.is_symlink():
        _take(place.parent / os.readlink(place), wanted)


def _libraries(files: list[Path]) -> set[Path]:
    """What the programs among the files load."""
    programs = [place for place in files if place.is_file() and _is_elf(place)]
    done = subprocess.run(["ldd", *programs], check=False, capture_output=True, text=True)
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", done.stdout)}


def _is_elf(place: Path) -> bool:
    if place.suffix == ".o":
        return False
    with place.open("rb") as file:
        head = file.read(18)
    return head[:4] == b"\x7fELF" and head[16] in {2, 3}
