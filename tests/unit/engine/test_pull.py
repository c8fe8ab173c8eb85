"""Pulls into a real layer store: from honest registries, and from ones that are not."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import zstandard
from aiohttp import web

from lamina.distribution.registry_config import RegistryConfig, parse_config
from lamina.errors import (
    Conflict,
    DataLoss,
    InvalidManifest,
    LaminaError,
    NotFound,
    StorageFull,
    UnsafeArchive,
    Unsupported,
)
from lamina.kernel.mounts import Mount, mount, unmount
from lamina.layers.store import MAX_DEPTH
from lamina.oci import mediatype
from lamina.oci.digest import DiffId, digest_of
from lamina.oci.manifest import decode_manifest
from lamina.oci.platform import Platform
from lamina.registry.app import build_app
from lamina.registry.hello_world import make
from lamina.registry.publish import publish
from lamina.wire.engine.progress import discard
from tests.fakes.puller import Puller, puller
from tests.fakes.registries import Hostile, free_port, hostile, reference, serving
from tests.fakes.tars import tar_of

pytestmark = pytest.mark.root

HELLO = make()
Case = Callable[[Puller, int], Awaitable[None]]
HostileCase = Callable[[Puller, Hostile], Awaitable[None]]


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@pytest.fixture(params=["overlay2", "vfs"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def play(tmp_path: Path, case: Case, driver: str = "overlay2") -> None:
    """The case, with an engine on an empty root and a registry that has hello-world."""

    async def run() -> None:
        app = await asyncio.to_thread(build_app, tmp_path / "registry")
        async with serving(app) as port, puller(tmp_path / "root", driver) as engine:
            await publish(f"127.0.0.1:{port}/library/hello", engine.workers)
            await case(engine, port)

    asyncio.run(run())


def play_hostile(tmp_path: Path, case: HostileCase, driver: str = "overlay2") -> None:
    async def run() -> None:
        async with hostile() as registry, puller(tmp_path / "root", driver) as engine:
            await case(engine, registry)

    asyncio.run(run())


async def pull(engine: Puller, text: str, platform: Platform | None = None) -> str:
    return str(await engine.pull(reference(text), platform=platform, auth=None, progress=engine.told.append))


def image_of(*tars: bytes, pack: Callable[[bytes], bytes] = zipped, **changed: object) -> dict[str, bytes]:
    """The blobs and the manifest (`latest`) of an image with these layers."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
            **changed,
        }
    ).encode()
    packed = [pack(tar) for tar in tars]
    return served_of(config, packed)


def served_of(config: bytes, layers: list[bytes], media_type: str = mediatype.OCI_LAYER_GZIP) -> dict[str, bytes]:
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": {"mediaType": mediatype.OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)} for blob in layers],
        }
    ).encode()
    return {"latest": manifest, digest_of(config): config, **{digest_of(blob): blob for blob in layers}}


def serve(registry: Hostile, served: dict[str, bytes], name: str = "a") -> str:
    for key, body in served.items():
        if key == "latest":
            answer = web.Response(body=body, headers={"Content-Type": mediatype.OCI_MANIFEST})
            registry.on("GET", f"/v2/{name}/manifests/latest", answer)
        else:
            registry.on("GET", f"/v2/{name}/blobs/{key}", web.Response(body=body))
    return f"127.0.0.1:{registry.port}/{name}"


def content(engine: Puller, diff_ids: list[str]) -> list[bytes]:
    """The tars of the layers that the store now has, by diff id."""
    found: list[bytes] = []
    for diff_id in diff_ids:
        [layer] = [layer for layer in engine.layers.layers() if layer.diff_id == diff_id]
        path = engine.root / "out"
        with path.open("wb") as out:
            engine.layers.write_tar(layer.chain_id, out)
        found.append(path.read_bytes())
    return found


def test_a_pulled_image_is_there_and_told_as_docker_tells_it(tmp_path: Path, driver: str) -> None:
    async def case(engine: Puller, port: int) -> None:
        name = f"127.0.0.1:{port}/library/hello"
        image = HELLO.images[0]
        assert await pull(engine, name) == image.image_id
        assert engine.images.get(image.image_id).raw == image.config
        assert engine.tags.resolve(reference(name)) == image.image_id
        assert engine.tags.resolve(reference(f"{name}@{HELLO.digest}")) == image.image_id
        assert content(engine, [diff_id for diff_id, _ in image.layers]) == [
            gzip.decompress(blob) for _, blob in image.layers
        ]
        statuses = engine.statuses()
        assert statuses[0] == "Pulling from library/hello"
        assert engine.told[0].id == "latest"
        assert statuses[-2:] == [
            f"Digest: {HELLO.digest}",
            f"Status: Downloaded newer image for {name}:latest",
        ]
        for layer in HELLO.images[0].layers:
            short = digest_of(layer[1])[7:19]
            own = [step.status for step in engine.told if step.id == short and step.status != "Waiting"]
            assert own == [
                "Pulling fs layer",
                "Downloading",
                "Verifying Checksum",
                "Download complete",
                "Extracting",
                "Pull complete",
            ]
        assert engine.published == [
            (
                "image",
                "pull",
                f"{name}:latest",
                {"name": name, "org.opencontainers.image.title": "hello-world"},
            )
        ]

    play(tmp_path, case, driver)


