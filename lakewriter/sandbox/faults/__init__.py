"""Failures on request: which exist, how they are written, and how one caller is limited.

Door: `table` names every failure. `fault_syntax` parses them; `caller_limits` counts.
"""
