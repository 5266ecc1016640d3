"""`lakewriter completion`, which prints the script that completes command lines in a shell."""

import click

from lakewriter.cli import COMPLETE_VARIABLE, cli
from lakewriter.cli.completion import SHELLS
from lakewriter.cli.terminal import ignore_broken_pipe, standard_output


@click.command(name="completion", short_help="Print a script for completion in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(tuple(SHELLS)))
def command(shell: str) -> None:
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
    script = SHELLS[shell](cli, {}, "lakewriter", COMPLETE_VARIABLE)
    source = script.source_template % script.source_vars()  # `source` would run bash for its version
    with ignore_broken_pipe(), standard_output() as out:
        out.write(source.encode())