def test_what_is_here_is_not_fetched_again(tmp_path: Path, driver: str) -> None:
    async def case(engine: Puller, port: int) -> None:
        name = f"127.0.0.1:{port}/library/hello"
        await pull(engine, name)
        await pull(engine, f"{name}@{HELLO.digest}")
        engine.told.clear()
        await pull(engine, name)
        assert engine.statuses()[1:] == [
            f"Digest: {HELLO.digest}",
            f"Status: Image is up to date for {name}:latest",
        ]
        engine.told.clear()
        await pull(engine, name, Platform("linux", "arm64"))
        # The greetings layer lies on another program there: it is another chain, so it is fetched; none exists yet.
        assert "Status: Downloaded newer image" in engine.statuses()[-1]

    play(tmp_path, case, driver)


def test_a_layer_that_another_image_has_already_exists(tmp_path: Path, driver: str) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        base, one, two = (tar_of({name: name.encode()}) for name in ("base", "one", "two"))
        await pull(engine, serve(registry, image_of(base, one), "first"))
        engine.told.clear()
        registry.requests.clear()
        await pull(engine, serve(registry, image_of(base, two), "second"))
        assert engine.statuses().count("Already exists") == 1
        blobs = [request.path for request in registry.requests if digest_of(zipped(base)) in request.path]
        assert blobs == []
        assert len(engine.layers.layers()) == 3

    play_hostile(tmp_path, case, driver)


def test_the_digest_of_an_index_that_was_pulled_for_another_platform_stays(tmp_path: Path) -> None:
    async def case(engine: Puller, port: int) -> None:
        name = f"127.0.0.1:{port}/library/hello"
        await pull(engine, name)
        arm = await pull(engine, name, Platform("linux", "arm64"))
        assert arm == HELLO.images[1].image_id
        assert engine.tags.resolve(reference(name)) == arm
        assert engine.tags.resolve(reference(f"{name}@{HELLO.digest}")) == HELLO.images[0].image_id
        with pytest.raises(Conflict, match="Cannot overwrite digest"):
            await pull(engine, f"{name}@{HELLO.digest}", Platform("linux", "arm64"))

    play(tmp_path, case)


