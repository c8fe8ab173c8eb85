"""What clients send and get: versions, errors, bodies, queries, headers."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from lamina.wire.engine.auth import RegistryAuth
from tests.api.fakes import ID, IMAGE, FakeEngine
from tests.api.serving import ask, connect, request, serving

TOO_OLD = (
    "client version 1.23 is too old. Minimum supported API version is 1.24, "
    "please upgrade your client to a newer version"
)


def run(scenario) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


def asked(method: str, target: str, body=None, **headers):
    """The answer of a fresh engine, and the engine."""
    engine = FakeEngine()

    async def scenario():
        async with serving(engine.services()) as path:
            return await ask(path, method, target, body, **headers)

    return asyncio.run(scenario()), engine


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.41", "/v1.51"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping_tells_who_answers(prefix, method):
    got, _ = asked(method, prefix + "/_ping")
    assert got.status == 200
    assert got.body == (b"OK" if method == "GET" else b"")
    assert got.headers["api-version"] == "1.51"
    assert got.headers["docker-experimental"] == "false"
    assert got.headers["ostype"] == "linux"
    assert got.headers["builder-version"] == "1"
    assert got.headers["cache-control"] == "no-cache, no-store, must-revalidate"
    assert got.headers["content-type"] == "text/plain; charset=utf-8"
    assert got.headers["server"] == "Lamina/0.test (linux)"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.99", "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("2.0", "client version 2.0 is too new. Maximum supported API version is 1.51"),
        ("1.23", TOO_OLD),
    ],
)
def test_versions_that_are_not_served_are_refused_in_dockers_words(version, message):
    got, _ = asked("GET", f"/v{version}/info")
    assert (got.status, got.message) == (400, message)


@pytest.mark.parametrize("target", ["/nothing", "/v1.51/nothing", "/containers/x/y/z", "/", "//info", "/v1.51//info",
                                    "/../info", "/containers/../info", "/info/"])  # fmt: skip
def test_unknown_paths_are_not_found_and_never_cleaned_up(target):
    got, _ = asked("GET", target)
    assert (got.status, got.message) == (404, "page not found")


def test_a_known_path_with_another_method_is_not_found():
    assert asked("PATCH", "/info")[0].status == 404


def test_an_image_name_may_hold_slashes_escaped_or_not():
    for target in ("/images/reg.io:5000/a/b:c/json", "/images/reg.io:5000%2Fa%2Fb:c/json"):
        got, engine = asked("GET", target)
        assert got.status == 200
        assert engine.calls == [("inspect_image", "reg.io:5000/a/b:c")]


@pytest.mark.parametrize("target", ["/images/%ff/json", "/images/a%00b/json", "/images/a%0ab/json"])
def test_paths_that_are_no_text_are_refused(target):
    assert asked("GET", target)[0].status == 400


def test_create_splits_the_body_and_passes_the_rest_on():
    body = {"Image": "a:b", "Cmd": ["x"], "HostConfig": {"AutoRemove": True}, "NetworkingConfig": None, "Unknown": 1}
    got, engine = asked("POST", "/v1.51/containers/create?name=web&platform=linux/arm64", body)
    assert (got.status, got.json) == (201, {"Id": ID, "Warnings": []})
    (_, name, config, host_config, networking, platform) = engine.calls[0]
    assert (name, host_config, networking) == ("web", {"AutoRemove": True}, {})
    assert config == {"Image": "a:b", "Cmd": ["x"], "Unknown": 1}
    assert (platform.os, platform.architecture) == ("linux", "arm64")


def test_create_for_an_older_client_means_what_it_meant_then():
    body = {"Image": "a", "StopTimeout": 1, "HostConfig": {"AutoRemove": True, "Annotations": {"a": "b"}}}
    _, engine = asked("POST", "/v1.24/containers/create", body)
    assert engine.calls[0][2] == {"Image": "a"}
    assert engine.calls[0][3] == {"IpcMode": "shareable"}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Content_Type": "text/plain"}, 400),
        (b"{}", {"Content_Type": "application/x-www-form-urlencoded"}, 400),
        (b"{}", {}, 400),
        (b"", {"Content_Type": "application/json"}, 400),
        (b"[1]", {"Content_Type": "application/json"}, 400),
        (b"{", {"Content_Type": "application/json"}, 400),
        (b'{"Image":"a","Image":"b"}', {"Content_Type": "application/json"}, 400),
        (b'{"Image":' + b"[" * 5000 + b"]" * 5000 + b"}", {"Content_Type": "application/json"}, 400),
        (b"\xff\xfe", {"Content_Type": "application/json"}, 400),
        (b'{"Image":"a"}', {"Content_Type": "application/json; charset=utf-8"}, 201),
        (b'{"Image":"a"}', {"Content_Type": "Application/JSON"}, 201),
    ],
)
def test_bodies_must_be_declared_and_be_json(body, headers, status):
    got, _ = asked("POST", "/containers/create", body, **headers)
    assert got.status == status, got.body
    assert status == 201 or got.message


def test_a_json_body_has_a_limit():
    body = b'{"Image":"' + b"a" * (9 << 20) + b'"}'

    async def scenario():
        async with serving(FakeEngine().services()) as path:
            got = await ask(path, "POST", "/containers/create", body, Content_Type="application/json")
            assert (got.status, got.headers["connection"]) == (413, "close")
            assert (await ask(path, "GET", "/_ping")).status == 200

    run(scenario())


def test_a_body_of_2_to_the_40_is_refused_before_a_byte_of_it_came():
    async def scenario():
        async with serving(FakeEngine().services()) as path, await connect(path) as wire:
            head = request("POST", "/containers/create", Content_Type="application/json", Content_Length=str(2**40))
            await wire.send(head)
            got = await wire.answer()
            assert got.status == 413
            assert "larger" in got.message

    run(scenario())


def test_a_body_is_asked_for_only_when_it_is_wanted():
    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services()) as path, await connect(path) as wire:
            head = request("PUT", "/containers/web/archive?path=/", Content_Length="3", Expect="100-continue")
            await wire.send(head)
            assert (await wire.head()).status == 100
            await wire.send(b"tar")
            assert (await wire.answer()).status == 200
            assert engine.loaded == b"tar"

    run(scenario())


def test_archives_are_streamed_and_not_gathered():
    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services()) as path, await connect(path) as wire:
            await wire.send(request("POST", "/images/load?quiet=1", Transfer_Encoding="chunked"))
            for _ in range(3):
                await wire.send(b"4\r\nabcd\r\n")
                while not engine.loaded.endswith(b"abcd"):  # noqa: ASYNC110 (the verb has no event to wait for)
                    await asyncio.sleep(0)
                engine.loaded += b"|"
            await wire.send(b"0\r\n\r\n")
            got = await wire.answer()
            assert got.json == {"stream": "Loaded image: a:b\n"}
            assert engine.loaded == b"abcd|abcd|abcd|"

    run(scenario())


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("/containers/term/stop", ("stop", None, None)),
        ("/containers/term/stop?t=0", ("stop", None, 0)),
        ("/containers/term/stop?t=-1&signal=INT", ("stop", "INT", -1)),
        ("/v1.41/containers/term/stop?t=5&signal=INT", ("stop", None, 5)),
        ("/containers/term/kill", ("kill", "SIGKILL")),
        ("/containers/term/kill?signal=HUP", ("kill", "HUP")),
        ("/containers/term/resize?h=1&w=2", ("resize", 1, 2)),
    ],
)
def test_queries_reach_the_verbs(target, call):
    _, engine = asked("POST", target)
    assert [(name, *rest) for name, _, *rest in engine.calls] == [call]


@pytest.mark.parametrize("target", ["/containers/term/stop?t=soon", "/containers/term/resize?h=1",
                                    "/containers/term/resize?h=x&w=1", "/containers/term/resize?h=70000&w=1"])  # fmt: skip
def test_numbers_that_are_none_are_refused(target):
    assert asked("POST", target)[0].status == 400


@pytest.mark.parametrize("text", ['{"label":["a=b","c"]}', '{"label":{"a=b":true,"c":true,"d":false}}'])
def test_filters_come_in_both_forms(text):
    _, engine = asked("GET", "/containers/json?all=1&limit=2&filters=" + text)
    assert engine.calls == [("list", True, 2, False, {"label": ("a=b", "c")})]


@pytest.mark.parametrize("text", ["nope", "[1]", '{"a":1}', '{"a":[1]}', '{"a":{"b":1}}'])
def test_filters_that_are_none_are_refused(text):
    assert asked("GET", "/containers/json?filters=" + text)[0].status == 400


def test_not_modified_has_no_body():
    got, _ = asked("POST", "/containers/web/start")
    assert (got.status, got.body) == (304, b"")


def test_a_body_with_start_is_refused():
    assert asked("POST", "/containers/term/start", {"Binds": []})[0].status == 400
    assert asked("POST", "/containers/term/start", {})[0].status == 204


def test_wait_says_that_it_waits_before_it_does():
    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services()) as path, await connect(path) as wire:
            await wire.send(request("POST", "/v1.51/containers/web/wait?condition=next-exit"))
            head = await wire.head()
            assert (head.status, head.headers["content-type"]) == (200, "application/json")
            engine.ended.set()
            assert json.loads(await wire.chunk()) == {"StatusCode": 7}
            assert await wire.chunk() == b""
            assert (await wire.ask("GET", "/_ping")).body == b"OK"

    run(scenario())


def test_wait_refuses_what_it_cannot_wait_for():
    assert asked("POST", "/containers/absent/wait")[0].status == 404
    assert asked("POST", "/containers/web/wait?condition=never")[0].status == 400


def test_pull_passes_name_platform_and_credentials():
    auth = base64.urlsafe_b64encode(b'{"username":"u","password":"p"}').decode()
    _, engine = asked("POST", "/images/create?fromImage=a&tag=b&platform=linux/arm64", X_Registry_Auth=auth)
    (_, reference, platform, credentials) = engine.calls[0]
    assert reference == "docker.io/library/a:b"
    assert platform.architecture == "arm64"
    assert credentials == RegistryAuth(username="u", password="p")


def test_pull_by_digest_and_without_a_tag():
    digest = "sha256:" + "0a" * 32
    _, engine = asked("POST", f"/images/create?fromImage=a&tag={digest}")
    assert engine.calls[0][1] == f"docker.io/library/a@{digest}"
    assert asked("POST", "/images/create?fromImage=a")[0].status == 501
    assert asked("POST", "/images/create?fromImage=A&tag=b")[0].status == 400
    assert asked("POST", "/images/create")[0].status == 400


def test_a_failure_before_the_first_line_is_a_status_and_later_the_last_line():
    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services()) as path:
            engine.pull_fails_after = 0
            got = await ask(path, "POST", "/images/create?fromImage=nothing&tag=here")
            assert (got.status, got.message) == (404, "manifest for nothing:here not found: manifest unknown")
            engine.pull_fails_after = 2
            got = await ask(path, "POST", "/images/create?fromImage=nothing&tag=here")
            lines = [json.loads(line) for line in got.body.splitlines()]
            assert got.status == 200
            assert lines[-1]["error"] == lines[-1]["errorDetail"]["message"]
            assert "manifest unknown" in lines[-1]["error"]

    run(scenario())


def test_a_pull_ends_with_its_client():
    async def scenario():
        engine = FakeEngine()
        engine.pull_hangs = True
        async with serving(engine.services()) as path:
            wire = await connect(path)
            await wire.send(request("POST", "/images/create?fromImage=a&tag=b"))
            await wire.head()
            await wire.close()
            await engine.pull_cancelled.wait()

    run(scenario())


def test_logs_are_framed_unless_there_is_a_terminal():
    got, engine = asked("GET", "/containers/web/logs?stdout=1&stderr=true&tail=5&since=1.5&until=0")
    assert got.body == b"\1\0\0\0\0\0\0\4one\n\2\0\0\0\0\0\0\4two\n"
    assert got.headers["content-type"] == "application/vnd.docker.multiplexed-stream"
    wanted = engine.calls[0][2]
    assert (wanted.tail, wanted.since_ns, wanted.until_ns, wanted.follow) == (5, 1_500_000_000, 0, False)
    got, engine = asked("GET", "/containers/term/logs?stdout=1&tail=all&timestamps=1")
    assert got.body == b"2026-01-02T03:04:05.500000000Z one\n2026-01-02T03:04:05.600000000Z two\n"
    assert got.headers["content-type"] == "application/vnd.docker.raw-stream"
    assert engine.calls[0][2].tail is None


def test_logs_show_their_details_behind_the_time_and_a_space_without_any():
    got, _ = asked("GET", "/containers/term/logs?stdout=1&details=1&timestamps=1")
    assert got.body == b"2026-01-02T03:04:05.500000000Z  one\n2026-01-02T03:04:05.600000000Z a=1,b=x+y two\n"


def test_logs_want_a_stream_and_a_container():
    assert asked("GET", "/containers/web/logs")[0].message == "Bad parameters: you must choose at least one stream"
    assert asked("GET", "/containers/absent/logs?stdout=1")[0].status == 404


def test_followed_logs_arrive_as_they_are_written():
    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services()) as path, await connect(path) as wire:
            await wire.send(request("GET", "/containers/term/logs?stdout=1&follow=1"))
            await wire.head()
            assert await wire.chunk() == b"one\n"
            assert await wire.chunk() == b"two\n"
            engine.more_logs.set()
            assert await wire.chunk() == b"three\n"
            assert await wire.chunk() == b""

    run(scenario())


def test_an_archive_that_breaks_is_cut_and_not_ended():
    async def scenario():
        async with serving(FakeEngine().services()) as path, await connect(path) as wire:
            await wire.send(request("GET", "/containers/web/export"))
            await wire.head()
            assert await wire.chunk() == b"tar"
            assert await wire.reader.read() == b""

    run(scenario())
    assert asked("GET", f"/containers/{ID}/export")[0].body == b"tarball"
    assert asked("GET", "/containers/absent/export")[0].status == 404


def test_archive_headers_tell_what_the_path_is():
    for method in ("HEAD", "GET"):
        got, _ = asked(method, "/containers/web/archive?path=/etc/motd")
        stat = json.loads(base64.b64decode(got.headers["x-docker-container-path-stat"]))
        assert stat["name"] == "motd"
    assert got.body == b"archive"
    assert asked("GET", "/containers/web/archive")[0].status == 400


def test_save_takes_names_from_path_and_query():
    assert asked("GET", "/images/get?names=a:b&names=c")[0].body == b"a:bc"
    assert asked("GET", "/images/x/y:z/get")[0].body == b"x/y:z"
    assert asked("GET", "/images/get")[0].status == 400
    assert asked("GET", "/images/absent/get")[0].status == 404


def test_commit_and_tag_make_references():
    _, engine = asked(
        "POST", "/commit?container=web&repo=r&tag=t&comment=c&author=a&pause=0&changes=CMD+x&changes=USER+y"
    )
    (_, ref, reference, author, message, pause, changes, config) = engine.calls[0]
    assert (ref, str(reference), author, message, pause) == ("web", "docker.io/library/r:t", "a", "c", False)
    assert (list(changes), config) == (["CMD x", "USER y"], None)
    _, engine = asked("POST", "/images/a:b/tag?repo=reg.io/c")
    assert engine.calls == [("tag", "a:b", "reg.io/c:latest")]
    assert asked("POST", "/images/a/tag?repo=c&tag=-bad")[0].status == 400
    assert asked("POST", "/images/a/tag")[0].status == 400


def test_import_reads_the_body():
    got, engine = asked("POST", "/images/create?fromSrc=-&repo=x&changes=CMD+a", b"tar")
    assert engine.loaded == b"tar"
    assert got.json == {"status": IMAGE}
    assert asked("POST", "/images/create?fromSrc=http://x/y.tar")[0].status == 501


def test_a_missing_verb_is_501_by_name():
    async def scenario():
        async with serving(FakeEngine().services(push=None, disk_usage=None)) as path:
            got = await ask(path, "POST", "/images/a/push")
            assert (got.status, got.message) == (501, "ImagePush is not served by Lamina yet")
            assert (await ask(path, "GET", "/system/df")).status == 501

    run(scenario())


def test_disk_usage_kinds():
    assert asked("GET", "/system/df?type=image&type=volume")[0].status == 200
    assert asked("GET", "/system/df?type=soup")[0].status == 400


def test_an_inner_fault_is_500_and_keeps_its_details_to_the_log(caplog):
    async def broken() -> dict:
        raise KeyError("secret detail")

    async def scenario():
        async with serving(FakeEngine().services(info=broken)) as path:
            got = await ask(path, "GET", "/info")
            assert got.status == 500
            assert "secret" not in got.message
            assert (await ask(path, "GET", "/_ping")).status == 200

    run(scenario())
    assert "secret detail" in caplog.text


def test_older_clients_see_older_bodies():
    def image_list(version: str) -> dict:
        return asked("GET", f"/v{version}/images/json")[0].json[0]

    assert "VirtualSize" not in image_list("1.44")
    assert image_list("1.43")["VirtualSize"] == 33
    assert image_list("1.43")["RepoTags"] == []
    assert image_list("1.42")["RepoTags"] == ["<none>:<none>"]
    info = asked("GET", "/v1.24/info")[0].json
    assert info["SecurityOptions"] == ["seccomp"]
    assert info["ExecutionDriver"] == "<not supported>"
    config = asked("GET", "/v1.49/images/a/json")[0].json["Config"]
    assert config["Hostname"] == ""
    assert "Hostname" not in asked("GET", "/v1.50/images/a/json")[0].json["Config"]


def test_events_are_told_as_they_happen_and_end_at_until():
    async def scenario():
        engine = FakeEngine()
        engine.events.publish("image", "pull", "a:b", {"name": "a:b"})
        async with serving(engine.services()) as path, await connect(path) as wire:
            await wire.send(request("GET", '/events?filters={"type":["container"]}'))
            await wire.head()
            engine.events.publish("image", "tag", IMAGE, {"name": "x"})
            engine.events.publish("container", "start", ID, {"image": "a:b", "name": "web"})
            event = json.loads(await wire.chunk())
            assert (event["status"], event["id"], event["from"]) == ("start", ID, "a:b")
            assert (event["Type"], event["Action"], event["scope"]) == ("container", "start", "local")
            assert event["Actor"] == {"ID": ID, "Attributes": {"image": "a:b", "name": "web"}}
            assert event["timeNano"] // 10**9 == event["time"]
            until = f"{event['time']}.{event['timeNano'] % 10**9:09d}"
            past = await ask(path, "GET", f"/events?since=0&until={until}")
            assert [json.loads(line)["Action"] for line in past.body.splitlines()] == ["pull", "tag", "start"]
            assert (await ask(path, "GET", '/events?filters={"soup":["x"]}')).status == 400
        assert engine.events.listeners == 0

    run(scenario())


def test_clients_before_1_42_prune_volumes_with_names_too():
    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services()) as path:
            for version in ("v1.41", "v1.42"):
                await ask(path, "POST", f"/{version}/volumes/prune")
            assert engine.calls == [("prune_volumes", {"all": ("true",)}), ("prune_volumes", {})]

    run(scenario())


def test_stats_go_on_unless_one_is_asked_for():
    async def scenario():
        engine = FakeEngine()
        async with serving(engine.services()) as path:
            answers = [
                await ask(path, "GET", f"{version}/containers/term/stats{query}")
                for version, query in (("", ""), ("", "?stream=0"), ("", "?stream=0&one-shot=1"))
            ]
            assert [len(answer.body.splitlines()) for answer in answers] == [2, 1, 1]
            assert [call[2:] for call in engine.calls] == [(True, False), (False, False), (False, True)]
            assert (await ask(path, "GET", "/containers/term/stats?one-shot=1")).status == 400

    run(scenario())
