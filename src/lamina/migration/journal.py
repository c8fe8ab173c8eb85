"""What a migration has come to, kept in the data root by one durable write at each step (blocking).

    (nothing) ─▶ COPYING ─▶ SWITCHED ─▶ CONFIRMING ─▶ (only the driver's name)
                    │           │
                    └───────────┴─────▶ RETURNING ──▶ (only the driver's name)

The step from COPYING to SWITCHED is the one that moves the data root: the same write names the new driver. What has to
follow it (the driver in each container's record) can be done again by whoever finds the journal, a daemon that starts
or the next migration command.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from lamina.errors import CorruptRecord, InvalidArgument
from lamina.jsonvalue import JsonObject, boolean, from_strings, integer, strings, text
from lamina.storage.choice import Choice, drop_choice, read_choice, write_choice
from lamina.storage.select import prior_drivers


class Stage(Enum):
    """How far it is. In COPYING and RETURNING the data root belongs to the old driver, otherwise to the new one."""

    COPYING = "copying"
    SWITCHED = "switched"
    CONFIRMING = "confirming"
    RETURNING = "returning"


@dataclass(frozen=True, slots=True)
class Journal:
    """One migration.

    `filled` are the writable layers that are copied to the end. `stale`: a daemon has had the data root since, so what
    is in `filled` may have been written to. `containers` are those whose records the switch changes.
    """

    source: str
    target: str
    stage: Stage = Stage.COPYING
    filled: frozenset[str] = frozenset()
    containers: tuple[str, ...] = ()
    switched_ns: int = 0
    stale: bool = False

    @property
    def driver(self) -> str:
        """Which of the two has the data root."""
        return self.source if self.stage in {Stage.COPYING, Stage.RETURNING} else self.target

    @property
    def aside(self) -> str:
        """The other one."""
        return self.target if self.driver == self.source else self.source

    def write(self, root: Path) -> None:
        """Put it down; when this returns it is on disk."""
        details: JsonObject = {
            "stage": self.stage.value,
            "source": self.source,
            "target": self.target,
            "filled": from_strings(sorted(self.filled)),
            "containers": from_strings(self.containers),
            "switched": self.switched_ns,
            "stale": self.stale,
        }
        write_choice(root, Choice(self.driver, self.aside, details))

    def with_filled(self, name: str) -> Journal:
        return replace(self, filled=self.filled | {name})


def read_journal(root: Path) -> Journal | None:
    """The migration that is under way or waits for its confirmation; None when there is none.

    Raises:
        CorruptRecord: the file cannot be understood.
    """
    choice = read_choice(root)
    if choice is None or not choice.aside:
        return None
    try:
        journal = Journal(
            text(choice.details, "source"),
            text(choice.details, "target"),
            Stage(text(choice.details, "stage")),
            frozenset(strings(choice.details, "filled")),
            tuple(strings(choice.details, "containers")),
            integer(choice.details, "switched"),
            boolean(choice.details, "stale"),
        )
    except (InvalidArgument, ValueError) as error:
        raise CorruptRecord(f"the journal of the migration in {root} cannot be understood: {error}") from error
    if {journal.driver, journal.aside} != {choice.driver, choice.aside} or journal.driver != choice.driver:
        raise CorruptRecord(f"the journal of the migration in {root} contradicts itself")
    return journal


def end(root: Path, driver: str) -> None:
    """No migration any more: only which driver it is stays, and that only where nothing else would tell."""
    if prior_drivers(root) == [driver]:
        drop_choice(root)
    else:
        write_choice(root, Choice(driver))
