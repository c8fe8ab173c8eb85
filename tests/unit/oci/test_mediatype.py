"""Media types in two spellings."""

from __future__ import annotations

from lamina.oci import mediatype


def test_layers_tell_their_compression() -> None:
    assert mediatype.compression_of(mediatype.DOCKER_LAYER_GZIP) == "gzip"
    assert mediatype.compression_of(mediatype.OCI_LAYER_ZSTD) == "zstd"
    assert mediatype.compression_of(mediatype.OCI_LAYER) == ""
    assert mediatype.compression_of(mediatype.OCI_CONFIG) is None


def test_docker_types_have_an_oci_spelling() -> None:
    assert mediatype.as_oci(mediatype.DOCKER_MANIFEST) == mediatype.OCI_MANIFEST
    assert mediatype.as_oci("application/x") == "application/x"


def test_parameters_of_a_content_type_do_not_count() -> None:
    assert mediatype.bare("Application/JSON; charset=utf-8") == "application/json"


def test_foreign_layers_are_layers() -> None:
    assert mediatype.is_foreign_layer(mediatype.DOCKER_FOREIGN_LAYER_GZIP)
    assert mediatype.is_layer(mediatype.DOCKER_FOREIGN_LAYER_GZIP)
    assert not mediatype.is_layer(mediatype.OCI_EMPTY)
