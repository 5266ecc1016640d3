"""`lakewriter completion`, which prints the script that completes command lines in a shell."""

from typing import Any

import click

from lakewriter.cli import run_command
from lakewriter.cli.completion import SHELLS


@click.command(name="completion", short_help="Print a script for completion in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(tuple(SHELLS)))
def command(**options: Any) -> None:
    """Print a script for completion in a shell: bash, zsh or fish.

    It completes commands, options, subscriptions (markets, symbols of the lake,
    intervals) and the names of saved queries. Load it at the start of each shell:

    \b
    bash:  echo 'source <(lakewriter completion bash)' >> ~/.bashrc
    zsh:   echo 'source <(lakewriter completion zsh)' >> ~/.zshrc   (after compinit)
    fish:  lakewriter completion fish > ~/.config/fish/completions/lakewriter.fish

    \b
    lakewriter completion bash
    """
    run_command("completion", options)
