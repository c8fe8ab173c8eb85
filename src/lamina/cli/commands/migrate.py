"""`system migrate`: a data root from one storage driver to another, carried out by this process itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli import tables
from lamina.cli.client import Client
from lamina.errors import Conflict, InvalidArgument, LaminaError, PermissionDenied
from lamina.jsonvalue import parse_object, strings, text

if TYPE_CHECKING:
    from lamina.migration.move import Moved, Wish

_CONFIG_FILE = Path("/etc/lamina/daemon.json")
_DATA_ROOT = Path("/var/lib/lamina")
_LOAN_S = 60.0


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the daemon of this machine is told in its file, as far as it matters here."""

    data_root: Path
    storage_driver: str
    storage_opts: tuple[str, ...]


@click.command("migrate")
@click.option("--to", "target", metavar="DRIVER", help="overlay2, aufs, btrfs, devicemapper, vfs or zfs.")
@click.option("--from", "source", metavar="DRIVER", help="Only where the data root has state of several drivers.")
@click.option("--data-root", metavar="DIR", help="[default: data-root of the configuration file, /var/lib/lamina]")
@click.option("--config-file", metavar="FILE", help="The daemon's.  [default: /etc/lamina/daemon.json]")
@click.option("--storage-opt", "storage_opts", multiple=True, metavar="KEY=VALUE", help="Of either driver; repeatable.")
@click.option("--dry-run", is_flag=True, help="Tell what would be copied and how much room that takes; write nothing.")
@click.option("--confirm", is_flag=True, help="Everything works: remove the old store for ever.")
@click.option("--rollback", is_flag=True, help="Return to the old store and remove the new one.")
@click.option("--force", is_flag=True, help="Leave behind what the new driver cannot hold; with --rollback: lose what "
              "was written since.")  # fmt: skip
@click.pass_obj
def migrate(client: Client, /, storage_opts: tuple[str, ...], config_file: str | None, **given: Any) -> None:
    """Move images, containers and what they wrote to another storage driver.

    \b
    lamina system migrate --to btrfs --dry-run
    lamina system migrate --to btrfs
    lamina system migrate --confirm
    """
    if sum((given["target"] is not None, given["confirm"], given["rollback"])) != 1:
        raise InvalidArgument("what is to be done?", hint="one of --to DRIVER, --confirm, --rollback")
    if os.geteuid() != 0:
        raise PermissionDenied("moving a data root takes root", hint="sudo lamina system migrate …")
    try:
        _carry_out(client, storage_opts, config_file, given)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise LaminaError(
            f"the file system failed:{where}: {error.strerror or error}",
            hint="nothing is lost: the same command goes on where it was",
        ) from error


def _carry_out(client: Client, storage_opts: Sequence[str], config_file: str | None, given: dict[str, Any]) -> None:
    settings = _settings(config_file)
    root = Path(given["data_root"] or settings.data_root).absolute()
    options = _options([*settings.storage_opts, *storage_opts])
    os.umask(0o022)
    if given["target"] is None:
        if given["rollback"]:
            _borrow(client, root, _driver_before(root))
        _end(root, options, confirm=given["confirm"], force=given["force"])
        return
    from lamina.migration.move import Wish

    source = given["source"] or settings.storage_driver
    wish = Wish(root, given["target"], source, options, force=given["force"])
    _borrow(client, root, "" if given["dry_run"] else wish.target)
    if given["dry_run"]:
        _plan(wish)
    else:
        _move(wish, settings)


def _borrow(client: Client, root: Path, driver: str) -> None:
    """Let the daemon that has the data root, if there is one, close until this process ends.

    Raises:
        LaminaError: it refuses, and says why. Conflict: it does not let go.
    """
    from lamina.migration.stores import owned_within

    if not os.access(root / "volumes/metadata.db", os.F_OK) or owned_within(root, 0):
        return
    try:
        found = client.call("GET", "/info")
        if os.path.realpath(found["DockerRootDir"]) != os.path.realpath(root):
            return  # another daemon has it: what comes next says so
    except (LaminaError, OSError):
        return
    client.call("POST", "/lamina/data-root/lend", query={"pid": os.getpid(), "driver": driver})
    click.echo(f"the daemon on {root} waits until this is done", err=True)
    if not owned_within(root, _LOAN_S):
        raise Conflict(f"the daemon on {root} does not let go of it", hint="stop it, and try again")


