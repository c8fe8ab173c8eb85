"""What a run writes, carried into its log until the run has ended (async)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from lamina.containers import launching
from lamina.containers.logfile import JournalPump
from lamina.containers.record import Container
from lamina.containers.runs import JournalWatch, Run
from lamina.workers import Workers

_LOG = logging.getLogger(__name__)

_TOO_FAR_BEHIND_BYTES = 32 << 20
_NEAR_ENOUGH_BYTES = 8 << 20
"""A container that writes faster than its log can be written waits, as for any full pipe, or it would fill the disk."""


@dataclass(frozen=True, slots=True)
class Output:
    """Carries the output of every run; one watch over all journals."""

    workers: Workers
    _watch: JournalWatch = field(default_factory=JournalWatch)

    async def carry(self, container: Container, run: Run, pump: JournalPump | None) -> None:
        """Until the end of the run. Trouble with its output must not hide the end from who waits for it."""
        try:
            if pump is None:
                await run.pass_on()
            else:
                await self._drain(run, pump)
        except Exception:  # noqa: BLE001
            _LOG.exception("the output of container %s can no longer be carried", container.id[:12])
            await run.wait_ended()

    async def _drain(self, run: Run, pump: JournalPump) -> None:
        watch = self._watch.watch(pump.journal, run.growth)
        run.hold_up(held=False)  # a daemon that was killed may have left it so
        try:
            while True:
                seen, ended = run.growth.count, run.ended
                if await self.workers.call(launching.advance, pump):
                    run.logged.happened()
                    _keep_in_step(run, pump)
                    mark = pump.mark()
                    if mark is not None and run.may_begin_at(mark):
                        await self.workers.call(pump.free_before, mark)
                    continue
                if ended:
                    return
                await run.growth.after(seen)
        finally:
            run.hold_up(held=False)
            self._watch.unwatch(watch)

    def close(self) -> None:
        self._watch.close()


def _keep_in_step(run: Run, pump: JournalPump) -> None:
    behind = pump.backlog_bytes
    if behind > _TOO_FAR_BEHIND_BYTES:
        run.hold_up(held=True)
    elif behind < _NEAR_ENOUGH_BYTES:
        run.hold_up(held=False)
