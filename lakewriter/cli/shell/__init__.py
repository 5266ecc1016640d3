"""`lakewriter shell`, which queries the lake interactively.

Entry point: `loop`. `prompt` edits lines, and `statements` finds the ends of statements.
"""
