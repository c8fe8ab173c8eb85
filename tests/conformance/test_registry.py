"""What a registry promises, as cases; run over ours and over Debian's docker-registry, which we did not write.

Source: distribution-spec spec.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from lamina.registry.app import build_app
from tests.fakes.registries import docker_registry, serving

CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Peer:
    """The words that the cases are written in."""

    def __init__(self, session: aiohttp.ClientSession, base: str, *, is_ours: bool) -> None:
        self.session = session
        self.base = base
        self.is_ours = is_ours

    def url(self, path: str) -> URL:
        return URL(f"{self.base}{path}")

    async def call(self, method: str, path: str | URL, **options: object) -> tuple[int, bytes, CIMultiDict[str]]:
        url = path if isinstance(path, URL) else self.url(path)
        async with self.session.request(method, url, **options) as response:  # type: ignore[arg-type]
            # docker-registry 2.8 announces a body with a 416 and does not send it.
            body = b"" if response.status == 416 else await response.read()
            return response.status, body, response.headers.copy()

    async def begin(self, name: str) -> URL:
        status, _, headers = await self.call("POST", f"/v2/{name}/blobs/uploads/")
        assert status == 202
        assert headers["Docker-Upload-UUID"]
        return self.url("/").join(URL(headers["Location"]))

    async def push(self, name: str, data: bytes) -> str:
        target = await self.begin(name)
        status, _, headers = await self.call("PUT", target.update_query(digest=digest(data)), data=data)
        assert status == 201
        assert headers["Docker-Content-Digest"] == digest(data)
        return digest(data)

    async def push_image(self, name: str, tag: str, *layers: bytes) -> bytes:
        await self.push(name, CONFIG)
        described = [
            {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "digest": await self.push(name, layer),
                "size": len(layer),
            }
            for layer in layers
        ]
        raw = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "digest": digest(CONFIG),
                    "size": len(CONFIG),
                },
                "layers": described,
            }
        ).encode()
        status, _, headers = await self.put_manifest(name, tag, raw)
        assert status == 201
        assert headers["Docker-Content-Digest"] == digest(raw)
        return raw

    async def put_manifest(self, name: str, tag: str, raw: bytes) -> tuple[int, bytes, CIMultiDict[str]]:
        return await self.call("PUT", f"/v2/{name}/manifests/{tag}", data=raw, headers={"Content-Type": MANIFEST_TYPE})


Case = Callable[[Peer], Awaitable[None]]
Play = Callable[[Case], None]


@contextlib.asynccontextmanager
async def ours(root: Path) -> AsyncIterator[int]:
    async with serving(await asyncio.to_thread(build_app, root)) as port:
        yield port


@pytest.fixture(params=["lamina", "debian"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    def play_case(case: Case) -> None:
        async def run(port: int, *, is_ours: bool) -> None:
            async with aiohttp.ClientSession() as session:
                await case(Peer(session, f"http://127.0.0.1:{port}", is_ours=is_ours))

        async def run_ours() -> None:
            async with ours(tmp_path) as port:
                await run(port, is_ours=True)

        if request.param == "lamina":
            asyncio.run(run_ours())
            return
        with docker_registry(tmp_path) as port:
            asyncio.run(run(port, is_ours=False))

    return play_case


def code(body: bytes) -> str:
    return str(json.loads(body)["errors"][0]["code"])


def test_the_protocol_is_spoken_here(play: Play) -> None:
    async def case(peer: Peer) -> None:
        status, _, headers = await peer.call("GET", "/v2/")
        assert status == 200
        assert headers["Docker-Distribution-Api-Version"] == "registry/2.0"

    play(case)


def test_a_blob_pushed_at_once_comes_back(play: Play) -> None:
    async def case(peer: Peer) -> None:
        data = bytes(range(256)) * 4000
        await peer.push("a/b", data)
        status, body, headers = await peer.call("GET", f"/v2/a/b/blobs/{digest(data)}")
        assert (status, body) == (200, data)
        assert headers["Docker-Content-Digest"] == digest(data)
        status, body, headers = await peer.call("HEAD", f"/v2/a/b/blobs/{digest(data)}")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(len(data)))

    play(case)


def test_an_empty_blob_is_a_blob(play: Play) -> None:
    async def case(peer: Peer) -> None:
        await peer.push("a", b"")
        status, body, _ = await peer.call("GET", f"/v2/a/blobs/{digest(b'')}")
        assert (status, body) == (200, b"")

    play(case)


def test_a_blob_pushed_in_chunks_comes_back(play: Play) -> None:
    async def case(peer: Peer) -> None:
        target = await peer.begin("a")
        for start, chunk in ((0, b"first,"), (6, b"second")):
            span = f"{start}-{start + len(chunk) - 1}"
            status, _, headers = await peer.call("PATCH", target, data=chunk, headers={"Content-Range": span})
            assert status == 202
            assert headers["Range"] == f"0-{start + len(chunk) - 1}"
            target = peer.url("/").join(URL(headers["Location"]))
        status, _, headers = await peer.call("GET", target)
        assert (status, headers["Range"]) == (204, "0-11")
        found = digest(b"first,second")
        status, _, _ = await peer.call("PUT", target.update_query(digest=found))
        assert status == 201
        status, body, _ = await peer.call("GET", f"/v2/a/blobs/{found}")
        assert (status, body) == (200, b"first,second")

    play(case)


def test_a_chunk_that_does_not_follow_is_refused(play: Play) -> None:
    async def case(peer: Peer) -> None:
        target = await peer.begin("a")
        status, _, headers = await peer.call("PATCH", target, data=b"12345", headers={"Content-Range": "0-4"})
        assert status == 202
        target = peer.url("/").join(URL(headers["Location"]))
        for span in ("3-7", "9-13"):
            status, _, _ = await peer.call("PATCH", target, data=b"12345", headers={"Content-Range": span})
            assert status == 416 or not peer.is_ours  # docker-registry 2.8 takes it, and fails at the end

    play(case)


def test_other_bytes_than_announced_are_no_blob(play: Play) -> None:
    async def case(peer: Peer) -> None:
        target = await peer.begin("a")
        wrong = digest(b"something else")
        status, body, _ = await peer.call("PUT", target.update_query(digest=wrong), data=b"these")
        assert (status, code(body)) == (400, "DIGEST_INVALID")
        for unwanted in (wrong, digest(b"these")):
            status, _, _ = await peer.call("HEAD", f"/v2/a/blobs/{unwanted}")
            assert status == 404

    play(case)


@pytest.mark.parametrize("bad", ["sha256:zz", "sha256:../../x", "md5:d41d8cd98f00b204e9800998ecf8427e", "nonsense"])
def test_a_digest_that_is_none_is_refused(play: Play, bad: str) -> None:
    async def case(peer: Peer) -> None:
        target = await peer.begin("a")
        status, body, _ = await peer.call("PUT", target.update_query(digest=bad), data=b"these")
        assert (status, code(body)) == (400, "DIGEST_INVALID")

    play(case)


def test_an_upload_can_be_given_up(play: Play) -> None:
    async def case(peer: Peer) -> None:
        target = await peer.begin("a")
        status, _, _ = await peer.call("DELETE", target)
        assert status == 204
        status, body, _ = await peer.call("GET", target)
        assert (status, code(body)) == (404, "BLOB_UPLOAD_UNKNOWN")

    play(case)


def test_an_upload_belongs_to_its_repository(play: Play) -> None:
    async def case(peer: Peer) -> None:
        target = await peer.begin("mine")
        elsewhere = URL(str(target).replace("/v2/mine/", "/v2/yours/"))
        status, _, _ = await peer.call("PATCH", elsewhere, data=b"x")
        assert status in (400, 404)
        guessed = peer.url("/v2/mine/blobs/uploads/00000000000000000000000000000000")
        status, _, _ = await peer.call("PATCH", guessed, data=b"x")
        assert status in (400, 404)

    play(case)


def test_a_blob_is_mounted_from_another_repository(play: Play) -> None:
    async def case(peer: Peer) -> None:
        data = b"shared bytes"
        found = await peer.push("one", data)
        status, _, _ = await peer.call("HEAD", f"/v2/two/blobs/{found}")
        assert status == 404
        status, _, headers = await peer.call("POST", f"/v2/two/blobs/uploads/?mount={found}&from=one")
        assert (status, headers["Docker-Content-Digest"]) == (201, found)
        status, body, _ = await peer.call("GET", f"/v2/two/blobs/{found}")
        assert (status, body) == (200, data)
        absent = digest(b"nowhere")
        status, _, _ = await peer.call("POST", f"/v2/two/blobs/uploads/?mount={absent}&from=one")
        assert status == 202

    play(case)


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [("bytes=2-4", 206, (2, 5)), ("bytes=5-", 206, (5, 10)), ("bytes=-3", 206, (7, 10)), ("bytes=10-", 416, (0, 0))],
)
def test_a_part_of_a_blob_can_be_asked_for(play: Play, asked: str, status: int, span: tuple[int, int]) -> None:
    async def case(peer: Peer) -> None:
        found = await peer.push("a", b"0123456789")
        answered, body, headers = await peer.call("GET", f"/v2/a/blobs/{found}", headers={"Range": asked})
        assert answered == status
        if status == 206:
            assert body == b"0123456789"[slice(*span)]
            assert headers["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/10"

    play(case)


def test_a_manifest_comes_back_to_the_byte_by_tag_and_by_digest(play: Play) -> None:
    async def case(peer: Peer) -> None:
        raw = await peer.push_image("a/b", "v1", b"layer")
        for reference in ("v1", digest(raw)):
            path = f"/v2/a/b/manifests/{reference}"
            status, body, headers = await peer.call("GET", path, headers={"Accept": MANIFEST_TYPE})
            assert (status, body) == (200, raw)
            assert headers["Content-Type"] == MANIFEST_TYPE
            assert headers["Docker-Content-Digest"] == digest(raw)
            status, body, headers = await peer.call("HEAD", path, headers={"Accept": MANIFEST_TYPE})
            assert (status, headers["Content-Length"]) == (200, str(len(raw)))

    play(case)


def test_a_manifest_whose_blobs_are_missing_is_refused(play: Play) -> None:
    async def case(peer: Peer) -> None:
        raw = await peer.push_image("one", "v1", b"layer")
        status, body, _ = await peer.put_manifest("two", "v1", raw)
        assert (status, code(body)) in ((400, "MANIFEST_BLOB_UNKNOWN"), (404, "MANIFEST_BLOB_UNKNOWN"))
        status, body, _ = await peer.call("GET", "/v2/two/manifests/v1")
        assert (status, code(body)) in ((404, "MANIFEST_UNKNOWN"), (404, "NAME_UNKNOWN"))

    play(case)


def test_bytes_that_are_no_manifest_are_refused(play: Play) -> None:
    async def case(peer: Peer) -> None:
        status, body, _ = await peer.put_manifest("a", "v1", b"{nonsense")
        assert (status, code(body)) == (400, "MANIFEST_INVALID")

    play(case)


def test_a_manifest_under_another_digest_is_refused(play: Play) -> None:
    async def case(peer: Peer) -> None:
        raw = await peer.push_image("a", "v1", b"layer")
        status, body, _ = await peer.put_manifest("a", digest(b"other"), raw)
        assert (status, code(body)) == (400, "DIGEST_INVALID")

    play(case)


def test_tags_are_listed(play: Play) -> None:
    async def case(peer: Peer) -> None:
        for tag in ("v3", "v1", "latest"):
            await peer.push_image("a/b", tag, b"layer")
        _, body, _ = await peer.call("GET", "/v2/a/b/tags/list")
        found = json.loads(body)
        assert (found["name"], sorted(found["tags"])) == ("a/b", ["latest", "v1", "v3"])
        status, body, _ = await peer.call("GET", "/v2/nobody/tags/list")
        assert (status, code(body)) == (404, "NAME_UNKNOWN")

    play(case)


def test_the_catalog_comes_in_pages(play: Play) -> None:
    async def case(peer: Peer) -> None:
        for name in ("c", "a/b", "b"):
            await peer.push_image(name, "v1")
        found: list[str] = []
        path: URL | None = peer.url("/v2/_catalog?n=2")
        while path is not None:
            _, body, headers = await peer.call("GET", path)
            found += json.loads(body)["repositories"]
            link = headers.get("Link")
            path = peer.url("/").join(URL(link[1 : link.index(">")])) if link else None
        assert found == ["a/b", "b", "c"]

    play(case)


def test_a_tag_moves(play: Play) -> None:
    async def case(peer: Peer) -> None:
        first = await peer.push_image("a", "v1", b"one")
        second = await peer.push_image("a", "v1", b"two")
        assert first != second
        headers = {"Accept": MANIFEST_TYPE}
        _, body, _ = await peer.call("GET", "/v2/a/manifests/v1", headers=headers)
        assert body == second
        _, body, _ = await peer.call("GET", f"/v2/a/manifests/{digest(first)}", headers=headers)
        assert body == first

    play(case)


def test_a_manifest_is_deleted_by_digest(play: Play) -> None:
    async def case(peer: Peer) -> None:
        raw = await peer.push_image("a", "v1", b"one")
        status, _, _ = await peer.call("DELETE", f"/v2/a/manifests/{digest(raw)}")
        assert status == 202
        for reference in (digest(raw), "v1"):
            status, body, _ = await peer.call("GET", f"/v2/a/manifests/{reference}")
            assert (status, code(body)) == (404, "MANIFEST_UNKNOWN")

    play(case)


def test_a_blob_is_deleted_from_one_repository_only(play: Play) -> None:
    async def case(peer: Peer) -> None:
        found = await peer.push("one", b"bytes")
        await peer.push("two", b"bytes")
        status, _, _ = await peer.call("DELETE", f"/v2/one/blobs/{found}")
        assert status == 202
        status, body, _ = await peer.call("GET", f"/v2/one/blobs/{found}")
        assert (status, code(body)) == (404, "BLOB_UNKNOWN")
        status, body, _ = await peer.call("GET", f"/v2/two/blobs/{found}")
        assert (status, body) == (200, b"bytes")

    play(case)


@pytest.mark.parametrize("name", ["UPPER", "a//b", "a%2f..%2fb"])
def test_a_name_outside_the_grammar_is_refused(play: Play, name: str) -> None:
    async def case(peer: Peer) -> None:
        status, _, _ = await peer.call("GET", URL(f"{peer.base}/v2/{name}/tags/list", encoded=True))
        assert status in (301, 400, 404)

    play(case)
