"""`velaria completion`: the script that teaches a shell our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from velaria.cli.options import reporting_options


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@reporting_options
def command(shell: str) -> None:
    """Print the script that completes velaria's commands, options and files.

    \b
    velaria completion bash >> ~/.bashrc
    velaria completion zsh >> ~/.zshrc
    velaria completion fish > ~/.config/fish/completions/velaria.fish
    """
    from velaria.cli.program import COMPLETE_VARIABLE, NAME, program

    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells of the choice"
    click.echo(kind(program, {}, NAME, COMPLETE_VARIABLE).source())
