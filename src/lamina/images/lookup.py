"""From what a user typed to an image id: a reference, a digest, an id or the beginning of one (blocking).

Source: moby daemon/images/image.go, GetImage: names win over ids.
"""

from __future__ import annotations

import re

from lamina.errors import InvalidReference, NoSuchImage
from lamina.images.store import ImageStore
from lamina.images.tags import TagStore
from lamina.oci.digest import Digest, ImageId
from lamina.oci.reference import Reference, parse_reference

_WHOLE_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class ImageLookup:
    """Finds images by what people and programs call them."""

    def __init__(self, images: ImageStore, tags: TagStore) -> None:
        self._images = images
        self._tags = tags

    def find(self, text: str) -> ImageId:
        """The image that `text` means.

        Raises:
            NoSuchImage: there is none, or the id is not clear.
            InvalidReference: the text can be neither a reference nor an id.
        """
        whole = _WHOLE_ID.fullmatch(text)
        if whole is not None:
            image = ImageId(Digest(f"sha256:{whole[1]}"))
            if self._images.exists(image):
                return image
            raise _no_such(text)
        reference = parse_reference(text)
        image_or_none = self._by_reference(reference)
        if image_or_none is not None:
            return image_or_none
        try:
            return self._images.resolve_prefix(text)
        except NoSuchImage as error:
            raise _no_such(reference.with_default_tag().familiar(), hint=error.hint) from error

    def reference_of(self, text: str) -> Reference | None:
        """The reference that `text` is when it names an image by one; None when by its id."""
        reference = self.name_of(text)
        if reference is None:
            return None
        reference = reference.with_default_tag()
        return reference if self._by_reference(reference) is not None else None

    def name_of(self, text: str) -> Reference | None:
        """The text as a reference, as it was written; None when it is a whole id or no reference."""
        if _WHOLE_ID.fullmatch(text):
            return None
        try:
            return parse_reference(text)
        except InvalidReference:
            return None

    def _by_reference(self, reference: Reference) -> ImageId | None:
        try:
            image = self._tags.resolve(reference)
        except NoSuchImage:
            return None
        # The file may name images whose layers or config were lost.
        return image if self._images.exists(image) else None


def _no_such(text: str, *, hint: str = "") -> NoSuchImage:
    return NoSuchImage(f"No such image: {text}", hint=hint)
