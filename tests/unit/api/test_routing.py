from __future__ import annotations

import pytest

from lamina import errors
from lamina.api.errors import message_of, status_of
from lamina.api.routes.table import ROWS
from lamina.api.routing import Routes, check_json_type, split_version
from lamina.http.exchange import BodyTooLarge


@pytest.mark.parametrize(
    ("method", "path", "operation", "names"),
    [
        ("GET", "/images/json", "ImageList", {}),
        ("GET", "/images/get", "ImageGetAll", {}),
        ("GET", "/images/a/json", "ImageInspect", {"name": "a"}),
        ("GET", "/images/a/json/json", "ImageInspect", {"name": "a/json"}),
        ("GET", "/images/r:5/a/b@sha256:c/history", "ImageHistory", {"name": "r:5/a/b@sha256:c"}),
        ("DELETE", "/images/a/b", "ImageDelete", {"name": "a/b"}),
        ("POST", "/images/create", "ImageCreate", {}),
        ("POST", "/images/a/create/push", "ImagePush", {"name": "a/create"}),
        ("GET", "/containers/json", "ContainerList", {}),
        ("GET", "/containers/json/json", "ContainerInspect", {"id": "json"}),
        ("DELETE", "/containers/a", "ContainerDelete", {"id": "a"}),
        ("HEAD", "/containers/a/archive", "ContainerArchiveInfo", {"id": "a"}),
    ],
)
def test_rows_are_found(method, path, operation, names):
    row, found = Routes(ROWS).find(method, path)
    assert (row.operation, found) == (operation, names)


@pytest.mark.parametrize("path", ["", "/", "/containers", "/containers/a/b/json", "/images//json", "/volumes/a/b", "x"])
def test_other_paths_are_not(path):
    assert Routes(ROWS).find("GET", path) is None


def test_only_attach_and_exec_take_over():
    assert {row.operation for row in ROWS if row.takes_over} == {"ContainerAttach", "ExecStart"}


def test_rows_are_unique():
    keys = [(row.method, row.path) for row in ROWS]
    assert len(keys) == len(set(keys))


def test_versions_are_split_off():
    assert split_version("/v1.47/info") == ("1.47", "/info")
    assert split_version("/info") == ("", "/info")
    assert split_version("/volumes/v1") == ("", "/volumes/v1")
    assert split_version("/v1.47") == ("", "/v1.47")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidReference("x"), 400), (errors.NoSuchImage("x"), 404), (errors.NameInUse("x"), 409),
        (errors.NotModified("x"), 304), (errors.NotServed("x"), 501), (errors.Unsupported("x"), 501),
        (errors.Unavailable("x"), 503), (errors.CommandNotFound("x"), 400), (errors.DigestMismatch("x"), 500),
        (errors.Unauthenticated("x"), 401), (errors.PermissionDenied("x"), 403), (errors.StorageFull("x"), 500),
        (BodyTooLarge("x"), 413), (KeyError("x"), 500), (OSError(28, "No space left on device"), 500),
    ],
)  # fmt: skip
def test_every_error_has_a_status(error, status):
    assert status_of(error) == status


def test_messages_carry_the_hint_and_hide_inner_faults():
    assert message_of(errors.NotFound("gone", hint="look")) == "gone (look)"
    assert "secret" not in message_of(KeyError("secret"))
    assert message_of(OSError(28, "No space left on device", "/x")) == "No space left on device: /x"


def test_json_types():
    check_json_type("application/json; charset=utf-8", is_empty=False)
    check_json_type("", is_empty=True)
    check_json_type("text/plain", is_empty=True)
    for declared in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        with pytest.raises(errors.InvalidArgument):
            check_json_type(declared, is_empty=False)
