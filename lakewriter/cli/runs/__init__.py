"""The work of the commands, one module each. Its function `run` takes the options of the command."""
