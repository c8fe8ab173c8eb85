import pytest

from lamina.engine.merge_config import merge_config

BELOW = {
    "User": "u",
    "WorkingDir": "/w",
    "Cmd": ["c"],
    "Entrypoint": ["e"],
    "Env": ["A=1", "B=2"],
    "Labels": {"x": "1"},
}


def test_what_is_left_open_comes_from_below():
    found = merge_config({}, BELOW)
    assert (found["User"], found["WorkingDir"], found["Cmd"], found["Entrypoint"]) == ("u", "/w", ["c"], ["e"])
    assert found["Env"] == ["A=1", "B=2"]
    assert found["Labels"] == {"x": "1"}


def test_own_values_win():
    found = merge_config({"User": "me", "Env": ["B=9"], "Labels": {"x": "2", "y": "3"}}, BELOW)
    assert found["User"] == "me"
    assert found["Env"] == ["B=9", "A=1"]
    assert found["Labels"] == {"x": "2", "y": "3"}


@pytest.mark.parametrize(
    ("own", "cmd", "entrypoint"),
    [
        ({}, ["c"], ["e"]),
        ({"Cmd": ["mine"]}, ["mine"], ["e"]),
        ({"Entrypoint": ["mine"]}, None, ["mine"]),
        ({"Entrypoint": ["mine"], "Cmd": ["too"]}, ["too"], ["mine"]),
        ({"Entrypoint": []}, ["c"], []),
        ({"Entrypoint": [""]}, None, [""]),
    ],
)
def test_an_own_entrypoint_never_gets_the_command_below(own, cmd, entrypoint):
    found = merge_config(own, BELOW)
    assert (found.get("Cmd"), found.get("Entrypoint")) == (cmd, entrypoint)


def test_ports_and_volumes_are_united_and_labels_are_never_null():
    found = merge_config({"Volumes": {"/a": {}}}, {"Volumes": {"/b": {}}, "ExposedPorts": {"1/tcp": {}}})
    assert set(found["Volumes"]) == {"/a", "/b"}
    assert found["ExposedPorts"] == {"1/tcp": {}}
    assert found["Labels"] == {}


def test_a_health_check_is_completed_field_by_field():
    below = {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 5, "Retries": 2}}
    assert merge_config({}, below)["Healthcheck"] == below["Healthcheck"]
    found = merge_config({"Healthcheck": {"Interval": 9}}, below)["Healthcheck"]
    assert found == {"Test": ["CMD", "x"], "Interval": 9, "Retries": 2}


def test_the_rest_is_never_taken_over_and_nothing_is_changed():
    below = {"Hostname": "h", "Tty": True, "OnBuild": ["x"], "Shell": ["s"]}
    own: dict = {}
    found = merge_config(own, below)
    assert not {"Hostname", "Tty", "OnBuild", "Shell"} & set(found)
    assert own == {}
