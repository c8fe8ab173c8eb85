"""make hello: one image through every part of Lamina, and the picture of what happened, with the real values.

Client, daemon and registry are the real ones, in a directory of their own under /tmp that is removed at the end.
`--keep` leaves the directory there to look at.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lamina.registry import hello_world

LAMINA = [sys.executable, "-m", "lamina"]
console = Console(width=max(80, min(shutil.get_terminal_size((100, 40)).columns, 120)))


def fail(message: str) -> None:
    console.print(f"lamina: {message}", style="red", markup=False, highlight=False)
    sys.exit(1)


@contextlib.contextmanager
def running(argv: list[str], log: Path, what: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program for as long as the block lasts."""
    with log.open("wb") as stream:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            console.print(f"{what} had to be killed; its log: {log.read_text()[-500:]}", markup=False)


def wait_for(check: Callable[[], object], process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            if check():
                return
        time.sleep(0.03)
    said = [line for line in log.read_text().splitlines() if line.strip()]
    fail(f"{what} did not start: {said[-1] if said else 'it said nothing'}")


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(os.fspath(path))
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def publish(base: str) -> None:
    """Push the image as any client would: blobs, manifests, then the tag."""
    with tempfile.TemporaryDirectory() as folder:
        layout = Path(folder)
        hello_world.write_oci_layout(hello_world.make(), layout)
        index = json.loads((layout / "index.json").read_bytes())["manifests"][0]
        documents = _walk(layout, index)
        for descriptor, is_manifest in documents:
            data = _blob(layout, descriptor)
            if is_manifest:
                last = descriptor is documents[-1][0]
                _put(f"{base}/manifests/{'latest' if last else descriptor['digest']}", data, descriptor["mediaType"])
            else:
                with urllib.request.urlopen(
                    urllib.request.Request(f"{base}/blobs/uploads/", method="POST"), timeout=10
                ) as begun:
                    place = begun.headers["Location"]
                place = place if place.startswith("http") else base.partition("/v2/")[0] + place
                _put(
                    f"{place}{'&' if '?' in place else '?'}digest={descriptor['digest']}",
                    data,
                    "application/octet-stream",
                )


def _walk(layout: Path, descriptor: dict[str, Any]) -> list[tuple[dict[str, Any], bool]]:
    """Everything below a descriptor, bottom up; True for manifests."""
    document = json.loads(_blob(layout, descriptor))
    found: list[tuple[dict[str, Any], bool]] = []
    for child in document.get("manifests", []):
        found += _walk(layout, child)
    for child in [*([document["config"]] if "config" in document else []), *document.get("layers", [])]:
        found.append((child, False))
    return [*found, (descriptor, True)]


def _blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    return (layout / "blobs" / str(descriptor["digest"]).replace(":", "/")).read_bytes()


def _put(url: str, data: bytes, media_type: str) -> None:
    request = urllib.request.Request(url, data=data, method="PUT", headers={"Content-Type": media_type})
    urllib.request.urlopen(request, timeout=10).close()


class Home:
    """Where everything of this demonstration lies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        self.socket = path / "lamina.sock"
        self.image_root = self.data / "image" / "overlay2"

    def lamina(self, *words: str, show: bool = False) -> str:
        env = {**os.environ, "LAMINA_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.path)}
        if show:
            console.print(Text.assemble(("$ ", "dim"), (f"lamina {' '.join(words)}", "bold")))
        done = subprocess.run([*LAMINA, *words], capture_output=True, env=env, check=False)
        out = done.stdout.decode()
        if done.returncode != 0:
            fail(f"lamina {' '.join(words)} ended with {done.returncode}: {done.stderr.decode().strip()}")
        if show:
            console.print(out.rstrip() or "(no output)", markup=False, highlight=False)
        return out


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--keep", action="store_true", help="leave the directory there to look at")
    keep = arguments.parse_args().keep
    if os.geteuid() != 0:
        fail("make hello mounts and makes namespaces: run it as root")
    begin = time.monotonic()
    home = Home(Path(tempfile.mkdtemp(prefix="lamina-hello-", dir="/tmp")))
    try:
        _demonstrate(home)
    finally:
        if not keep:
            shutil.rmtree(home.path, ignore_errors=True)
    kept = (
        f"Everything is still in {home.path}."
        if keep
        else "Nothing is left running, and the directory is gone (--keep keeps it)."
    )
    console.print(f"\n[bold green]Done[/] in {time.monotonic() - begin:.1f} s. {kept}\n")
    console.print("Try next:")
    for command, why in (
        (".venv/bin/lamina daemon", "the engine, with images under /var/lib/lamina"),
        ("export DOCKER_HOST=unix:///run/lamina.sock", "then docker and docker-py talk to it"),
        (".venv/bin/lamina run -it alpine", "a system of its own to play in"),
        ("docs/hands-on/hello-world.md", "the same session by hand, line by line"),
    ):
        console.print(f"  [bold]{command:45}[/] {why}", highlight=False)


def _demonstrate(home: Home) -> None:
    port = free_port()
    log = home.path / "registry.log"
    registry = [*LAMINA, "registry", "serve", "--root", str(home.path / "registry"), "--listen", f"127.0.0.1:{port}"]
    with running(registry, log, "registry") as process:
        base = f"http://127.0.0.1:{port}/v2/hello-world"
        wait_for(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=2), process, log, "registry")
        publish(base)
        log = home.path / "daemon.log"
        daemon = [*LAMINA, "daemon", f"--data-root={home.data}", f"--exec-root={home.path}/x", f"--pidfile={home.path}/pid",
                  f"--host=unix://{home.socket}", "--storage-driver=overlay2"]  # fmt: skip
        with running(daemon, log, "daemon") as engine:
            wait_for(lambda: answers(home.socket), engine, log, "daemon")
            _session(home, f"127.0.0.1:{port}/hello-world", process.pid, engine.pid)


def _session(home: Home, image: str, registry_pid: int, daemon_pid: int) -> None:
    home.lamina("pull", image, show=True)
    home.lamina("run", "--net", "none", "--name", "hello", image, show=True)
    home.lamina("diff", "hello", show=True)
    container = json.loads(home.lamina("inspect", "hello"))[0]
    details = json.loads(home.lamina("image", "inspect", image))[0]
    console.print()
    console.print(picture(home, image, container, details, registry_pid=registry_pid, daemon_pid=daemon_pid))
    home.lamina("rm", "hello")
    home.lamina("rmi", image)


def picture(
    home: Home, image: str, container: dict[str, Any], details: dict[str, Any], *, registry_pid: int, daemon_pid: int
) -> Group:
    """The picture of the system with the values of this run."""
    host, _, repository = image.partition("/")
    digest = details["RepoDigests"][0].partition("@")[2]
    actors = Table.grid(padding=(0, 1), expand=True)
    for justify in ("left", "center", "left", "center", "left"):
        actors.add_column(justify=justify, vertical="middle", no_wrap=True)
    actors.add_row(
        Panel("lamina pull\nlamina run\nlamina diff", title="client"),
        f"Engine API\n────────────▶\n{home.socket.name}",
        Panel(f"pid {daemon_pid}\nlayer store\nin data/", title="daemon"),
        "HTTP\n───────▶\n/v2/",
        Panel(f"pid {registry_pid} at {host}\n{repository}\n{_short(digest)}", title="registry"),
    )
    layers = _image_layers(home, details["RootFS"]["Layers"])
    stack = Table.grid(expand=True)
    stack.add_row(_writable(home, container, [where for _, where in layers]))
    for panel, _ in reversed(layers):
        stack.add_row(panel)
    stack.add_row(_facts(("image id", _short(details["Id"]), "digest of the config, which lists the diff ids")))
    return Group(
        Text(f"All of it in {home.path}:", style="dim"),
        actors,
        Panel(stack, title="what the container saw: one tree, the topmost file wins", border_style="green"),
    )


def _facts(*rows: tuple[str, str, str]) -> Table:
    """Name, value, what it means: in columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=9)
    table.add_column()
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _image_layers(home: Home, diff_ids: list[str]) -> list[tuple[Panel, Path]]:
    """What the store holds of each layer, lowest first; with its directory."""
    found = []
    chain = ""
    for number, diff_id in enumerate(diff_ids, 1):
        below = chain
        chain = diff_id if not below else "sha256:" + hashlib.sha256(f"{below} {diff_id}".encode()).hexdigest()
        record = home.image_root / "layerdb" / "sha256" / chain[7:]
        cache_id = (record / "cache-id").read_text()
        where = home.data / "overlay2" / cache_id / "diff"
        held = ", ".join(sorted(f"/{path.relative_to(where)}" for path in where.rglob("*") if path.is_file()))
        split = len(gzip.decompress((record / "tar-split.json.gz").read_bytes()).splitlines())
        why = "digest of the chain id below and the diff id" if below else "the diff id, as no layer is below"
        facts = _facts(
            ("diff id", _short(diff_id), "digest of the uncompressed tar"),
            ("chain id", _short(chain), why),
            ("cache id", f"{cache_id[:12]}…", "random; names the directory"),
            ("directory", _shown(home, where), ""),
            ("holds", held, f"{(record / 'size').read_text()} bytes; {split} tar-split rows rebuild the tar"),
        )
        title = f"image layer {number} of {len(diff_ids)} (read-only)"
        found.append((Panel(facts, title=title, title_align="left", border_style="blue"), where))
    return found


