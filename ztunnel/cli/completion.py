"""Print what makes a shell complete commands and options: `source <(ztunnel completion bash)`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_ZTUNNEL_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands and options.

    bash: source <(ztunnel completion bash), in ~/.bashrc. zsh: the same, in ~/.zshrc. fish: ztunnel
    completion fish > ~/.config/fish/completions/ztunnel.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "ztunnel", _VARIABLE).source())
