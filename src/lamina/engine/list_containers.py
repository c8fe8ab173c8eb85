"""List containers (async).

Source: moby daemon/list.go; Engine API, ContainerList.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from lamina.clock import Clock
from lamina.containers.record import Container
from lamina.containers.state import Status
from lamina.containers.store import ContainerStore
from lamina.engine.container_view import ContainerViews
from lamina.errors import InvalidArgument, LaminaError
from lamina.images.lookup import ImageLookup
from lamina.images.store import ImageStore
from lamina.jsonvalue import JsonObject, boolean, mapping, string_map, text
from lamina.oci.digest import ImageId
from lamina.wire.engine.containers import encode_summary, epoch_ns
from lamina.wire.engine.filters import Filters, check_names
from lamina.workers import Workers

FILTERS = frozenset(
    {
        "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
        "publish", "since", "status", "volume",
    }
)  # fmt: skip
_HEALTH = {"starting", "healthy", "unhealthy", "none"}
_MAX_PATTERN = 512
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")


@dataclass(frozen=True, slots=True)
class ListContainers:
    """Containers, newest first."""

    containers: ContainerStore
    views: ContainerViews
    images: ImageStore
    lookup: ImageLookup
    workers: Workers
    clock: Clock

    async def __call__(
        self,
        *,
        all: bool = False,  # noqa: A002 - Docker's word
        limit: int = 0,
        size: bool = False,
        filters: Filters | None = None,
    ) -> list[JsonObject]:
        """Docker's `ContainerSummary` of each that fits. Only running ones, unless `all`, `limit` or a status is given.

        Raises:
            InvalidArgument: a filter or one of its values that nothing understands.
            NoSuchContainer: `before` or `since` names none.
        """
        wanted = filters or {}
        check_names(wanted, FILTERS)
        return await self.workers.call(self._list, wanted, include_ended=all or limit > 0, limit=limit, size=size)

    def _list(self, filters: Filters, *, include_ended: bool, limit: int, size: bool) -> list[JsonObject]:
        chosen = _Choice(filters, self._ancestors(filters), include_ended=include_ended)
        now_ns = self.clock.now_ns()
        found: list[JsonObject] = []
        for container in self._span(filters):
            if not chosen.fits(container):
                continue
            if 0 < limit <= len(found):
                break
            found.append(encode_summary(self.views.view(container, size=size), now_ns))
        return found

    def _span(self, filters: Filters) -> list[Container]:
        """Newest first, cut to what is older than `before` and newer than `since`."""
        found = sorted(self.containers.all(), key=lambda one: (epoch_ns(one.created), one.id), reverse=True)
        for ref in filters.get("before", ()):
            edge = self.containers.resolve(ref)
            found = found[found.index(edge) + 1 :] if edge in found else []
        for ref in filters.get("since", ()):
            edge = self.containers.resolve(ref)
            found = found[: found.index(edge)] if edge in found else []
        return found

    def _ancestors(self, filters: Filters) -> set[ImageId] | None:
        """The images named by `ancestor` and everything built on them; None without that filter."""
        if "ancestor" not in filters:
            return None
        found: set[ImageId] = set()
        for name in filters["ancestor"]:
            try:
                waiting = [self.lookup.find(name)]
            except LaminaError:
                continue  # no such image: nothing stands on it
            while waiting:
                image = waiting.pop()
                if image not in found:
                    found.add(image)
                    waiting.extend(self.images.children(image))
        return found


class _Choice:
    """The filters, understood once."""

    def __init__(self, filters: Filters, ancestors: Collection[ImageId] | None, *, include_ended: bool) -> None:
        self._filters = filters
        self._ancestors = ancestors
        self._statuses = _known(filters, "status", {status.value for status in Status})
        self._healths = _known(filters, "health", _HEALTH)
        self._exit_codes = [_exit_code(code) for code in filters.get("exited", ())]
        self._tasks = _known(filters, "is-task", {"true", "false", "1", "0", "True", "False"})
        self._exposed = [_ports(given) for given in filters.get("expose", ())]
        self._published = [_ports(given) for given in filters.get("publish", ())]
        self._include_ended = include_ended or bool(self._statuses) or bool(self._exit_codes)

    def fits(self, container: Container) -> bool:
        status = container.state.status
        if not self._include_ended and not (status.has_process or status is Status.RESTARTING):
            return False
        return (
            self._fits_identity(container)
            and self._fits_state(container)
            and self._fits_labels(container)
            and self._fits_surroundings(container)
        )

    def _fits_identity(self, container: Container) -> bool:
        names = self._filters.get("name", ())
        if names and not any(_matches(name, f"/{container.name}") or _matches(name, container.name) for name in names):
            return False
        ids = self._filters.get("id", ())
        if ids and not any(_matches(wanted, container.id) for wanted in ids):
            return False
        return self._ancestors is None or container.image_id in self._ancestors

    def _fits_state(self, container: Container) -> bool:
        state = container.state
        if self._statuses and state.status.value not in self._statuses:
            return False
        if self._exit_codes and (state.status is not Status.EXITED or state.exit_code not in self._exit_codes):
            return False
        if self._tasks and not self._tasks & {"false", "0", "False"}:
            return False
        return not self._healths or _health(container) in self._healths

    def _fits_labels(self, container: Container) -> bool:
        labels = string_map(container.config, "Labels")
        for wanted in self._filters.get("label", ()):
            key, separator, value = wanted.partition("=")
            if key not in labels or (separator and labels[key] != value):
                return False
        return True

    def _fits_surroundings(self, container: Container) -> bool:
        volumes = self._filters.get("volume", ())
        if volumes:
            known = {mount.name for mount in container.mounts.values()} | set(container.mounts)
            known |= {mount.source for mount in container.mounts.values()}
            if not known & set(volumes):
                return False
        networks = self._filters.get("network", ())
        if networks and not _networks(container) & set(networks):
            return False
        if self._exposed and not _any_port(mapping(container.config, "ExposedPorts"), self._exposed):
            return False
        return not self._published or _any_port(_live_ports(container), self._published)


def _matches(pattern: str, given: str) -> bool:
    """Docker searches names and ids for a regular expression; one that cannot be read fits only itself."""
    if pattern == given:
        return True
    try:
        return len(pattern) <= _MAX_PATTERN and re.search(pattern, given) is not None
    except re.error:
        return False


def _known(filters: Filters, name: str, values: Collection[str]) -> frozenset[str]:
    for value in filters.get(name, ()):
        if value not in values:
            raise InvalidArgument(f"invalid filter '{name}={value[:80]}'")
    return frozenset(filters.get(name, ()))


def _exit_code(given: str) -> int:
    try:
        return int(given)
    except ValueError as error:
        raise InvalidArgument(f"invalid filter 'exited={given[:80]}'") from error


def _health(container: Container) -> str:
    health = container.state.health
    status = text(health, "Status") if isinstance(health, dict) else ""
    return status or "none"


def _networks(container: Container) -> set[str]:
    found: set[str] = set()
    networks = mapping(container.network_settings, "Networks")
    for name in networks:
        found |= {name, text(mapping(networks, name), "NetworkID")}
    return found - {""}


def _ports(given: str) -> tuple[int, int, str]:
    match = _PORTS.fullmatch(given)
    if match is None:
        raise InvalidArgument(f"invalid port specification: {given[:80]}")
    first = int(match[1])
    return first, int(match[2] or first), match[3] or "tcp"


def _any_port(ports: Collection[str], wanted: list[tuple[int, int, str]]) -> bool:
    for port in ports:
        number, _, protocol = port.partition("/")
        for first, last, kind in wanted:
            if number.isdecimal() and first <= int(number) <= last and (protocol or "tcp") == kind:
                return True
    return False


def _live_ports(container: Container) -> Collection[str]:
    """The container's ports that are reached through the host: asked for by number, or all exposed ones."""
    ports = {port for port, hosts in mapping(container.host_config, "PortBindings").items() if hosts}
    if boolean(container.host_config, "PublishAllPorts"):
        ports |= set(mapping(container.config, "ExposedPorts"))
    return ports
