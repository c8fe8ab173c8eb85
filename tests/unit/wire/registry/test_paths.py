from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InvalidArgument
from lamina.oci.digest import digest_of
from lamina.wire.registry import paths
from lamina.wire.registry.paths import Route, Target

NAMES = st.from_regex(paths._NAME, fullmatch=True).filter(lambda name: len(name) <= 255)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2", Route(Target.ROOT)),
        ("/v2/", Route(Target.ROOT)),
        ("/v2/_catalog", Route(Target.CATALOG)),
        ("/v2/a/b/tags/list", Route(Target.TAGS, "a/b")),
        ("/v2/a/manifests/latest", Route(Target.MANIFEST, "a", "latest")),
        ("/v2/a/blobs/sha256:1", Route(Target.BLOB, "a", "sha256:1")),
        ("/v2/a/blobs/uploads/", Route(Target.UPLOADS, "a")),
        ("/v2/a/blobs/uploads", Route(Target.UPLOADS, "a")),
        ("/v2/a/blobs/uploads/x", Route(Target.UPLOAD, "a", "x")),
        ("/v2/blobs/uploads/blobs/uploads/", Route(Target.UPLOADS, "blobs/uploads")),
        ("/v2/a/tags/nothing", None),
        ("/v2/a/manifests/", None),
        ("/v3/", None),
        ("/", None),
    ],
)
def test_a_path_says_what_it_names(path: str, route: Route | None) -> None:
    assert paths.decode(path) == route


@pytest.mark.parametrize("name", ["A", "a//b", "a/", "../x", "a/../b", "a b", "_a", "a" * 256, "a\x00b", ".a", "a-"])
def test_a_name_outside_the_grammar_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        paths.check_name(name)


@given(NAMES)
def test_what_is_encoded_decodes_to_the_same(name: str) -> None:
    digest = digest_of(name.encode())
    assert paths.decode(paths.blob(name, digest)) == Route(Target.BLOB, name, digest)
    assert paths.decode(paths.manifest(name, "v1")) == Route(Target.MANIFEST, name, "v1")
    assert paths.decode(paths.uploads(name)) == Route(Target.UPLOADS, name)
    assert paths.decode(paths.upload(name, "id")) == Route(Target.UPLOAD, name, "id")
