"""Every answer of every operation that is served fits Docker's description of it, in body and in headers."""

from __future__ import annotations

import asyncio

import pytest

from lamina.api.routes.table import ROWS
from lamina.api.routes.unserved import refuse
from tests.api.contract import BrokenContractError, loaded
from tests.api.fakes import ID, FakeEngine
from tests.api.serving import ask, serving

EXEC = "ee" * 32
CASES = [
    # method, template, target, body, status
    ("GET", "/_ping", "/_ping", None, 200),
    ("HEAD", "/_ping", "/_ping", None, 200),
    ("GET", "/version", "/version", None, 200),
    ("GET", "/info", "/info", None, 200),
    ("GET", "/system/df", "/system/df", None, 200),
    ("GET", "/events", "/events?since=0&until=1", None, 200),
    ("GET", "/containers/json", "/containers/json?all=1", None, 200),
    ("POST", "/containers/create", "/containers/create?name=x", {"Image": "a:b"}, 201),
    ("POST", "/containers/create", "/containers/create", {"Image": "absent"}, 404),
    ("GET", "/containers/{id}/json", f"/containers/{ID}/json?size=1", None, 200),
    ("GET", "/containers/{id}/json", "/containers/absent/json", None, 404),
    ("GET", "/containers/{id}/top", f"/containers/{ID}/top", None, 200),
    ("GET", "/containers/{id}/changes", f"/containers/{ID}/changes", None, 200),
    ("POST", "/containers/{id}/start", f"/containers/{ID}/start", None, 204),
    ("POST", "/containers/{id}/start", "/containers/web/start", None, 304),
    ("POST", "/containers/{id}/stop", f"/containers/{ID}/stop?t=3", None, 204),
    ("POST", "/containers/{id}/restart", f"/containers/{ID}/restart", None, 204),
    ("POST", "/containers/{id}/kill", f"/containers/{ID}/kill", None, 204),
    ("POST", "/containers/{id}/kill", f"/containers/{ID}/kill?signal=SIGBAD", None, 400),
    ("POST", "/containers/{id}/rename", f"/containers/{ID}/rename?name=y", None, 204),
    ("POST", "/containers/{id}/pause", f"/containers/{ID}/pause", None, 204),
    ("POST", "/containers/{id}/unpause", f"/containers/{ID}/unpause", None, 204),
    ("POST", "/containers/{id}/resize", f"/containers/{ID}/resize?h=24&w=80", None, 200),
    ("DELETE", "/containers/{id}", f"/containers/{ID}?force=1", None, 204),
    ("DELETE", "/containers/{id}", f"/containers/{ID}", None, 409),
    ("HEAD", "/containers/{id}/archive", f"/containers/{ID}/archive?path=/etc/motd", None, 200),
    ("PUT", "/containers/{id}/archive", f"/containers/{ID}/archive?path=/etc", b"tar", 200),
    ("POST", "/containers/{id}/exec", f"/containers/{ID}/exec", {"Cmd": ["ls"]}, 201),
    ("GET", "/exec/{id}/json", f"/exec/{EXEC}/json", None, 200),
    ("GET", "/exec/{id}/json", "/exec/absent/json", None, 404),
    ("POST", "/exec/{id}/resize", f"/exec/{EXEC}/resize?h=24&w=80", None, 200),
    ("GET", "/images/json", "/images/json", None, 200),
    ("POST", "/images/create", "/images/create?fromImage=a&tag=b", None, 200),
    ("POST", "/images/load", "/images/load", b"tar", 200),
    ("GET", "/images/{name}/json", "/images/docker.io/library/a:b/json", None, 200),
    ("GET", "/images/{name}/json", "/images/absent/json", None, 404),
    ("GET", "/images/{name}/history", "/images/a:b/history", None, 200),
    ("POST", "/images/{name}/tag", "/images/a:b/tag?repo=c&tag=d", None, 201),
    ("DELETE", "/images/{name}", "/images/a:b", None, 200),
    ("POST", "/commit", f"/commit?container={ID}&repo=c", {}, 201),
    ("GET", "/volumes", "/volumes", None, 200),
    ("POST", "/volumes/create", "/volumes/create", {"Name": "data"}, 201),
    ("GET", "/volumes/{name}", "/volumes/data", None, 200),
    ("GET", "/volumes/{name}", "/volumes/absent", None, 404),
    ("DELETE", "/volumes/{name}", "/volumes/data", None, 204),
    ("POST", "/containers/prune", "/containers/prune", None, 200),
    ("POST", "/images/prune", "/images/prune", None, 200),
    ("POST", "/volumes/prune", "/volumes/prune", None, 200),
    ("GET", "/networks", "/networks", None, 200),
    ("GET", "/networks/{id}", "/networks/bridge", None, 200),
    ("GET", "/containers/{id}/stats", f"/containers/{ID}/stats?stream=0", None, 200),
    ("GET", "/containers/{id}/stats", "/containers/absent/stats", None, 404),
    ("POST", "/containers/{id}/update", f"/containers/{ID}/update", {"Memory": 10_000_000}, 200),
    ("POST", "/containers/{id}/update", "/containers/absent/update", {"Memory": 10_000_000}, 404),
    ("POST", "/networks/create", "/networks/create", {}, 501),
]


