"""The lifecycle of a container as a table (pure).

Rules for editors: a new move is one row entry in `TABLE`; what is not in the table is refused, and `_REFUSALS` holds
the words for refusals that clients or people rely on. Source: moby container/state.go, daemon/{start,pause,delete}.go.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType

from lamina.errors import Conflict, LaminaError, NotModified


class Status(Enum):
    """What `docker ps` and `State.Status` show."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"

    @property
    def has_process(self) -> bool:
        """Whether a process of the container may exist (Docker's `State.Running` minus the wait between restarts)."""
        return self in {Status.RUNNING, Status.PAUSED}


class Event(Enum):
    """What can happen to a container."""

    START = "start"
    START_FAILED = "start failed"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    DIE = "die"
    DIE_TO_RESTART = "die to restart"
    GIVE_UP_RESTART = "give up restart"
    REMOVE = "remove"
    REMOVE_FAILED = "remove failed"


TABLE: MappingProxyType[Status, MappingProxyType[Event, Status]] = MappingProxyType(
    {
        Status.CREATED: MappingProxyType(
            {Event.START: Status.RUNNING, Event.START_FAILED: Status.CREATED, Event.REMOVE: Status.REMOVING}
        ),
        Status.RUNNING: MappingProxyType(
            {Event.PAUSE: Status.PAUSED, Event.DIE: Status.EXITED, Event.DIE_TO_RESTART: Status.RESTARTING}
        ),
        Status.PAUSED: MappingProxyType({Event.UNPAUSE: Status.RUNNING, Event.DIE: Status.EXITED}),
        Status.RESTARTING: MappingProxyType(
            {
                Event.START: Status.RUNNING,
                Event.START_FAILED: Status.EXITED,
                Event.GIVE_UP_RESTART: Status.EXITED,
            }
        ),
        Status.EXITED: MappingProxyType(
            {Event.START: Status.RUNNING, Event.START_FAILED: Status.EXITED, Event.REMOVE: Status.REMOVING}
        ),
        Status.REMOVING: MappingProxyType({Event.REMOVE_FAILED: Status.DEAD}),
        Status.DEAD: MappingProxyType({Event.REMOVE: Status.REMOVING}),
    }
)


def advance(status: Status, event: Event, name: str) -> Status:
    """The state after `event`; `name` (a container's id or name) is for the words of a refusal.

    Raises:
        NotModified: it already is as asked (START of a running one, DIE of one that is not running).
        Conflict: the move makes no sense in this state.
    """
    following = TABLE[status].get(event)
    if following is not None:
        return following
    raise refusal(status, event, name)


def refusal(status: Status, event: Event, name: str) -> LaminaError:
    """The error for a move that the table does not have."""
    if event is Event.START and status is Status.RUNNING:
        return NotModified(f"container {name} is already started")
    if event in {Event.DIE, Event.GIVE_UP_RESTART} and status in {Status.CREATED, Status.EXITED}:
        return NotModified(f"container {name} is already stopped")
    words = _REFUSALS.get((status, event)) or _BY_EVENT.get(event) or f"cannot {event.value} a {status.value} container"
    return Conflict(words.replace("{name}", name).replace("{status}", status.value))


_REFUSALS = {
    (Status.PAUSED, Event.START): "cannot start a paused container, try unpause instead",
    (Status.REMOVING, Event.START): "container is marked for removal and cannot be started",
    (Status.DEAD, Event.START): "container is marked for removal and cannot be started",
    (Status.PAUSED, Event.PAUSE): "Container {name} is already paused",
    (Status.RESTARTING, Event.PAUSE): "Container {name} is restarting, wait until the container is running",
    (Status.RESTARTING, Event.UNPAUSE): "Container {name} is not paused",
    (Status.REMOVING, Event.REMOVE): "removal of container {name} is already in progress",
    (Status.PAUSED, Event.REMOVE): (
        "You cannot remove a paused container {name}. Unpause and then stop the container before attempting removal "
        "or force remove"
    ),
    (Status.RUNNING, Event.REMOVE): (
        "You cannot remove a running container {name}. Stop the container before attempting removal or force remove"
    ),
    (Status.RESTARTING, Event.REMOVE): (
        "You cannot remove a restarting container {name}. Stop the container before attempting removal or force remove"
    ),
}
_BY_EVENT = {
    Event.PAUSE: "Container {name} is not running",
    Event.UNPAUSE: "Container {name} is not paused",
    Event.DIE: "Container {name} is {status}",
}
