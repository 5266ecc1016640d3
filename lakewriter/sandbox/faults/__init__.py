"""Failures on request, and the exchange's limits on one caller.

Door: `table` names every failure. `fault_syntax` parses faults, `fault_set` keeps
those of a sandbox, and `caller_limits` counts what a caller does.
"""
