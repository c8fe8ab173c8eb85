"""What verbs tell the world about images (pure: they are given whom to tell)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from lamina.errors import NoSuchImage
from lamina.images.describe import labels
from lamina.images.store import ImageStore
from lamina.oci.digest import ImageId

Publish: TypeAlias = Callable[[str, str, str, Mapping[str, str]], None]
"""`events.publish`: kind, action, actor id, attributes."""


def publish_image(publish: Publish, action: str, image: ImageId, images: ImageStore, *, name: str = "") -> None:
    """Tell that something happened to an image: its labels and its name go with it."""
    try:
        attributes = dict(labels(images.get(image)))
    except NoSuchImage:
        attributes = {}  # gone by now, as after a delete
    attributes["name"] = name or str(image)
    publish("image", action, str(image), attributes)
