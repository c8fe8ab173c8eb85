"""Which layer digests belong to which diff ids, and where they were seen: Docker's `distribution` directory (blocking).

A cache: it may be deleted at any time, and what cannot be read counts as not there.
Source: moby distribution/metadata/v2_metadata_service.go; ../docs/on-disk.md.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import InvalidArgument
from lamina.jsonvalue import JsonObject, JsonValue, go_json, objects, parse_object, text
from lamina.kernel import durable
from lamina.oci.digest import DiffId, Digest, algorithm_of, hex_of, parse_digest
from lamina.wire.engine.auth import RegistryAuth

MAX_SOURCES = 50
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A compressed blob of a layer, and a repository (`docker.io/library/redis`) that has it.

    `hmac` is empty when the layer was pulled, or pushed without credentials: then its being there is no secret.
    """

    digest: Digest
    repository: str
    hmac: str = ""


class LayerMetadata:
    """The two tables. Threads may call."""

    def __init__(self, directory: Path) -> None:
        self._by_digest = directory / "diffid-by-digest"
        self._by_diff_id = directory / "v2metadata-by-diffid"
        self._lock = threading.Lock()

    def diff_id(self, digest: Digest) -> DiffId | None:
        """The diff id of a compressed blob, if it was ever here."""
        try:
            return DiffId(parse_digest(self._place(self._by_digest, digest).read_text("ascii").strip()))
        except (OSError, ValueError, InvalidArgument):
            return None

    def sources(self, diff_id: DiffId) -> list[Source]:
        """Where the layer was seen, latest last."""
        try:
            raw = self._place(self._by_diff_id, diff_id).read_bytes()
            listed = parse_object(b'{"sources":' + raw + b"}", what="v2metadata", max_bytes=_MAX_FILE_BYTES)
            return [
                Source(parse_digest(text(entry, "Digest")), text(entry, "SourceRepository"), text(entry, "HMAC"))
                for entry in objects(listed, "sources")
            ]
        except (OSError, InvalidArgument):
            return []

    def remember(self, diff_id: DiffId, source: Source) -> None:
        """The blob is this layer, and is in this repository."""
        with self._lock:
            others = [known for known in self.sources(diff_id) if known != source]
            kept = [*others, source][-MAX_SOURCES:]
            self._write(self._place(self._by_diff_id, diff_id), go_json([_as_json(known) for known in kept]))
            self._write(self._place(self._by_digest, source.digest), diff_id.encode())

    def forget(self, diff_id: DiffId, source: Source) -> None:
        """The repository turned out not to have the blob."""
        with self._lock:
            kept = [known for known in self.sources(diff_id) if known != source]
            self._write(self._place(self._by_diff_id, diff_id), go_json([_as_json(known) for known in kept]))

    @staticmethod
    def _place(table: Path, digest: Digest) -> Path:
        return table / algorithm_of(digest) / hex_of(digest)

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        durable.make_dirs(path.parent, 0o755)
        durable.write_file_lazy(path, data, 0o644)


def proof(auth: RegistryAuth | None, digest: Digest, repository: str) -> str:
    """The HMAC by which whoever has the same credentials knows a source as its own; "" without credentials.

    Source: moby distribution/metadata, ComputeV2MetadataHMAC and ComputeV2MetadataHMACKey.
    """
    if auth is None or auth.is_empty:
        return ""
    fields: JsonObject = {
        "username": auth.username,
        "password": auth.password,
        "identitytoken": auth.identity_token,
        "registrytoken": auth.registry_token,
    }
    named = go_json({name: value for name, value in fields.items() if value})
    key = f"sha256:{hashlib.sha256(named).hexdigest()}".encode()
    return hmac.new(key, f"{digest}{repository}".encode(), hashlib.sha256).hexdigest()


def _as_json(source: Source) -> JsonValue:
    return {"Digest": str(source.digest), "SourceRepository": source.repository, "HMAC": source.hmac}
