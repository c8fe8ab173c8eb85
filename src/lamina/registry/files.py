"""What the registry keeps on disk (blocking).

    <root>/
      blobs/<algorithm>/<hex>                              every blob once
      repositories/<name>/_blobs/<algorithm>/<hex>         hard link: this repository has the blob
      repositories/<name>/_manifests/<algorithm>/<hex>     the manifest's bytes
      repositories/<name>/_types/<algorithm>/<hex>         its media type, written first
      repositories/<name>/_tags/<tag>                      the digest it names
      uploads/<id>/{data,repository}                       uploads under way

No part of a repository name begins with `_`, so nothing here can be mistaken for a name. Whatever has a final name is
complete and on disk: it was written elsewhere, synced and renamed. A blob's last link goes with the last repository
that had it, then the blob goes. A crash can leave an upload, which can be resumed, and a blob without a repository,
which is used when it is pushed again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from lamina.errors import BlobUnknown, NotFound, StorageFull
from lamina.kernel import durable
from lamina.oci.digest import Digest, algorithm_of, hex_of, parse_digest
from lamina.wire.registry.paths import check_name, is_tag

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def told_when_full(root: Path) -> Iterator[None]:
    """A full disk is an answer of its own, not an accident."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"the registry's disk at {root} is full") from error
        raise


def make_dirs_durably(path: Path) -> None:
    """Make a directory and its missing parents, and put their names on disk. Again is fine."""
    if path.is_dir():
        return
    make_dirs_durably(path.parent)
    durable.make_dirs(path)
    durable.fsync_dir(path.parent)


