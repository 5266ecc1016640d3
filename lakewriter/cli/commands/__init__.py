"""The declarations of the commands, one module each, which defines `command`: its options and its help.

A declaration imports no library but click, so that `--help` is fast. The work is in the module
of the same name in `lakewriter.cli.runs`, which is imported when the command runs.
"""
