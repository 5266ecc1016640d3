"""`lakewriter completion`, which prints the script that completes command lines in a shell."""

from lakewriter.cli import COMPLETE_VARIABLE, cli
from lakewriter.cli.completion import SHELLS
from lakewriter.cli.terminal import ignore_broken_pipe, standard_output


def run(shell: str) -> None:
    """Print the script."""
    script = SHELLS[shell](cli, {}, "lakewriter", COMPLETE_VARIABLE)
    source = script.source_template % script.source_vars()  # `source` would run bash for its version
    with ignore_broken_pipe(), standard_output() as out:
        out.write(source.encode())
