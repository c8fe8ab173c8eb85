import pytest

from lamina.wire.engine.containers import (
    ContainerView,
    MountView,
    Sizes,
    StateView,
    command_line,
    encode_inspect,
    encode_summary,
    epoch_ns,
    human_duration,
    network_settings,
    status_text,
)

S = 1_000_000_000
NOW = epoch_ns("2026-01-02T00:00:00Z")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (119, "About a minute"),
        (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"), (5399, "About an hour"), (5400, "2 hours"),
        (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (14 * 86400, "2 weeks"), (60 * 86400, "2 months"),
        (730 * 86400, "2 years"), (-5, "Less than a second"),
    ],
)  # fmt: skip
def test_spans_are_told_as_docker_tells_them(seconds, words):
    assert human_duration(seconds * S) == words


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (StateView(status="created"), "Created"),
        (StateView(status="running", started_at="2026-01-01T23:59:57Z"), "Up 3 seconds"),
        (StateView(status="paused", started_at="2026-01-01T23:59:57Z"), "Up 3 seconds (Paused)"),
        (StateView(status="exited", exit_code=3, finished_at="2026-01-01T23:55:00Z"), "Exited (3) 5 minutes ago"),
        (
            StateView(status="restarting", exit_code=1, finished_at="2026-01-01T23:59:58Z"),
            "Restarting (1) 2 seconds ago",
        ),
        (StateView(status="dead"), "Dead"),
        (StateView(status="removing"), "Removal In Progress"),
        (
            StateView(status="running", started_at="2026-01-01T23:59:57Z", health={"Status": "starting"}),
            "Up 3 seconds (health: starting)",
        ),
    ],
)
def test_states_are_told_as_docker_tells_them(state, words):
    assert status_text(state, NOW) == words


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("1970-01-01T00:00:01Z", S),
        ("1970-01-01T00:00:01.5Z", S + S // 2),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
    ],
)
def test_times_are_read(stamp, expected):
    assert epoch_ns(stamp) == expected


@pytest.mark.parametrize("stamp", ["", "yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00Z"])
def test_what_is_no_time_is_long_ago(stamp):
    assert epoch_ns(stamp) < 0


def test_arguments_with_blanks_are_quoted():
    assert command_line("sh", ["-c", "echo hi"]) == "sh -c 'echo hi'"


def view(**more) -> ContainerView:
    values = {
        "id": "a" * 64, "name": "web", "created": "2026-01-01T00:00:00.5Z", "path": "sh", "args": [],
        "state": StateView(status="created"), "image": "busybox", "image_id": "sha256:x", "config": {"Cmd": ["sh"]},
        "host_config": {"NetworkMode": "bridge"}, "network_settings": {}, "labels": {"k": "v"}, "network_mode": "bridge",
    }  # fmt: skip
    return ContainerView(**(values | more))


def test_a_list_entry_has_dockers_keys_in_order():
    mount = MountView(type="volume", source="/v", destination="/d", rw=True, name="n", driver="local", mode="z")
    found = encode_summary(view(sizes=Sizes(5, 9), mounts=[mount]), NOW)
    assert list(found) == [
        "Id", "Names", "Image", "ImageID", "Command", "Created", "Ports", "SizeRw", "SizeRootFs", "Labels", "State",
        "Status", "HostConfig", "NetworkSettings", "Mounts",
    ]  # fmt: skip
    assert found["Created"] == 1767225600
    assert found["Mounts"] == [
        {"Type": "volume", "Name": "n", "Source": "/v", "Destination": "/d", "Driver": "local", "Mode": "z", "RW": True,
         "Propagation": ""},
    ]  # fmt: skip


def test_inspect_has_sizes_and_health_only_when_there_are_any():
    found = encode_inspect(view())
    assert "SizeRw" not in found
    assert "Health" not in found["State"]
    assert found["ExecIDs"] is None
    found = encode_inspect(
        view(sizes=Sizes(0, 9), exec_ids=["e"], state=StateView(status="running", health={"Status": "x"}))
    )
    assert (found["SizeRw"], found["ExecIDs"], found["State"]["Running"]) == (0, ["e"], True)
    assert found["State"]["Health"] == {"Status": "x"}


def test_settings_that_dockerd_kept_come_out_in_the_apis_shape():
    kept = {
        "Ports": None, "Service": None, "IsAnonymousEndpoint": False,
        "Networks": {"bridge": {"IPAddress": "172.17.0.2", "IPPrefixLen": 16, "IPAMOperational": False}},
    }  # fmt: skip
    found = network_settings(kept)
    assert (found["IPAddress"], found["IPPrefixLen"], found["Ports"]) == ("172.17.0.2", 16, {})
    assert found["Networks"] == {"bridge": {"IPAddress": "172.17.0.2", "IPPrefixLen": 16}}
    assert "Service" not in found
