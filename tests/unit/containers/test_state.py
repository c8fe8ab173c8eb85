import pytest

from lamina.containers.state import TABLE, Event, Status, advance
from lamina.errors import Conflict, NotModified

LEGAL = {
    ("created", "start"): "running",
    ("created", "start failed"): "created",
    ("created", "remove"): "removing",
    ("running", "pause"): "paused",
    ("running", "die"): "exited",
    ("running", "die to restart"): "restarting",
    ("paused", "unpause"): "running",
    ("paused", "die"): "exited",
    ("restarting", "start"): "running",
    ("restarting", "start failed"): "exited",
    ("restarting", "give up restart"): "exited",
    ("exited", "start"): "running",
    ("exited", "start failed"): "exited",
    ("exited", "remove"): "removing",
    ("removing", "remove failed"): "dead",
    ("dead", "remove"): "removing",
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("status", Status)
def test_every_move_is_either_in_the_contract_or_refused(status, event):
    expected = LEGAL.get((status.value, event.value))
    if expected is not None:
        assert advance(status, event, "web").value == expected
        return
    with pytest.raises((Conflict, NotModified)) as caught:
        advance(status, event, "web")
    assert "{" not in str(caught.value)


def test_every_status_has_a_row():
    assert set(TABLE) == set(Status)


def test_starting_what_runs_and_stopping_what_ended_is_not_modified():
    with pytest.raises(NotModified):
        advance(Status.RUNNING, Event.START, "web")
    with pytest.raises(NotModified):
        advance(Status.EXITED, Event.DIE, "web")


@pytest.mark.parametrize(
    ("status", "event", "words"),
    [
        (Status.PAUSED, Event.START, "cannot start a paused container, try unpause instead"),
        (Status.PAUSED, Event.PAUSE, "Container web is already paused"),
        (Status.EXITED, Event.PAUSE, "Container web is not running"),
        (Status.RUNNING, Event.UNPAUSE, "Container web is not paused"),
        (Status.REMOVING, Event.REMOVE, "removal of container web is already in progress"),
    ],
)
def test_refusals_say_what_docker_says(status, event, words):
    with pytest.raises(Conflict, match=f"^{words}$"):
        advance(status, event, "web")
