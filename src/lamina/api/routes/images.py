"""Images: in, out, look at, name and remove (async)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lamina.api.errors import json_reply
from lamina.api.routes.archive import name_of
from lamina.api.routing import Call, Route
from lamina.api.streams import bytes_answer, progress_answer
from lamina.errors import InvalidArgument, LaminaError, NotFound, NotServed, PermissionDenied, Unauthenticated
from lamina.http.exchange import Answer, Reply
from lamina.jsonvalue import JsonValue
from lamina.oci import platform as oci_platform
from lamina.oci.digest import parse_digest
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference, check_tag, parse_reference
from lamina.wire.engine.auth import RegistryAuth, decode
from lamina.wire.engine.filters import parse_filters
from lamina.wire.engine.progress import ProgressSink
from lamina.wire.engine.versions import Body, Version, older


async def listing(call: Call) -> Answer:
    found = await call.verb(call.services.list_images)(
        all=call.flag("all"), filters=parse_filters(call.text("filters")), shared_size=call.flag("shared-size")
    )
    return json_reply([older(Body.IMAGE_SUMMARY, call.version, summary) for summary in found])


async def inspect(call: Call) -> Answer:
    found = await call.verb(call.services.inspect_image)(call.names["name"])
    return json_reply(older(Body.IMAGE_INSPECT, call.version, found))


async def history(call: Call) -> Answer:
    found: list[JsonValue] = list(await call.verb(call.services.history)(call.names["name"]))
    return json_reply(found)


async def create(call: Call) -> Answer:
    if call.text("fromImage"):
        return await _pull(call)
    if call.text("fromSrc"):
        return await _import(call)
    raise InvalidArgument("nothing to create an image from: give fromImage or fromSrc")


async def _pull(call: Call) -> Answer:
    verb = call.verb(call.services.pull)
    reference = _reference(call.text("fromImage"), call.text("tag"))
    if reference.tag is None and reference.digest is None:
        raise NotServed(f"pulling all tags of {reference.familiar_name} is not served by Lamina yet: give a tag")
    wanted, auth = _platform(call), _auth(call)

    async def work(progress: ProgressSink) -> None:
        with _refusals_of_registries():
            await verb(reference, platform=wanted, auth=auth, progress=progress)

    return await progress_answer(call, work)


@contextlib.contextmanager
def _refusals_of_registries() -> Iterator[None]:
    """401 and 403 are a registry's words to us. Said to the docker client, a 401 makes it ask for a password.

    Source: moby daemon/errors and distribution/errors.go, TranslatePullError: 500, and 404 for "denied".
    """
    try:
        yield
    except Unauthenticated as error:
        raise LaminaError(error.message, hint=error.hint) from error
    except PermissionDenied as error:
        raise NotFound(error.message, hint=error.hint) from error


async def _import(call: Call) -> Answer:
    verb = call.verb(call.services.import_)
    if call.text("fromSrc") != "-":
        raise NotServed("importing from a URL is not served by Lamina yet: fetch it and import the file")
    reference, wanted = name_of(call.text("repo"), call.text("tag")), _platform(call)

    async def work(progress: ProgressSink) -> None:
        await verb(
            call.request.chunks(),
            reference,
            message=call.text("message"),
            changes=call.request.query.get("changes", ()),
            platform=wanted,
            progress=progress,
        )

    return await progress_answer(call, work)


async def push(call: Call) -> Answer:
    verb = call.verb(call.services.push)
    reference, wanted, auth = _reference(call.names["name"], call.text("tag")), _platform(call), _auth(call)

    async def work(progress: ProgressSink) -> None:
        with _refusals_of_registries():
            await verb(reference, platform=wanted, auth=auth, progress=progress)

    return await progress_answer(call, work)


async def load(call: Call) -> Answer:
    verb = call.verb(call.services.load)

    async def work(progress: ProgressSink) -> None:
        await verb(call.request.chunks(), quiet=call.flag("quiet"), progress=progress)

    # As dockerd does: clients look for the error in the stream, not in the status.
    return await progress_answer(call, work, begin=True)


async def save(call: Call) -> Answer:
    names = [call.names["name"]] if "name" in call.names else list(call.request.query.get("names", ()))
    if not names:
        raise InvalidArgument("no image named: give names")
    chunks = call.verb(call.services.save)(names)
    return await bytes_answer(call, chunks, [("Content-Type", "application/x-tar")])


async def tag(call: Call) -> Answer:
    reference = name_of(call.text("repo"), call.text("tag"))
    if reference is None:
        raise InvalidArgument("repository name must have at least one component")
    await call.verb(call.services.tag)(call.names["name"], reference)
    return Reply(201)


async def remove(call: Call) -> Answer:
    gone: list[JsonValue] = list(
        await call.verb(call.services.remove_image)(
            call.names["name"], force=call.flag("force"), prune=not call.flag("noprune")
        )
    )
    return json_reply(gone)


def _reference(name: str, tag_or_digest: str) -> Reference:
    reference = parse_reference(name)
    if not tag_or_digest:
        return reference
    if ":" in tag_or_digest:
        return reference.without_suffix().with_digest(parse_digest(tag_or_digest))
    return reference.without_suffix().with_tag(check_tag(tag_or_digest))


def _platform(call: Call) -> Platform | None:
    specifier = call.text("platform")
    return oci_platform.parse(specifier) if specifier else None


def _auth(call: Call) -> RegistryAuth | None:
    return decode(call.request.headers.get("X-Registry-Auth", ""))


async def distribution(call: Call) -> Answer:
    verb, auth = call.verb(call.services.inspect_distribution), _auth(call)
    reference = parse_reference(call.names["name"]).with_default_tag()
    with _refusals_of_registries():
        return json_reply(await verb(reference, auth=auth))


ROWS = (
    Route("GET", "/distribution/{name}/json", distribution, "DistributionInspect", Version(1, 30)),
    Route("GET", "/images/json", listing, "ImageList"),
    Route("POST", "/images/create", create, "ImageCreate"),
    Route("POST", "/images/load", load, "ImageLoad"),
    Route("GET", "/images/get", save, "ImageGetAll"),
    Route("GET", "/images/{name}/get", save, "ImageGet"),
    Route("GET", "/images/{name}/json", inspect, "ImageInspect"),
    Route("GET", "/images/{name}/history", history, "ImageHistory"),
    Route("POST", "/images/{name}/push", push, "ImagePush"),
    Route("POST", "/images/{name}/tag", tag, "ImageTag"),
    Route("DELETE", "/images/{name}", remove, "ImageDelete"),
)
