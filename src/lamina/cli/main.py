"""The `lamina` program: finds the command, imports its module alone, turns errors into words and exit codes."""

from __future__ import annotations

import os
import sys
from http.client import HTTPException
from importlib import import_module
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from lamina import __version__
from lamina.cli import exit_codes
from lamina.cli.client import DEFAULT_HOST, Client
from lamina.cli.grammar import plain_switches
from lamina.errors import LaminaError

_COMMANDS: dict[str, tuple[str, str]] = {
    "attach": ("streams", "Attach to a running container"),
    "commit": ("images", "Make an image from a container's changes"),
    "cp": ("copy", "Copy files between a container and this machine"),
    "create": ("run", "Create a container"),
    "diff": ("look", "Show what a container changed in its files"),
    "events": ("system", "Follow what happens in the engine"),
    "exec": ("streams", "Run a command in a running container"),
    "export": ("copy", "Write a container's whole tree as a tar archive"),
    "history": ("images", "Show the history of an image"),
    "images": ("images", "List images"),
    "import": ("archives", "Make an image from a tar archive"),
    "info": ("system", "Show what this engine is and has"),
    "inspect": ("look", "Show everything about containers, images, volumes, networks"),
    "kill": ("lifecycle", "Signal containers"),
    "load": ("archives", "Load images from an archive"),
    "logs": ("streams", "Show what a container wrote"),
    "pause": ("lifecycle", "Freeze the processes of containers"),
    "port": ("look", "List the published ports of a container"),
    "ps": ("containers", "List containers"),
    "pull": ("transfer", "Bring an image from a registry"),
    "push": ("transfer", "Send an image to a registry"),
    "rename": ("lifecycle", "Rename a container"),
    "restart": ("lifecycle", "Restart containers"),
    "rm": ("lifecycle", "Remove containers"),
    "rmi": ("images", "Remove images"),
    "run": ("run", "Create a container and run it"),
    "save": ("archives", "Write images as an archive"),
    "start": ("streams", "Start containers"),
    "stop": ("lifecycle", "Stop containers"),
    "tag": ("images", "Give an image another name"),
    "top": ("look", "List the processes of a container"),
    "unpause": ("lifecycle", "Let frozen containers go on"),
    "version": ("system", "Show the versions of client and engine"),
    "wait": ("lifecycle", "Wait until containers end, and print their exit codes"),
}
"""Commands at the top: name → module and one line of help."""

_GROUPS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "container": (
        "Containers",
        {
            **{
                name: (name, module)
                for name, (module, _) in _COMMANDS.items()
                if module in {"run", "streams", "lifecycle", "copy", "look", "containers"} and name != "ps"
            },
            "commit": ("commit", "images"),
            "ls": ("ps", "containers"),
            "list": ("ps", "containers"),
        },
    ),
    "image": (
        "Images",
        {
            **{name: (name, "images") for name in ("history", "tag")},
            **{name: (name, "transfer") for name in ("pull", "push")},
            **{name: (name, "archives") for name in ("save", "load", "import")},
            "ls": ("images", "images"),
            "list": ("images", "images"),
            "rm": ("rmi", "images"),
            "inspect": ("image inspect", "look"),
        },
    ),
    "volume": ("Volumes", {name: (name, "volumes") for name in ("ls", "inspect", "create", "rm")}),
    "network": ("Networks", {name: (name, "networks") for name in ("ls", "inspect")}),
    "system": (
        "The engine",
        {
            "df": ("df", "system"),
            "info": ("info", "system"),
            "events": ("events", "system"),
            "migrate": ("migrate", "migrate"),
        },
    ),
    "registry": ("An embedded registry", {"serve": ("serve", "registry")}),
}
"""Groups: name → help, and sub-command → (function, module)."""


def _load(name: str, module: str) -> click.Command:
    commands: dict[str, click.Command] = import_module(f"lamina.cli.commands.{module}").COMMANDS
    return commands[name]


class _Lazy(click.Group):
    """A group that imports the module of a command only when the command is called."""

    def __init__(self, table: dict[str, tuple[str, str]], **keywords: Any) -> None:
        super().__init__(**keywords)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted([*self._table, *self.commands])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._table:
            function, module = self._table[cmd_name]
            return _load(function, module)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, rest if command is None else plain_switches(command, rest)


class _Root(_Lazy):
    """The program itself; its help is written from the tables, so that showing it imports nothing."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Groups"):
            formatter.write_dl([(name, text) for name, (text, _) in _GROUPS.items()])
        with formatter.section("Commands"):
            formatter.write_dl(
                [*((name, text) for name, (_, text) in sorted(_COMMANDS.items())),
                 ("completion", "Print the completion script of a shell"), ("daemon", "Run the engine"),
                 ("unionfs", "Show several directories as one, as AUFS does")]
            )  # fmt: skip


def build() -> click.Group:
    """The whole grammar."""
    root = _Root(
        {name: (name, module) for name, (module, _) in _COMMANDS.items()}
        | {"completion": ("completion", "completion")},
        name="lamina",
        callback=_root,
        params=[
            click.Option(
                ["-H", "--host"], metavar="HOST", help=f"Where the engine listens.  [default: {DEFAULT_HOST}]"
            ),
            click.Option(["-v", "--version"], is_flag=True, help="Print the version."),
        ],
        help="Run containers, and see into them.\n\n\b\n  lamina run -it alpine\n  lamina ps -a\n  lamina logs -f web",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        invoke_without_command=True,
    )
    for name, (text, table) in _GROUPS.items():
        root.add_command(_Lazy(table, name=name, help=text, context_settings={"help_option_names": ["-h", "--help"]}))
    return root


@click.pass_context
def _root(ctx: click.Context, host: str | None, *, version: bool) -> None:
    if version:
        click.echo(f"Lamina version {__version__}")
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit()
    ctx.obj = Client(host or os.environ.get("LAMINA_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST, os.environ)


def main() -> None:
    """Run the client; ends the process."""
    try:
        status = build().main(standalone_mode=False, prog_name="lamina")
    except LaminaError as error:
        complain(error)
        status = exit_codes.of(error)
    except click.UsageError as error:
        status = misused(error)
    except click.exceptions.Exit as error:
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = 130
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    except (OSError, HTTPException) as error:
        complain(
            LaminaError(f"the connection to the daemon broke: {error}", hint="see whether it runs: lamina version")
        )
        status = 1
    sys.exit(status if isinstance(status, int) else 0)


def misused(error: click.UsageError) -> int:
    """Tell about a wrong command line; the exit code that docker has for it."""
    if isinstance(error, NoArgsIsHelpError):
        error.show()
        return 1
    where = error.ctx.command_path if error.ctx else "lamina"
    complain(LaminaError(error.format_message(), hint=f"See '{where} --help'."))
    wrong_option = isinstance(error, click.BadParameter | click.NoSuchOption | click.BadOptionUsage)
    return 125 if wrong_option and not isinstance(error, click.MissingParameter) else 1


def complain(error: LaminaError) -> None:
    """Say what went wrong, and what to try; nothing in it moves the terminal."""
    from lamina.cli.tables import harmless_lines

    click.echo(f"lamina: {harmless_lines(str(error))}", err=True)
    if error.hint:
        click.echo(f"  {harmless_lines(error.hint)}", err=True)