def _driver_before(root: Path) -> str:
    """The driver that a rollback returns to, "" when there is nothing to return to."""
    from lamina.migration.journal import read_journal

    journal = read_journal(root)
    return journal.source if journal is not None else ""


def _plan(wish: Wish) -> None:
    from lamina.migration.move import plan

    source, need, warnings = plan(wish)
    rows = [
        ("", "COUNT", "BYTES"),
        ("image layers", str(need.layers), tables.size(need.layer_bytes)),
        ("containers", str(need.containers), tables.size(need.container_bytes)),
    ]
    click.echo(f"{wish.root}: {source} to {wish.target}")
    for name, count, size in rows:
        click.echo(f"{name:<14}{count:>7}  {size:>9}")
    click.echo(f"expected on disk: {tables.size(need.disk_bytes)}")
    click.echo("free there:       " + ("not known" if need.free_bytes is None else tables.size(need.free_bytes)))
    _warn(warnings)
    need.check(wish.root, wish.target)
    click.echo("Nothing was changed.")


def _move(wish: Wish, settings: _Settings) -> None:
    from lamina.cli.migration_progress import watching
    from lamina.migration.move import migrate as carry_out

    with watching(sys.stderr) as progress:
        moved = carry_out(wish, progress)
    _warn(moved.warnings)
    for line in _told(moved, wish, settings):
        click.echo(line)


def _told(moved: Moved, wish: Wish, settings: _Settings) -> list[str]:
    again = f"lamina system migrate --data-root {wish.root}"
    found = f" ({moved.layers_found} more had been copied before)" if moved.layers_found else ""
    done = (
        f"{wish.root} was moved from {moved.source} to {moved.target} already."
        if moved.already
        else f"{wish.root} is moved from {moved.source} to {moved.target}: {moved.layers} layers{found}, "
        f"{moved.containers} containers, {moved.seconds:.1f} s."
    )
    lines = [done]
    if settings.storage_driver not in {"", moved.target}:
        lines.append(f"Before the daemon starts: its configuration says storage-driver {settings.storage_driver}.")
    lines.append(f"The old store is kept. When everything works: {again} --confirm")
    lines.append(f"To go back: {again} --rollback")
    return lines


def _end(root: Path, options: dict[str, str], *, confirm: bool, force: bool) -> None:
    from lamina.cli.migration_progress import watching
    from lamina.migration import ending

    with watching(sys.stderr) as progress:
        if confirm:
            journal = ending.confirm(root, options, progress)
            line = f"{root} has {journal.target} for good; the store of {journal.source} is removed."
        else:
            journal = ending.rollback(root, options, progress, force=force)
            line = f"{root} has {journal.source} again; the store of {journal.target} is removed."
    click.echo(line)


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {tables.harmless(warning)}", err=True)


def _settings(config_file: str | None) -> _Settings:
    place = Path(config_file) if config_file else _CONFIG_FILE
    try:
        data = place.read_bytes()
    except FileNotFoundError:
        if config_file:
            raise InvalidArgument(f"configuration file {place} does not exist") from None
        data = b""
    found = parse_object(data, what=str(place)) if data.strip() else {}
    return _Settings(
        Path(text(found, "data-root") or _DATA_ROOT),
        text(found, "storage-driver"),
        tuple(strings(found, "storage-opts")),
    )


def _options(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for option in given:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"storage option {option!r} is not of the form key=value")
        found[key.strip().lower()] = value.strip()
    return found


COMMANDS: dict[str, click.Command] = {"migrate": migrate}