class RegistryFiles:
    """Blobs, manifests and tags of every repository. Threads may call; one lock orders what links and unlinks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        for name in ("blobs", "repositories", "uploads"):
            make_dirs_durably(root / name)

    # blobs

    def blob_path(self, repository: str, digest: Digest) -> Path:
        """The file of a blob of this repository.

        Raises:
            BlobUnknown: the repository does not have it.
        """
        path = self._linked(repository, digest)
        if not path.is_file():
            raise BlobUnknown(f"blob {digest} unknown to repository {repository}")
        return path

    def has_blob(self, repository: str, digest: Digest) -> bool:
        return self._linked(repository, digest).is_file()

    def adopt_blob(self, repository: str, digest: Digest, staged: Path) -> None:
        """Make the verified and synced file `staged` a blob of `repository`; the file is gone afterwards."""
        pooled = self._pooled(digest)
        with self._lock, told_when_full(self.root):
            make_dirs_durably(pooled.parent)
            if pooled.exists():
                os.unlink(staged)
            else:
                os.rename(staged, pooled)
                durable.fsync_dir(pooled.parent)
            self._link(repository, digest)

    def mount_blob(self, repository: str, digest: Digest, source: str) -> bool:
        """Give `repository` the blob that `source` has; False when `source` has it not."""
        with self._lock, told_when_full(self.root):
            if not self._linked(source, digest).is_file():
                return False
            self._link(repository, digest)
            return True

    def delete_blob(self, repository: str, digest: Digest) -> None:
        """Take the blob out of the repository, and off the disk with its last repository.

        Raises:
            BlobUnknown: the repository does not have it.
        """
        with self._lock:
            linked = self._linked(repository, digest)
            try:
                os.unlink(linked)
            except FileNotFoundError as error:
                raise BlobUnknown(f"blob {digest} unknown to repository {repository}") from error
            durable.fsync_dir(linked.parent)
            pooled = self._pooled(digest)
            if pooled.stat().st_nlink == 1:
                os.unlink(pooled)

    def _link(self, repository: str, digest: Digest) -> None:
        linked = self._linked(repository, digest)
        if linked.exists():
            return
        make_dirs_durably(linked.parent)
        os.link(self._pooled(digest), linked)
        durable.fsync_dir(linked.parent)

    # manifests and tags

    def put_manifest(self, repository: str, digest: Digest, raw: bytes, *, media_type: str, tag: str | None) -> None:
        """Keep a checked manifest, and let `tag` name it: last, so that a tag never names what is not there."""
        with self._lock, told_when_full(self.root):
            types = self._of(repository, "_types", digest)
            manifest = self._of(repository, "_manifests", digest)
            make_dirs_durably(types.parent)
            make_dirs_durably(manifest.parent)
            durable.write_file(types, media_type.encode())
            durable.write_file(manifest, raw)
            if tag is not None:
                tags = self._repository(repository) / "_tags"
                make_dirs_durably(tags)
                durable.write_file(tags / tag, digest.encode())

    def manifest(self, repository: str, digest: Digest) -> tuple[str, bytes]:
        """Media type and bytes of a manifest.

        Raises:
            NotFound: the repository does not have it.
        """
        try:
            media_type = self._of(repository, "_types", digest).read_text()
            return media_type, self._of(repository, "_manifests", digest).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"manifest {digest} unknown to repository {repository}") from error

    def has_manifest(self, repository: str, digest: Digest) -> bool:
        return self._of(repository, "_manifests", digest).is_file()

    def delete_manifest(self, repository: str, digest: Digest) -> None:
        """Remove a manifest and every tag that names it.

        Raises:
            NotFound: the repository does not have it.
        """
        with self._lock:
            if not self.has_manifest(repository, digest):
                raise NotFound(f"manifest {digest} unknown to repository {repository}")
            for tag in self._tag_names(repository):
                path = self._repository(repository) / "_tags" / tag
                if path.read_text() == digest:
                    self._unlink(path)
            self._unlink(self._of(repository, "_manifests", digest))
            self._unlink(self._of(repository, "_types", digest))

    def tagged(self, repository: str, tag: str) -> Digest:
        """The digest that a tag names.

        Raises:
            NotFound: no such tag.
        """
        try:
            return parse_digest((self._repository(repository) / "_tags" / tag).read_text())
        except FileNotFoundError as error:
            raise NotFound(f"tag {tag} unknown to repository {repository}") from error

    def delete_tag(self, repository: str, tag: str) -> None:
        with self._lock:
            path = self._repository(repository) / "_tags" / tag
            if not path.is_file():
                raise NotFound(f"tag {tag} unknown to repository {repository}")
            self._unlink(path)

    def tags(self, repository: str) -> list[str]:
        """Every tag, sorted.

        Raises:
            NotFound: nothing was ever pushed under this name.
        """
        if not any((self._repository(repository) / part).is_dir() for part in ("_manifests", "_blobs")):
            raise NotFound(f"repository {repository} not known to registry")
        return self._tag_names(repository)

    def repositories(self) -> list[str]:
        """Every repository that has had a manifest, sorted."""
        top = self.root / "repositories"
        found = []
        for directory, names, _ in os.walk(top):
            if "_manifests" in names:
                found.append(os.path.relpath(directory, top))
            names[:] = [name for name in names if not name.startswith("_")]
        return sorted(found)

    def _tag_names(self, repository: str) -> list[str]:
        try:
            names = os.listdir(self._repository(repository) / "_tags")
        except FileNotFoundError:
            return []
        return sorted(name for name in names if is_tag(name))

    @staticmethod
    def _unlink(path: Path) -> None:
        path.unlink(missing_ok=True)
        durable.fsync_dir(path.parent)

    # places: names and digests are validated before they become part of a path

    def _repository(self, name: str) -> Path:
        return self.root / "repositories" / check_name(name)

    def _of(self, repository: str, part: str, digest: Digest) -> Path:
        return self._repository(repository) / part / algorithm_of(digest) / hex_of(digest)

    def _linked(self, repository: str, digest: Digest) -> Path:
        return self._of(repository, "_blobs", digest)

    def _pooled(self, digest: Digest) -> Path:
        return self.root / "blobs" / algorithm_of(digest) / hex_of(digest)
