from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from lamina.errors import BlobUnknown, DigestMismatch, NotFound
from lamina.oci.digest import Digest, digest_of
from lamina.registry.files import RegistryFiles
from lamina.registry.uploads import FORGOTTEN_AFTER_S, Uploads


class StoppedClock:
    def __init__(self, now_ns: int) -> None:
        self.now = now_ns

    def now_ns(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1e9


@pytest.fixture
def files(tmp_path: Path) -> RegistryFiles:
    return RegistryFiles(tmp_path)


@pytest.fixture
def uploads(files: RegistryFiles) -> Uploads:
    return Uploads(files, StoppedClock(os.stat(files.root).st_mtime_ns))


def test_an_upload_becomes_a_blob_and_leaves_nothing_else(files: RegistryFiles, uploads: Uploads) -> None:
    upload = uploads.begin("a/b")
    assert uploads.append(upload, b"one ") == 4
    assert uploads.append(upload, b"two") == 7
    uploads.finish("a/b", upload, digest_of(b"one two"))
    assert files.blob_path("a/b", digest_of(b"one two")).read_bytes() == b"one two"
    assert os.listdir(files.root / "uploads") == []
    with pytest.raises(NotFound):
        uploads.offset("a/b", upload)


def test_an_upload_goes_on_after_a_restart(files: RegistryFiles, uploads: Uploads) -> None:
    upload = uploads.begin("a")
    uploads.append(upload, b"before ")
    again = Uploads(RegistryFiles(files.root), StoppedClock(0))
    assert again.offset("a", upload) == 7
    again.append(upload, b"after")
    again.finish("a", upload, digest_of(b"before after"))
    assert files.has_blob("a", digest_of(b"before after"))


def test_a_sha512_digest_is_checked_too(files: RegistryFiles, uploads: Uploads) -> None:
    wanted = Digest(f"sha512:{hashlib.sha512(b'bytes').hexdigest()}")
    upload = uploads.begin("a")
    uploads.append(upload, b"bytes")
    uploads.finish("a", upload, wanted)
    assert files.has_blob("a", wanted)


def test_other_bytes_than_announced_are_thrown_away(files: RegistryFiles, uploads: Uploads) -> None:
    upload = uploads.begin("a")
    uploads.append(upload, b"these")
    with pytest.raises(DigestMismatch):
        uploads.finish("a", upload, digest_of(b"those"))
    assert not files.has_blob("a", digest_of(b"those"))
    assert os.listdir(files.root / "uploads") == []


@pytest.mark.parametrize("upload_id", ["", "..", "../../etc", "0" * 32, "g" * 32])
def test_an_unknown_upload_is_not_found(uploads: Uploads, upload_id: str) -> None:
    with pytest.raises(NotFound):
        uploads.offset("a", upload_id)


def test_an_upload_of_another_repository_is_not_found(uploads: Uploads) -> None:
    upload = uploads.begin("a")
    with pytest.raises(NotFound):
        uploads.offset("b", upload)


def test_uploads_that_nobody_goes_on_with_are_swept(files: RegistryFiles) -> None:
    clock = StoppedClock(os.stat(files.root).st_mtime_ns)
    uploads = Uploads(files, clock)
    upload = uploads.begin("a")
    assert uploads.sweep() == 0
    clock.now += (FORGOTTEN_AFTER_S + 60) * 1_000_000_000
    assert uploads.sweep() == 1
    with pytest.raises(NotFound):
        uploads.offset("a", upload)


def test_a_blob_is_kept_once_and_goes_with_its_last_repository(files: RegistryFiles, uploads: Uploads) -> None:
    digest = digest_of(b"bytes")
    for repository in ("a", "b"):
        upload = uploads.begin(repository)
        uploads.append(upload, b"bytes")
        uploads.finish(repository, upload, digest)
    assert files.blob_path("a", digest).stat().st_ino == files.blob_path("b", digest).stat().st_ino
    files.delete_blob("a", digest)
    with pytest.raises(BlobUnknown):
        files.blob_path("a", digest)
    assert files.blob_path("b", digest).read_bytes() == b"bytes"
    files.delete_blob("b", digest)
    assert [path for path in (files.root / "blobs").rglob("*") if path.is_file()] == []
