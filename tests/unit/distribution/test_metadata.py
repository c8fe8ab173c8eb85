from __future__ import annotations

import json
import os
from pathlib import Path

from lamina.distribution.metadata import MAX_SOURCES, LayerMetadata, Source, proof
from lamina.oci.digest import DiffId, digest_of, hex_of
from lamina.wire.engine.auth import RegistryAuth

DIFF = DiffId(digest_of(b"tar"))
BLOB = digest_of(b"gzip")


def test_the_files_are_docker_s(tmp_path: Path) -> None:
    LayerMetadata(tmp_path).remember(DIFF, Source(BLOB, "docker.io/library/redis"))
    by_digest = tmp_path / "diffid-by-digest" / "sha256" / hex_of(BLOB)
    by_diff_id = tmp_path / "v2metadata-by-diffid" / "sha256" / hex_of(DIFF)
    assert by_digest.read_text() == DIFF
    assert json.loads(by_diff_id.read_text()) == [
        {"Digest": BLOB, "SourceRepository": "docker.io/library/redis", "HMAC": ""}
    ]
    assert [oct(os.stat(path).st_mode & 0o777) for path in (by_digest, by_diff_id, by_digest.parent)] == [
        "0o644",
        "0o644",
        "0o755",
    ]


def test_what_is_remembered_is_found_latest_last(tmp_path: Path) -> None:
    metadata = LayerMetadata(tmp_path)
    assert metadata.diff_id(BLOB) is None
    assert metadata.sources(DIFF) == []
    sources = [Source(BLOB, f"r.example/{number}") for number in range(3)]
    for source in (*sources, sources[0]):
        metadata.remember(DIFF, source)
    assert metadata.diff_id(BLOB) == DIFF
    assert metadata.sources(DIFF) == [sources[1], sources[2], sources[0]]
    metadata.forget(DIFF, sources[2])
    assert metadata.sources(DIFF) == [sources[1], sources[0]]


def test_only_the_latest_are_kept(tmp_path: Path) -> None:
    metadata = LayerMetadata(tmp_path)
    for number in range(MAX_SOURCES + 5):
        metadata.remember(DIFF, Source(BLOB, f"r.example/{number}"))
    kept = metadata.sources(DIFF)
    assert (len(kept), kept[0].repository) == (MAX_SOURCES, "r.example/5")


def test_damaged_files_count_as_absent(tmp_path: Path) -> None:
    metadata = LayerMetadata(tmp_path)
    metadata.remember(DIFF, Source(BLOB, "r.example/a"))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(b"\xff\x00rubbish")
    assert metadata.diff_id(BLOB) is None
    assert metadata.sources(DIFF) == []
    metadata.remember(DIFF, Source(BLOB, "r.example/a"))
    assert metadata.diff_id(BLOB) == DIFF


def test_the_proof_is_there_with_credentials_only_and_tells_them_apart() -> None:
    assert proof(None, BLOB, "r.example/a") == ""
    assert proof(RegistryAuth(), BLOB, "r.example/a") == ""
    one = proof(RegistryAuth("me", "secret"), BLOB, "r.example/a")
    assert len(one) == 64
    assert one == proof(RegistryAuth("me", "secret", server_address="x"), BLOB, "r.example/a")
    assert one != proof(RegistryAuth("me", "other"), BLOB, "r.example/a")
    assert one != proof(RegistryAuth("me", "secret"), BLOB, "r.example/b")
