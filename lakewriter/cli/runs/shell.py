"""`lakewriter shell`, which queries the lake interactively. Its work is in `lakewriter.cli.shell`."""

from lakewriter.cli.shell.loop import run as run
