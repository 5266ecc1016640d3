"""`lakewriter shell`: query the lake interactively.

Door: `loop`. `prompt` edits lines; `statements` finds where a statement ends.
"""
