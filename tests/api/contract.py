"""Holds answers against Docker's description of the Engine API (Swagger 2.0 turned into JSON schemas).

`validate` is for any daemon's answers: those of the fakes here, and those of the real daemon elsewhere.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

SPEC = Path(__file__).parents[3] / "shared" / "spec" / "engine-api-v1.51.yaml"
_BASE = "urn:engine-api"

NULLS_OF_DOCKERD = {
    "Volume": ("Labels", "Options"),
    "VolumeListResponse": ("Volumes", "Warnings"),
    "IPAM": ("Config", "Options"),
    "EndpointSettings": ("Aliases", "DNSNames", "DriverOpts", "IPAMConfig", "Links"),
    "ImageHistoryResponseItem": ("Tags",),
    "ImageConfig": ("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"),
    "ContainerConfig": ("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"),
    "Resources": (
        *("BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps", "BlkioDeviceWriteIOps"),
        *("DeviceCgroupRules", "DeviceRequests", "Devices", "MemorySwappiness", "OomKillDisable", "Ulimits"),
    ),
    "HostConfig": (
        *("Binds", "CapAdd", "CapDrop", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "GroupAdd", "Links"),
        *("SecurityOpt", "VolumesFrom"),
    ),
}
"""Where dockerd 20.10 and 28 send null for an empty map or list, against their own description. Clients expect it."""


class BrokenContractError(AssertionError):
    """An answer that the description does not allow."""


def validate(method: str, path_template: str, status: int, body: bytes | object, spec: Path = SPEC) -> None:
    """Check one answer; `body` is bytes or decoded JSON (None for none).

    `path_template` is as in the description: `/containers/{id}/json`.

    Raises:
        BrokenContractError: the operation is unknown, or the body does not fit the schema of this status.
    """
    loaded(spec).validate(method, path_template, status, body)


@lru_cache(maxsize=2)
def loaded(spec: Path) -> Contract:
    return Contract(yaml.load(spec.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


class Contract:
    def __init__(self, document: dict[str, Any]) -> None:
        self.operations = {
            (method.upper(), path): operation
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        root = {"definitions": {name: to_schema(schema) for name, schema in document["definitions"].items()}}
        for name, keys in NULLS_OF_DOCKERD.items():
            properties = _properties(root["definitions"][name])
            properties.update({key: {"anyOf": [{"type": "null"}, properties[key]]} for key in keys})
        self._registry = Registry().with_resource(_BASE, Resource.from_contents(root, default_specification=DRAFT4))

    def validate(self, method: str, path: str, status: int, body: bytes | object) -> None:
        operation = self.operations.get((method, path))
        if operation is None:
            raise BrokenContractError(f"{method} {path} is not in the description")
        what = f"{method} {path} -> {status}"
        schema = self._schema(operation, status, what)
        if schema is None or method == "HEAD":
            if body not in (None, b"", b"{}", b"[]") and status in {204, 304}:
                raise BrokenContractError(f"{what}: a body where none is described: {body!r:.200}")
            return
        produces = operation.get("produces", ["application/json"])
        if isinstance(body, bytes):
            is_text = schema.get("type") == "string" and produces == ["text/plain"]
            body = body.decode() if is_text else _decoded(body, what)
        self._check(schema, body, what)

    def validate_lines(self, method: str, path: str, body: bytes) -> int:
        """Check a stream of JSON lines, each against the schema of status 200; how many there were."""
        schema = self._schema(self.operations[method, path], 200, path)
        lines = body.splitlines()
        for number, line in enumerate(lines):
            self._check(schema or {}, _decoded(line, path), f"{method} {path} line {number}")
        return len(lines)

    def _schema(self, operation: dict[str, Any], status: int, what: str) -> dict[str, Any] | None:
        described = operation["responses"].get(status) or operation["responses"].get(str(status))
        if described is not None:
            return to_schema(described["schema"]) if "schema" in described else None
        if status >= 400:
            return {"$ref": f"{_BASE}#/definitions/ErrorResponse"}
        raise BrokenContractError(f"{what}: this status is not described")

    def _check(self, schema: dict[str, Any], body: object, what: str) -> None:
        validator = jsonschema.Draft4Validator(schema, registry=self._registry)
        problems = [
            f"{'/'.join(map(str, error.absolute_path)) or '(whole body)'}: {error.message[:300]}"
            for error in validator.iter_errors(body)
        ]
        if problems:
            raise BrokenContractError(f"{what}:\n  " + "\n  ".join(problems))


def to_schema(swagger: Any) -> Any:
    """A Swagger 2.0 schema as JSON schema: `x-nullable` becomes a type, references become absolute.

    `additionalProperties` stays open, as in Swagger: versions differ in what they add.
    """
    if isinstance(swagger, list):
        return [to_schema(item) for item in swagger]
    if not isinstance(swagger, dict):
        return swagger
    out = {key: to_schema(value) for key, value in swagger.items() if key not in {"example", "examples", "default"}}
    if isinstance(out.get("$ref"), str) and out["$ref"].startswith("#/"):
        reference = {"$ref": _BASE + out["$ref"]}
        return {"anyOf": [reference, {"type": "null"}]} if swagger.get("x-nullable") else reference
    if swagger.get("x-nullable") and "type" in out:
        out["type"] = [out["type"], "null"]
        if "enum" in out:
            out["enum"] = [*out["enum"], None]
    elif swagger.get("x-nullable"):
        return {"anyOf": [out, {"type": "null"}]}
    return out


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties that a definition itself has, which with `allOf` are its last part's."""
    return schema["properties"] if "properties" in schema else _properties(schema["allOf"][-1])


def _decoded(body: bytes, what: str) -> object:
    try:
        return json.loads(body)
    except ValueError as error:
        raise BrokenContractError(f"{what}: not JSON: {body[:200]!r}") from error