@pytest.mark.parametrize("pack", [zipped, zstandard.ZstdCompressor().compress, bytes], ids=["gzip", "zstd", "plain"])
def test_every_compression_is_unpacked(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        tar = tar_of({"a": os.urandom(300_000), "b/c": b"x"})
        await pull(engine, serve(registry, image_of(tar, pack=pack)))
        assert content(engine, [digest_of(tar)]) == [tar]

    play_hostile(tmp_path, case)


def test_two_pulls_of_one_image_fetch_each_blob_once(tmp_path: Path, driver: str) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        tars = [tar_of({f"f{number}": os.urandom(200_000)}) for number in range(3)]
        served = image_of(*tars)
        name = serve(registry, served)
        await asyncio.gather(*(pull(engine, name) for _ in range(4)))
        for blob in (key for key in served if key != "latest"):
            asked = [request for request in registry.requests if request.path.endswith(blob)]
            assert len(asked) == 1 or blob == decode_manifest(served["latest"]).config.digest  # type: ignore[union-attr]
        assert len(engine.layers.layers()) == 3

    play_hostile(tmp_path, case, driver)


def test_one_who_gives_up_does_not_stop_the_other(tmp_path: Path) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        tar = tar_of({"f": os.urandom(300_000)})
        served = image_of(tar)
        name = serve(registry, served)
        blob = digest_of(zipped(tar))
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(request: web.Request) -> web.StreamResponse:
            begun.set()
            await go_on.wait()
            return web.Response(body=served[blob])

        registry.on("GET", f"/v2/a/blobs/{blob}", slow)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(pull(engine, name))
            await begun.wait()
            joined = asyncio.Event()
            told: list[str] = []

            def watch(step: object) -> None:
                told.append(str(step))
                joined.set()

            second = group.create_task(
                engine.pull(reference(name), platform=None, auth=None, progress=watch)  # type: ignore[arg-type]
            )
            while not any("Pulling fs layer" in step for step in told):
                joined.clear()
                await joined.wait()
            await asyncio.sleep(0.05)
            first.cancel()
            await asyncio.wait([first])
            go_on.set()
            await second
        assert first.cancelled()
        assert len(engine.layers.layers()) == 1

    play_hostile(tmp_path, case)


def test_a_pull_that_is_given_up_leaves_nothing(tmp_path: Path, driver: str) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        tars = [tar_of({f"f{number}": os.urandom(200_000)}) for number in range(2)]
        served = image_of(*tars)
        name = serve(registry, served)
        begun = asyncio.Event()

        async def half(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse()
            await answer.prepare(request)
            await answer.write(served[digest_of(zipped(tars[1]))][:100_000])
            begun.set()
            await asyncio.Event().wait()
            return answer

        registry.on("GET", f"/v2/a/blobs/{digest_of(zipped(tars[1]))}", half)
        pulling = asyncio.ensure_future(pull(engine, name))
        await begun.wait()
        pulling.cancel()
        await asyncio.wait([pulling])
        assert engine.leftovers() == []

    play_hostile(tmp_path, case, driver)


# what a registry may try


async def _refused(engine: Puller, name: str, kind: type[LaminaError], words: str) -> None:
    with pytest.raises(kind, match=words):
        await pull(engine, name)
    assert engine.leftovers() == []
    assert engine.published == []


def test_a_layer_of_other_bytes_leaves_nothing(tmp_path: Path, driver: str) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        good, other = tar_of({"good": b"1"}), tar_of({"other": os.urandom(100_000)})
        served = image_of(good, other)
        wrong = bytearray(served[digest_of(zipped(other))])
        wrong[len(wrong) // 2] ^= 1
        served[digest_of(zipped(other))] = bytes(wrong)
        await _refused(engine, serve(registry, served), LaminaError, "failed to register layer sha256:")

    play_hostile(tmp_path, case, driver)


def test_a_layer_swapped_for_a_sound_one_is_refused(tmp_path: Path) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        wanted, other = tar_of({"wanted": b"1" * 99}), tar_of({"othere": b"1" * 99})
        pack = bytes
        served = image_of(wanted, pack=pack)
        assert len(wanted) == len(other)
        served[digest_of(wanted)] = other
        await _refused(engine, serve(registry, served), DataLoss, "sha256:")

    play_hostile(tmp_path, case)


def test_a_config_that_lies_about_its_layers_is_refused(tmp_path: Path, driver: str) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        tar, claimed = tar_of({"evil": b"1"}), tar_of({"honest": b"1"})
        rootfs = {"type": "layers", "diff_ids": [digest_of(claimed)]}
        await _refused(engine, serve(registry, image_of(tar, rootfs=rootfs)), DataLoss, "unpacks to .* config says")

    play_hostile(tmp_path, case, driver)


def test_a_config_and_a_manifest_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        tar = tar_of({"a": b"1"})
        rootfs = {"type": "layers", "diff_ids": [digest_of(tar)] * 2}
        served = image_of(tar, rootfs=rootfs)
        await _refused(engine, serve(registry, served), InvalidManifest, "1 layers, its config 2")
        rootfs = {"type": "layers", "diff_ids": [digest_of(tar)] * (MAX_DEPTH + 1)}
        deep = json.loads(image_of(tar, rootfs=rootfs)["latest"])
        deep["layers"] *= MAX_DEPTH + 1
        served = {**image_of(tar, rootfs=rootfs), "latest": json.dumps(deep).encode()}
        await _refused(engine, serve(registry, served), InvalidManifest, "max depth exceeded")

    play_hostile(tmp_path, case)


@pytest.mark.parametrize("config", [b"", b"[]", b"no JSON", b'{"os":"linux"}', b'{"rootfs":{"diff_ids":["x"]}}'])
def test_a_config_that_is_none_is_refused(tmp_path: Path, config: bytes) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        await _refused(engine, serve(registry, served_of(config, [])), InvalidManifest, "image config")

    play_hostile(tmp_path, case)


def test_an_image_for_another_system_is_refused(tmp_path: Path) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        served = image_of(tar_of({"a": b"1"}), os="windows")
        await _refused(engine, serve(registry, served), Unsupported, 'operating system "windows" cannot be used')
        name = serve(registry, image_of(tar_of({"a": b"1"})))
        with pytest.raises(NotFound, match="wanted linux/arm64, actual: linux/amd64"):
            await pull(engine, name, Platform("linux", "arm64"))
        assert engine.leftovers() == []

    play_hostile(tmp_path, case)


def test_a_layer_that_would_leave_its_root_is_refused(tmp_path: Path, driver: str) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        name = serve(registry, image_of(tar_of({"good": b"1"}), tar_of({"../../evil": b"1"})))
        await _refused(engine, name, UnsafeArchive, "evil")

    play_hostile(tmp_path, case, driver)


def test_the_urls_of_a_foreign_layer_are_never_asked(tmp_path: Path) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        async with hostile() as elsewhere:
            tar = tar_of({"a": b"1"})
            blob = zipped(tar)
            elsewhere.on("GET", "/layer", web.Response(body=blob))
            served = image_of(tar)
            manifest = json.loads(served["latest"])
            manifest["layers"][0]["mediaType"] = mediatype.OCI_FOREIGN_LAYER_GZIP
            manifest["layers"][0]["urls"] = [f"http://127.0.0.1:{elsewhere.port}/layer"]
            served["latest"] = json.dumps(manifest).encode()
            del served[digest_of(blob)]
            await _refused(engine, serve(registry, served), NotFound, "blob unknown|manifest unknown")
            assert elsewhere.requests == []

    play_hostile(tmp_path, case)


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path, driver: str) -> None:
    small = tmp_path / "root"
    small.mkdir()
    mount(Mount("tmpfs", "tmpfs", small, data="size=3m"))
    try:

        async def case(engine: Puller, registry: Hostile) -> None:
            name = serve(registry, image_of(tar_of({"good": b"1"}), tar_of({"big": os.urandom(8 << 20)})))
            with pytest.raises(StorageFull, match="no space left on device"):
                await pull(engine, name)
            assert engine.leftovers() == []

        play_hostile(tmp_path, case, driver)
    finally:
        unmount(small)


# mirrors


def test_a_mirror_is_asked_first_and_without_it_the_registry(tmp_path: Path) -> None:
    async def run() -> None:
        async with hostile() as mirror:
            config = parse_config(mirrors=[f"http://127.0.0.1:{mirror.port}"], certs_dirs=())
            async with puller(tmp_path / "root", config=config) as engine:
                serve(mirror, image_of(tar_of({"a": b"1"})), "library/mirrored")
                await pull(engine, "mirrored")
                assert engine.tags.resolve(reference("docker.io/library/mirrored:latest"))
                sources = engine.metadata.sources(DiffId(digest_of(tar_of({"a": b"1"}))))
                assert [source.repository for source in sources] == ["docker.io/library/mirrored"]

    asyncio.run(run())


def test_a_mirror_that_is_away_or_lies_is_passed_over(tmp_path: Path) -> None:
    async def run() -> None:
        async with hostile() as lying, hostile() as good:
            mirrors = [f"http://127.0.0.1:{port}" for port in (free_port(), lying.port, good.port)]
            async with puller(tmp_path / "root", config=parse_config(mirrors=mirrors, certs_dirs=())) as engine:
                served = image_of(tar_of({"a": b"1"}))
                serve(good, served, "library/mirrored")
                blob = digest_of(zipped(tar_of({"a": b"1"})))
                serve(lying, {**served, blob: served[blob][::-1]}, "library/mirrored")
                await pull(engine, "mirrored")
                told = [status for status in engine.statuses() if status.startswith("Mirror")]
                assert [status.split()[1] for status in told] == [mirror[7:] for mirror in mirrors[:2]]
                assert "connection refused" in told[0]
                assert "failed to register layer" in told[1]
                assert content(engine, [digest_of(tar_of({"a": b"1"}))]) == [tar_of({"a": b"1"})]

    asyncio.run(run())


def test_the_settings_bound_how_much_is_fetched_at_once(tmp_path: Path) -> None:
    async def run() -> None:
        config = RegistryConfig(certs_dirs=(), max_concurrent_downloads=2)
        async with hostile() as registry, puller(tmp_path / "root", config=config) as engine:
            tars = [tar_of({f"f{number}": os.urandom(100_000)}) for number in range(6)]
            served = image_of(*tars)
            name = serve(registry, served)
            at_once, most = 0, 0

            def counted(body: bytes) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
                async def answer(_: web.Request) -> web.StreamResponse:
                    nonlocal at_once, most
                    at_once += 1
                    most = max(most, at_once)
                    await asyncio.sleep(0.02)
                    at_once -= 1
                    return web.Response(body=body)

                return answer

            for tar in tars:
                blob = digest_of(zipped(tar))
                registry.on("GET", f"/v2/a/blobs/{blob}", counted(served[blob]))
            await engine.pull(reference(name), platform=None, auth=None, progress=discard)
            assert most == 2

    asyncio.run(run())


def test_an_image_that_cannot_be_recorded_is_told_as_what_it_is(tmp_path: Path, driver: str) -> None:
    async def case(engine: Puller, registry: Hostile) -> None:
        served = image_of(tar_of({"a": b"1"}))
        [config] = [key for key, body in served.items() if b'"rootfs"' in body]
        place = engine.root / "image" / engine.driver_name / "imagedb" / "content" / "sha256"
        (place / config.removeprefix("sha256:")).mkdir()  # in the way of the record
        with pytest.raises(OSError, match="directory"):
            await pull(engine, serve(registry, served))
        assert engine.leftovers() == []

    play_hostile(tmp_path, case, driver)
