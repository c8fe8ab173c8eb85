from __future__ import annotations

import pytest

from lamina.errors import InvalidArgument
from lamina.wire.engine.versions import ANSWERS, NEWEST, QUESTIONS, Body, Version, negotiate, newer, older


def test_versions_compare_by_number():
    assert Version(1, 9) < Version(1, 24) < Version(1, 51) < Version(2, 0)


@pytest.mark.parametrize(
    ("text", "version"), [("", NEWEST), ("1.24", Version(1, 24)), ("1.51", NEWEST), ("1.40.0", Version(1, 40))]
)
def test_what_is_served(text, version):
    assert negotiate(text) == version


@pytest.mark.parametrize("text", ["1.52", "1.23", "1", "2", "0.9", "1.1.1.1", "99999999.1", "1..2", "."])
def test_what_is_not(text):
    with pytest.raises(InvalidArgument):
        negotiate(text)


@pytest.mark.parametrize("table", [ANSWERS, QUESTIONS])
def test_tables_stand_newest_first(table):
    assert [change.since for change in table] == sorted((change.since for change in table), reverse=True)


def test_the_newest_client_sees_bodies_as_they_are():
    body = {"Id": "x", "Size": 1, "RepoTags": [], "RepoDigests": []}
    assert older(Body.IMAGE_SUMMARY, NEWEST, dict(body)) == body
    assert older(Body.IMAGE_SUMMARY, Version(1, 24), dict(body)) == {
        "Id": "x", "Size": 1, "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"], "VirtualSize": 1,
    }  # fmt: skip


def test_retired_fields_are_for_older_clients_only():
    body = {"Size": 1, "Container": "c", "ContainerConfig": {"a": 1}}
    assert older(Body.IMAGE_INSPECT, NEWEST, dict(body)) == {"Size": 1}
    seen = older(Body.IMAGE_INSPECT, Version(1, 44), dict(body))
    assert (seen["Container"], seen["ContainerConfig"]) == ("c", {"a": 1})
    assert older(Body.IMAGE_INSPECT, Version(1, 44), {"Size": 1})["Container"] == ""


def test_disk_usage_of_older_clients():
    body = {"Images": [{"Size": 4}], "BuildCache": [{"Size": 2}, {"Size": 3}]}
    seen = older(Body.DISK_USAGE, Version(1, 41), body)
    assert seen["Images"][0]["VirtualSize"] == 4
    assert seen["BuilderSize"] == 5


def test_questions_of_older_clients():
    asked = {"HostConfig": {"CgroupnsMode": "host", "Annotations": {}}, "Healthcheck": {"StartInterval": 1}}
    assert newer(Body.CONTAINER_CREATE, Version(1, 40), asked) == {"HostConfig": {}, "Healthcheck": {}}
    assert newer(Body.CONTAINER_CREATE, NEWEST, {"StopTimeout": 1}) == {"StopTimeout": 1}
