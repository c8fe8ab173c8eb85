"""Untag and delete images by Docker's rules (async).

Source: moby daemon/images/image_delete.go: a name is taken away first; the image goes with its last name, unless
somebody needs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from lamina.engine.image_events import Publish, publish_image
from lamina.errors import Conflict
from lamina.ids import SHORT
from lamina.images.lookup import ImageLookup
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.jsonvalue import JsonObject
from lamina.oci.digest import ImageId, hex_of
from lamina.oci.reference import Reference
from lamina.workers import Workers


@dataclass(frozen=True, slots=True)
class ImageUse:
    """A container that was made from an image."""

    container_id: str
    is_running: bool


class ImageUses(Protocol):
    """Tells which containers use an image."""

    def __call__(self, image: ImageId, /) -> Iterable[ImageUse]: ...


@dataclass(frozen=True, slots=True)
class RemoveImage:
    """Take a name away from an image, and the image away with its last name."""

    images: ImageStore
    tags: TagStore
    lookup: ImageLookup
    uses: ImageUses
    workers: Workers
    publish: Publish

    async def __call__(self, name: str, *, force: bool = False, prune: bool = True) -> list[JsonObject]:
        """`prune` takes unnamed, unused parents too.

        Returns:
            `{"Untagged": reference}` and `{"Deleted": digest}` in the order in which it happened.

        Raises:
            NoSuchImage: no such name or id.
            Conflict: containers, other names or children need it (`force` helps against stopped containers and names).
        """
        found = self.lookup.find(name)
        removal = _Removal(self.images, self.tags, self.lookup, self.uses)
        async with self.workers.holding(("image", found)):
            try:
                await self.workers.call(removal.run, name, found, force=force, prune=prune)
            finally:
                for action, image in removal.happened:
                    publish_image(self.publish, action, image, self.images)
        return removal.records


class _Removal:
    """One removal (blocking): what it did is in `records`, what the world is to be told in `happened`."""

    def __init__(self, images: ImageStore, tags: TagStore, lookup: ImageLookup, uses: ImageUses) -> None:
        self.images = images
        self.tags = tags
        self.lookup = lookup
        self.uses = uses
        self.records: list[JsonObject] = []
        self.happened: list[tuple[str, ImageId]] = []

    def run(self, text: str, image: ImageId, *, force: bool, prune: bool) -> None:
        references = self.tags.references(image)
        named = None if is_id_prefix(image, text) else self.lookup.reference_of(text)
        if named is not None:
            if not force and is_single(references):
                self._refuse_dangling(text, image)
            if self._untag(named, image):
                return
        elif is_single(references):
            self._check(image, force=force, ignore_names=True)
            for reference in references:
                self._untag_one(reference, image)
        self._delete(image, force=force, prune=prune, quiet=named is not None)

    def _refuse_dangling(self, text: str, image: ImageId) -> None:
        for use in self.uses(image):
            raise Conflict(
                f"conflict: unable to remove repository reference {_quoted(text)} (must force) - "
                f"container {use.container_id[:SHORT]} is using its referenced image {_short(image)}",
                hint=f"docker rm {use.container_id[:SHORT]}",
            )

    def _untag(self, named: Reference, image: ImageId) -> list[Reference]:
        self._untag_one(named, image)
        remaining = self.tags.references(image)
        if named.digest is not None:
            return remaining
        same_name = [reference for reference in remaining if reference.name == named.name]
        if any(reference.digest is None for reference in same_name):
            return remaining
        # Digests of a repository without tags say nothing to people any more.
        for reference in same_name:
            self.tags.remove(reference)
            self.records.append({"Untagged": reference.familiar()})
        return [reference for reference in remaining if reference not in same_name]

    def _untag_one(self, reference: Reference, image: ImageId) -> None:
        self.tags.remove(reference)
        key = reference.with_digest(reference.digest) if reference.digest is not None else reference
        self.happened.append(("untag", image))
        self.records.append({"Untagged": key.familiar()})

    def _delete(self, image: ImageId, *, force: bool, prune: bool, quiet: bool) -> None:
        try:
            self._check(image, force=force)
        except _InTheWay as conflict:
            is_dangling = not self.tags.references(image) and not self.images.children(image)
            if quiet and (conflict.is_used or not is_dangling):
                return
            raise
        parent = self.images.parent(image)
        for reference in self.tags.references(image):
            self._untag_one(reference, image)
        gone = self.images.delete(image)
        for reference in self.tags.references(image):  # a load named it while it went
            self._untag_one(reference, image)
        self.happened.append(("delete", image))
        self.records.append({"Deleted": str(image)})
        self.records += [{"Deleted": str(chain_id)} for chain_id in gone]
        if prune and parent is not None:
            self._delete(parent, force=False, prune=True, quiet=True)

    def _check(self, image: ImageId, *, force: bool, ignore_names: bool = False) -> None:
        if self.images.children(image):
            raise _InTheWay(image, "image has dependent child images", is_hard=True)
        uses = list(self.uses(image))
        for use in uses:
            if use.is_running:
                reason = f"image is being used by running container {use.container_id[:SHORT]}"
                raise _InTheWay(image, reason, is_hard=True, is_used=True)
        if force:
            return
        if self.tags.references(image) and not ignore_names:
            raise _InTheWay(image, "image is referenced in multiple repositories")
        for use in uses:
            reason = f"image is being used by stopped container {use.container_id[:SHORT]}"
            raise _InTheWay(image, reason, is_used=True)


class _InTheWay(Conflict):
    """Why an image cannot be deleted."""

    def __init__(self, image: ImageId, reason: str, *, is_hard: bool = False, is_used: bool = False) -> None:
        remedy = "cannot be forced" if is_hard else "must be forced"
        super().__init__(f"conflict: unable to delete {_short(image)} ({remedy}) - {reason}")
        self.is_used = is_used


def is_id_prefix(image: ImageId, text: str) -> bool:
    """Whether the image was asked for by its id or the beginning of it."""
    return image.startswith(text) or hex_of(image).startswith(text)


def is_single(references: list[Reference]) -> bool:
    """Whether an image has one name at most: one tag, with digests of the same repository at most."""
    if len(references) <= 1:
        return True
    tagged = [reference for reference in references if reference.digest is None]
    digest_names = {reference.name for reference in references if reference.digest is not None}
    if len(tagged) > 1:
        return False
    first = tagged[0] if tagged else references[0]
    return digest_names == {first.name}


def _short(image: ImageId) -> str:
    return hex_of(image)[:SHORT]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