def test_every_operation_of_the_description_has_a_row(engine_api_spec):
    described = set(loaded(engine_api_spec).operations)
    rows = {(row.method, row.path) for row in ROWS}
    assert described - rows == set()
    assert rows - described == {("POST", "/grpc"), ("POST", "/lamina/data-root/lend")}


def test_operations_are_named_as_in_the_description(engine_api_spec):
    operations = loaded(engine_api_spec).operations
    wrong = {
        row.operation: operations[row.method, row.path]["operationId"]
        for row in ROWS
        if (row.method, row.path) in operations and row.operation != operations[row.method, row.path]["operationId"]
    }
    assert wrong == {}


@pytest.mark.parametrize(("method", "template", "target", "body", "status"), CASES)
def test_answers_fit_the_description(engine_api_spec, method, template, target, body, status):
    contract = loaded(engine_api_spec)

    async def scenario():
        async with serving(FakeEngine().services()) as path:
            for prefix in ("", "/v1.51"):
                got = await ask(path, method, prefix + target, body)
                assert got.status == status, got.body
                if template in {"/events", "/images/create", "/images/load"}:
                    contract.validate_lines(method, template, got.body)
                else:
                    contract.validate(method, template, status, got.body)
                assert got.headers["api-version"] == "1.51"

    asyncio.run(scenario())


def test_each_operation_without_a_verb_says_so_by_name(engine_api_spec):
    operations = loaded(engine_api_spec).operations

    async def scenario():
        async with serving(FakeEngine().services()) as path:
            for row in ROWS:
                if row.function is not refuse or (row.method, row.path) not in operations:
                    continue
                target = row.path.replace("{id}", "x").replace("{name}", "x")
                got = await ask(path, row.method, target)
                assert got.status == 501, target
                name = operations[row.method, row.path]["operationId"]
                assert got.message == f"{name} is not served by Lamina yet"
                loaded(engine_api_spec).validate(row.method, row.path, 501, got.body)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("template", "body"),
    [
        ("/containers/json", b"{}"),
        ("/containers/json", b'[{"Id": 5}]'),
        ("/version", b'{"ApiVersion": null}'),
        ("/containers/{id}/json", b'{"State": {"Status": "sleeping"}}'),
        ("/images/json", b"not json"),
        ("/nowhere", b"{}"),
    ],
)
def test_the_validator_refuses_what_the_description_does_not_allow(engine_api_spec, template, body):
    with pytest.raises(BrokenContractError):
        loaded(engine_api_spec).validate("GET", template, 200, body)
