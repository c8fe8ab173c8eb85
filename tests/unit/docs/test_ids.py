"""docs/ids.md: every digest on the page is computed here from the image that the page is about."""

from __future__ import annotations

import re
import zlib
from hashlib import sha256
from pathlib import Path

from lamina.oci.digest import ChainId, chain_id, digest_of, hex_of
from lamina.registry.hello_world import HelloWorld, PlatformImage, make

PAGE = (Path(__file__).parents[3] / "docs" / "ids.md").read_text()


def ids_of(image: PlatformImage) -> dict[str, str]:
    """What each id is called, and its hex digits."""
    found = {"image id": hex_of(image.image_id), "manifest": hex_of(image.manifest_digest)}
    below: ChainId | None = None
    for number, (diff_id, blob) in enumerate(image.layers, start=1):
        below = chain_id(below, diff_id)
        found[f"diff id {number}"] = sha256(zlib.decompress(blob, wbits=31)).hexdigest()
        found[f"layer digest {number}"] = hex_of(digest_of(blob))
        found[f"chain id {number}"] = hex_of(below)
    return found


def known(hello: HelloWorld) -> set[str]:
    return {hex_of(hello.digest)} | {value for image in hello.images for value in ids_of(image).values()}


def test_the_page_shows_every_id_of_the_amd64_image() -> None:
    [amd64] = [image for image in make().images if image.platform.architecture == "amd64"]
    missing = {name for name, value in ids_of(amd64).items() if value not in PAGE}
    assert missing == set()
    assert hex_of(make().digest) in PAGE


def test_every_whole_digest_on_the_page_is_one_of_the_image() -> None:
    assert set(re.findall(r"[0-9a-f]{64}", PAGE)) - known(make()) == set()


def test_every_shortened_id_is_the_image_s_or_marked_as_random() -> None:
    for start, star in re.findall(r"([0-9a-f]{8,})…(\*?)", PAGE):
        is_known = any(value.startswith(start) for value in known(make()))
        assert is_known != bool(star), start


def test_the_sizes_on_the_page_are_those_of_the_blobs() -> None:
    [amd64] = [image for image in make().images if image.platform.architecture == "amd64"]
    for blob in (amd64.config, *(blob for _, blob in amd64.layers)):
        assert re.search(rf"{digest_of(blob)} +{len(blob)} bytes", PAGE)


def test_the_chain_id_comes_out_of_the_printed_command() -> None:
    command = re.search(r"\$ printf '%s %s' (\S+) (\S+) \| sha256sum\n([0-9a-f]{64})  -\n", PAGE)
    assert command is not None
    below, diff_id, printed = command.groups()
    assert sha256(f"{below} {diff_id}".encode()).hexdigest() == printed


def test_the_record_table_is_that_of_layer_two() -> None:
    [amd64] = [image for image in make().images if image.platform.architecture == "amd64"]
    ids = ids_of(amd64)
    assert f"| `diff` | sha256:{ids['diff id 2']} |" in PAGE
    assert f"| `parent` | sha256:{ids['chain id 1']} " in PAGE
    assert f"| `parent` | sha256:{ids['chain id 2']}, " in PAGE
