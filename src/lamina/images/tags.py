"""Which reference means which image: Docker's `repositories.json` (blocking).

One JSON object, keys sorted, familiar names, written whole and durably at each change. Source: moby reference/store.go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lamina.errors import Conflict, InvalidDigest, InvalidReference, NoSuchImage
from lamina.jsonvalue import JsonObject, go_json, mapping, parse_object, string_map
from lamina.kernel import durable
from lamina.oci.digest import ImageId, parse_digest
from lamina.oci.reference import Reference, parse_reference

_MAX_BYTES = 256 << 20


class TagStore:
    """Tags and digests of images; safe to use from several threads.

    A reference with both tag and digest counts by its digest alone; one with neither means `latest`. Who only looks
    never waits for the disk: the event loop does look.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._references: dict[Reference, ImageId] = {}
        self._by_image: dict[ImageId, set[Reference]] = {}
        self._lock = threading.RLock()
        self._writing = threading.RLock()

    def load(self) -> list[str]:
        """Read the file; call once, before anything else. A file that is not there means no tags.

        Returns:
            A warning per entry that is no reference (it goes at the next change).
        """
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return []
        document = parse_object(raw, what=self._path.name, max_bytes=_MAX_BYTES)
        warnings: list[str] = []
        repositories = mapping(document, "Repositories")
        for name in repositories:
            for text, target in string_map(repositories, name).items():
                try:
                    self._enter(_key(parse_reference(text)), ImageId(parse_digest(target)))
                except (InvalidReference, InvalidDigest) as error:
                    warnings.append(f"repositories.json: {text!r} is left out: {error}")
        return warnings

    def resolve(self, reference: Reference) -> ImageId:
        """The image a reference means. Raises NoSuchImage."""
        with self._lock:
            found = self._references.get(_key(reference))
        if found is None:
            raise NoSuchImage(f"No such image: {reference.with_default_tag().familiar()}")
        return found

    def set_tag(self, reference: Reference, image: ImageId) -> None:
        """Let a tag mean this image from now on, whatever it meant before.

        Raises:
            InvalidReference: it carries a digest, or its name would be read as one.
        """
        if reference.digest is not None:
            raise InvalidReference("refusing to create a tag with a digest reference")
        self._set(_key(reference), image)

    def set_digest(self, reference: Reference, image: ImageId) -> None:
        """Let a name with a digest mean this image, for ever.

        Raises:
            InvalidReference: it carries no digest.
            Conflict: the digest means another image.
        """
        if reference.digest is None:
            raise InvalidReference(f"{reference.familiar()} has no digest")
        with self._writing:
            before = self._references.get(_key(reference), image)
            if before != image:
                raise Conflict(f"Cannot overwrite digest {reference.digest}")
            self._set(_key(reference), image)

    def remove(self, reference: Reference) -> ImageId:
        """Forget a reference; the image it meant comes back. Raises NoSuchImage."""
        with self._writing:
            key = _key(reference)
            image = self.resolve(key)
            self._change(lambda: self._leave(key), lambda: self._enter(key, image))
            return image

    def references(self, image: ImageId) -> list[Reference]:
        """Every reference that means the image, in the order of their text."""
        with self._lock:
            return sorted(self._by_image.get(image, ()), key=str)

    def all(self) -> dict[Reference, ImageId]:
        """Everything, as it is now."""
        with self._lock:
            return dict(self._references)

    def _set(self, key: Reference, image: ImageId) -> None:
        if key.familiar_name == "sha256":
            raise InvalidReference("refusing to create an ambiguous tag using digest algorithm as name")
        with self._writing:
            before = self._references.get(key)
            if before == image:
                return

            def back() -> None:
                self._leave(key)
                if before is not None:
                    self._enter(key, before)

            self._change(lambda: self._enter(key, image), back)

    def _change(self, forth: Callable[[], None], back: Callable[[], None]) -> None:
        with self._lock:
            forth()
            encoded = self._encode()
        try:
            durable.write_file(self._path, encoded, 0o600)
        except OSError:
            with self._lock:
                back()
            raise

    def _enter(self, key: Reference, image: ImageId) -> None:
        self._leave(key)
        self._references[key] = image
        self._by_image.setdefault(image, set()).add(key)

    def _leave(self, key: Reference) -> None:
        image = self._references.pop(key, None)
        if image is None:
            return
        names = self._by_image[image]
        names.discard(key)
        if not names:
            del self._by_image[image]

    def _encode(self) -> bytes:
        repositories: dict[str, dict[str, str]] = {}
        for reference, image in self._references.items():
            repositories.setdefault(reference.familiar_name, {})[reference.familiar()] = image
        ordered: JsonObject = {name: dict(sorted(repositories[name].items())) for name in sorted(repositories)}
        return go_json({"Repositories": ordered})


def _key(reference: Reference) -> Reference:
    if reference.digest is not None:
        return replace(reference, tag=None)
    return reference.with_default_tag()
