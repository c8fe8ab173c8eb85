"""What follows from the journal, made so: by a daemon that starts, and before every step of a migration (blocking)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lamina.migration.journal import Journal, Stage, read_journal
from lamina.migration.records import set_driver


def settle(root: Path) -> Journal | None:
    """Let the containers' records name the driver that the journal names; a crash may have come between.

    The data root must be this process's. Returns the journal, None when there is no migration.
    """
    journal = read_journal(root)
    if journal is not None and journal.stage is not Stage.COPYING:
        set_driver(root, journal.containers, journal.driver)
    return journal


def settle_for_daemon(root: Path) -> list[str]:
    """The same for a daemon that is about to use the data root; what its log should say.

    It may write to the old store of a migration that has not come to its end: copies of writable layers count no more.
    """
    journal = settle(root)
    if journal is None:
        return []
    again = f"lamina system migrate --data-root {root}"
    match journal.stage:
        case Stage.COPYING:
            if not journal.stale:
                replace(journal, stale=True).write(root)
            text = (
                f"a migration from {journal.source} to {journal.target} was not finished; {root} stays with "
                f"{journal.source} meanwhile. Go on with: {again} --to {journal.target}; or give it up: "
                f"{again} --rollback"
            )
        case Stage.SWITCHED:
            text = (
                f"{root} was moved from {journal.source} to {journal.target}, and the old store is still there. "
                f"When everything works: {again} --confirm; to go back: {again} --rollback"
            )
        case Stage.CONFIRMING:
            text = f"the old store of {journal.source} is not wholly removed: {again} --confirm"
        case _:
            text = f"the store of {journal.target} is not wholly removed: {again} --rollback"
    return [text]
