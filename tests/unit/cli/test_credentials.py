"""Logins come from docker's config.json, for the registry of the image alone."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from lamina.cli.credentials import registry_auth
from lamina.errors import InvalidArgument
from lamina.oci.reference import parse_reference


def said(image: str, home: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(
        base64.urlsafe_b64decode(registry_auth(parse_reference(image), {"DOCKER_CONFIG": str(home)}))
    )
    return found


def test_logins(tmp_path: Path) -> None:
    assert said("alpine", tmp_path) == {}
    auth = base64.b64encode(b"me:pass:word").decode()
    logins = {"https://index.docker.io/v1/": {"auth": auth}, "127.0.0.1:5000": {"auth": auth, "identitytoken": "t"}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": logins}))
    assert said("alpine", tmp_path) == {"username": "me", "password": "pass:word", "serveraddress": "docker.io"}
    assert said("127.0.0.1:5000/a", tmp_path)["identitytoken"] == "t"
    assert said("other.example/a", tmp_path) == {}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": {"docker.io": 1, "https://index.docker.io/v1/": {"auth": "\\u00ff"}}}']
)
def test_a_file_that_cannot_be_understood_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidArgument, match=r"config\.json"):
        said("alpine", tmp_path)
