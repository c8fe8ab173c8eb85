"""Registries that lie, fail or attack, met by the real daemon through the real client: section by section of a pull.

Each time a clear error, exit status 1, nothing left in the store, and a daemon that goes on as before.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.engines import Engine

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """Answers by path below `/v2/bad/`; every other path is 404. Values: (status, content type, body)."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, bytes]] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                missing = (404, "application/json", b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}')
                status, kind, body = registry.answers.get(self.path.removeprefix("/v2/bad/"), missing)
                if self.path == "/v2/":
                    status, kind, body = 200, "application/json", b"{}"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.name = f"127.0.0.1:{self.server.server_address[1]}/bad"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def blob(self, data: bytes, served: bytes | None = None) -> dict[str, object]:
        self.answers[f"blobs/{sha256(data)}"] = (200, "application/octet-stream", data if served is None else served)
        return {"mediaType": CONFIG, "digest": sha256(data), "size": len(data)}

    def image(self, layers: list[dict[str, object]], config: bytes) -> None:
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(config),
            "layers": [{**layer, "mediaType": LAYER} for layer in layers],
        }
        self.answers["manifests/latest"] = (200, MANIFEST, json.dumps(document).encode())


def config_of(*diff_ids: str) -> bytes:
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    try:
        yield registry
    finally:
        registry.close()


@pytest.fixture(autouse=True)
def unharmed(engine: Engine) -> Iterator[None]:
    """The same process answers after the test, it is small, and the store holds what it held."""
    before = _held(engine)
    yield
    assert engine.process is not None
    assert engine.process.poll() is None
    assert _held(engine) == before
    assert engine.out("run", "--rm", "--net", "none", "busybox", "echo", "fine") == "fine"
    assert "Traceback" not in engine.log.read_text()
    if engine.kind == "lamina":
        status = Path(f"/proc/{engine.process.pid}/status").read_text()
        assert int(status.partition("VmHWM:")[2].split()[0]) < 250_000


def _held(engine: Engine) -> dict[str, set[str]]:
    root = Path(engine.data_root or "")
    store = root / "image" / "overlay2"
    return {
        "images": set(engine.out("images", "-aq", "--no-trunc").split()),
        "layers": {path.name for path in (root / "overlay2").iterdir()},
        "records": {path.name for path in (store / "layerdb" / "sha256").iterdir()},
        "staged": {path.name for path in (store / "layerdb" / "tmp").glob("*")},
        "scratch": {path.name for path in (root / "tmp").glob("*")},
    }


def refused(engine: Engine, registry: Registry, suffix: str = "") -> str:
    done = engine.docker("pull", registry.name + suffix, check=False)
    assert done.returncode == 1
    return done.stderr.decode()


def test_a_manifest_of_a_million_layers(engine: Engine, registry: Registry) -> None:
    one = json.dumps({"mediaType": LAYER, "digest": sha256(b""), "size": 1}).encode()
    head = {"schemaVersion": 2, "mediaType": MANIFEST, "config": registry.blob(config_of())}
    body = json.dumps(head).encode()[:-1] + b',"layers":[' + b",".join([one] * 1_000_000) + b"]}"
    registry.answers["manifests/latest"] = (200, MANIFEST, body)
    assert "4194304 bytes" in refused(engine, registry)


def test_a_thousand_layers_that_fit_into_the_manifest(engine: Engine, registry: Registry) -> None:
    layer = registry.blob(gzip.compress(bytes(1024)))
    registry.image([layer] * 1000, config_of(*[sha256(bytes(1024))] * 1000))
    said = refused(engine, registry)
    assert "layers" in said or "max depth" in said


def test_a_manifest_nested_without_end(engine: Engine, registry: Registry) -> None:
    registry.answers["manifests/latest"] = (200, MANIFEST, b'{"a":' * 200_000 + b"1" + b"}" * 200_000)
    assert "manifest" in refused(engine, registry)


def test_an_index_that_names_itself(engine: Engine, registry: Registry) -> None:
    digest = sha256(b"whatever")
    platform = {"architecture": "amd64", "os": "linux"}
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [{"mediaType": INDEX, "digest": digest, "size": 1, "platform": platform}],
        }
    ).encode()
    registry.answers["manifests/latest"] = registry.answers[f"manifests/{digest}"] = (200, INDEX, body)
    assert "received" in refused(engine, registry)


def test_a_manifest_of_another_digest_than_asked_for(engine: Engine, registry: Registry) -> None:
    registry.image([], config_of())
    digest = sha256(b"another")
    registry.answers[f"manifests/{digest}"] = registry.answers["manifests/latest"]
    assert "verification failed" in refused(engine, registry, f"@{digest}")


@pytest.mark.parametrize("change", [lambda data: bytes(len(data)), lambda data: data + b"x"], ids=["other", "longer"])
def test_a_layer_of_other_bytes(engine: Engine, registry: Registry, change: Callable[[bytes], bytes]) -> None:
    data = gzip.compress(images.layer([("f", "file", 0o644, "x" * 1000)]), mtime=0)
    registry.image([registry.blob(data, change(data))], config_of(sha256(gzip.decompress(data))))
    said = refused(engine, registry)
    assert sha256(data)[:19] in said


def test_a_layer_that_is_not_the_one_of_the_config(engine: Engine, registry: Registry) -> None:
    good = registry.blob(gzip.compress(images.layer([("f", "file", 0o644, "x")])))
    registry.image([good], config_of(sha256(b"another tar")))
    assert "the image's config says" in refused(engine, registry)


def test_a_decompression_bomb(engine: Engine, registry: Registry) -> None:
    bomb = gzip.compress(bytes(600 << 20), 9)
    registry.image([registry.blob(bomb)], config_of(sha256(b"never reached")))
    assert refused(engine, registry)


def test_a_layer_that_leaves_its_root(engine: Engine, registry: Registry) -> None:
    tar = images.layer([("up", "link", 0o777, "../../../../../../.."), ("up/tmp/lamina-outside", "file", 0o644, "x")])
    climb = images.layer([("../../lamina-outside", "file", 0o644, "x")])
    for bad in (climb, images.layer([("hard", "hard", 0o644, "../../../../etc/hostname")]), tar):
        registry.image([registry.blob(gzip.compress(bad))], config_of(sha256(bad)))
        done = engine.docker("pull", registry.name, check=False)
        assert not Path("/tmp/lamina-outside").exists()
        if done.returncode == 0:  # resolved inside the root instead of refused
            engine.docker("rmi", registry.name)


@pytest.mark.parametrize(
    "config", [b"no json", b"[]", b"null", b'{"rootfs":7}', b"\xff\xfe"], ids=["text", "list", "null", "shape", "bytes"]
)
def test_a_config_that_is_none(engine: Engine, registry: Registry, config: bytes) -> None:
    registry.image([], config)
    assert "config" in refused(engine, registry)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "unauthorized: authentication required"),
        (403, "denied"),
        (404, "not found"),
        (429, "too many"),
        (418, "418"),
    ],
)
def test_each_refusal_has_its_words(engine: Engine, registry: Registry, status: int, words: str) -> None:
    registry.answers["manifests/latest"] = (status, "text/html", b"<html>\x1b[31m" + b"x" * 50_000)
    said = refused(engine, registry)
    assert words in said.lower()
    assert len(said) < 2000
    assert "\x1b" not in said
    assert said.startswith("Error response from daemon: ")


def test_a_registry_that_is_down(engine: Engine, registry: Registry) -> None:
    registry.close()
    said = refused(engine, registry)
    assert said.startswith("Error response from daemon: ")
    assert "refused" in said
