"""`lakewriter shell`: statements typed one after the other.

Door: `loop`. `prompt` edits lines; `statements` finds where a statement ends.
"""
