"""`completion`: the script that makes a shell complete `lamina`."""

from __future__ import annotations

import click

COMPLETE_VARIABLE = "_LAMINA_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    lamina completion bash > /etc/bash_completion.d/lamina
    lamina completion zsh > /usr/share/zsh/vendor-completions/_lamina
    lamina completion fish > ~/.config/fish/completions/lamina.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "lamina", COMPLETE_VARIABLE)
    click.echo(script.source_template % script.source_vars())


COMMANDS: dict[str, click.Command] = {"completion": completion}
