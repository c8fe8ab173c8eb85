"""What the real daemon answers fits the description of the Engine API, operation by operation."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from tests.api.contract import validate
from tests.e2e.engines import Engine


class _Api:
    """Requests to a daemon whose answers are checked against the description."""

    def __init__(self, engine: Engine, spec: Path) -> None:
        self.engine, self.spec = engine, spec
        self.version = "1.51" if engine.kind == "lamina" else "1.41"

    def __call__(self, method: str, template: str, body: Any = None, query: str = "", **names: str) -> Any:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(str(self.engine.socket))
        path = template.format(**names)
        payload = json.dumps(body) if body is not None else None
        connection.request(method, f"/v{self.version}{path}{query}", payload, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        validate(method, template, answer.status, data, self.spec)
        assert answer.status < 500, (method, path, answer.status, data)
        return json.loads(data) if data[:1] in (b"{", b"[") else data


def test_every_served_answer_fits_the_description(engine: Engine, engine_api_spec: Path) -> None:
    if engine.kind != "lamina":
        return  # dockerd sends more nulls than its own description allows
    api = _Api(engine, engine_api_spec)
    created = api(
        "POST",
        "/containers/create",
        {"Image": "busybox", "Cmd": ["sleep", "60"], "Volumes": {"/v": {}}},
        "?name=contract",
    )
    name = created["Id"]
    api("POST", "/containers/{id}/start", id=name)
    api("GET", "/containers/json", query="?all=1&size=1")
    api("GET", "/containers/{id}/json", query="?size=1", id=name)
    api("GET", "/containers/{id}/top", id=name)
    api("GET", "/containers/{id}/changes", id=name)
    exec_id = api("POST", "/containers/{id}/exec", {"Cmd": ["true"]}, id=name)["Id"]
    api("POST", "/exec/{id}/start", {"Detach": True}, id=exec_id)
    api("GET", "/exec/{id}/json", id=exec_id)
    api("POST", "/containers/{id}/pause", id=name)
    api("POST", "/containers/{id}/unpause", id=name)
    api("POST", "/containers/{id}/rename", query="?name=contract2", id=name)
    api("POST", "/containers/{id}/stop", query="?t=0", id=name)
    api("POST", "/containers/{id}/wait", id=name)
    api("GET", "/images/json", query="?all=1&digests=1")
    api("GET", "/images/{name}/json", name="busybox")
    api("GET", "/images/{name}/history", name="busybox")
    api("POST", "/images/{name}/tag", query="?repo=contract&tag=1", name="busybox")
    api("DELETE", "/images/{name}", name="contract:1")
    api("POST", "/commit", {}, f"?container={name}&repo=contract&tag=2")
    api("DELETE", "/images/{name}", name="contract:2")
    api("POST", "/volumes/create", {"Name": "contract", "Labels": {"a": "b"}})
    api("GET", "/volumes")
    api("GET", "/volumes/{name}", name="contract")
    api("DELETE", "/volumes/{name}", name="contract")
    api("GET", "/networks")
    api("GET", "/networks/{id}", id="bridge")
    api("GET", "/info")
    api("GET", "/version")
    api("GET", "/system/df")
    api("DELETE", "/containers/{id}", query="?force=1&v=1", id=name)
    for template in ("/containers/{id}/json", "/containers/{id}/top", "/exec/{id}/json", "/networks/{id}"):
        assert "message" in api("GET", template, id="nothere")
    for template in ("/images/{name}/json", "/images/{name}/history", "/volumes/{name}"):
        assert "message" in api("GET", template, name="nothere")