def _writable(home: Home, container: dict[str, Any], below: list[Path]) -> Panel:
    mount_id = (home.image_root / "layerdb" / "mounts" / container["Id"] / "mount-id").read_text()
    upper = home.data / "overlay2" / mount_id / "diff"
    facts = _facts(
        ("container", f"{container['Id'][:12]}…", "random"),
        ("mount id", f"{mount_id[:12]}…", "random; names the directory"),
        ("directory", _shown(home, upper), ""),
    )
    changed = Text()
    for path in sorted(path for path in upper.rglob("*") if path.is_file()):
        name = path.relative_to(upper)
        originals = [layer / name for layer in below if (layer / name).is_file()]
        before = originals[-1].read_text().splitlines() if originals else []
        lines = path.read_text().splitlines()
        changed.append("\ncopied up  " if before else "\nnew file   ", style="dim")
        changed.append(f"/{name}", style="yellow")
        changed.append(f"   {len(before)} line in the layer below, {len(lines)} here:", style="dim")
        for line in lines:
            changed.append(
                f"\n           {' ' if line in before else '+'} {line}", style="" if line in before else "green"
            )
    title = "writable layer of the container"
    return Panel(Group(facts, changed), title=title, title_align="left", border_style="yellow")


def _short(digest: str) -> str:
    return re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]+", r"\1…", digest)


def _shown(home: Home, path: Path) -> str:
    return re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1…", f"{path.relative_to(home.path)}/")


if __name__ == "__main__":
    main()
