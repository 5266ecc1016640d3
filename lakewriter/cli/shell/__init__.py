"""`lakewriter shell`, which queries the lake interactively.

Door: `loop`. `prompt` edits lines, and `statements` finds the ends of statements.
"""
