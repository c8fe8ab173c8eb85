"""Files in and out of containers, and a container as an image or archive (async)."""

from __future__ import annotations

import base64

from lamina.api.errors import json_reply
from lamina.api.routing import Call, Route
from lamina.api.streams import bytes_answer
from lamina.errors import InvalidArgument
from lamina.http.exchange import Answer, Reply
from lamina.jsonvalue import JsonObject, go_json
from lamina.oci.reference import Reference, check_tag, parse_reference

_TAR = ("Content-Type", "application/x-tar")


async def stat(call: Call) -> Answer:
    found = await call.verb(call.services.stat_path)(call.names["id"], _path(call))
    return Reply(200, headers=[_stat_header(found)])


async def get(call: Call) -> Answer:
    found, chunks = await call.verb(call.services.copy_out)(call.names["id"], _path(call))
    return await bytes_answer(call, chunks, [_TAR, _stat_header(found)])


async def put(call: Call) -> Answer:
    await call.verb(call.services.copy_in)(
        call.names["id"],
        _path(call),
        call.request.chunks(),
        no_overwrite_dir_non_dir=call.flag("noOverwriteDirNonDir"),
        copy_uid_gid=call.flag("copyUIDGID"),
    )
    return Reply(200)


async def export(call: Call) -> Answer:
    chunks = call.verb(call.services.export)(call.names["id"])
    return await bytes_answer(call, chunks, [("Content-Type", "application/octet-stream")])


async def commit(call: Call) -> Answer:
    verb = call.verb(call.services.commit)
    config = await call.json(required=False)
    image_id = await verb(
        call.text("container"),
        name_of(call.text("repo"), call.text("tag")),
        author=call.text("author"),
        message=call.text("comment"),
        pause=call.flag("pause", default=True),
        changes=call.request.query.get("changes", ()),
        config=config or None,
    )
    return json_reply({"Id": image_id}, 201)


def name_of(repository: str, tag: str) -> Reference | None:
    """The name a new image gets; None for no repository.

    Raises:
        InvalidReference: no valid name or tag.
        InvalidArgument: the name has a digest, which cannot be chosen.
    """
    if not repository:
        return None
    reference = parse_reference(repository)
    if reference.digest is not None:
        raise InvalidArgument("cannot import digest reference")
    if tag:
        return reference.with_tag(check_tag(tag))
    return reference.with_default_tag()


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    return path


def _stat_header(found: JsonObject) -> tuple[str, str]:
    return "X-Docker-Container-Path-Stat", base64.b64encode(go_json(found)).decode()


ROWS = (
    Route("HEAD", "/containers/{id}/archive", stat, "ContainerArchiveInfo"),
    Route("GET", "/containers/{id}/archive", get, "ContainerArchive"),
    Route("PUT", "/containers/{id}/archive", put, "PutContainerArchive"),
    Route("GET", "/containers/{id}/export", export, "ContainerExport"),
    Route("POST", "/commit", commit, "ImageCommit"),
)
