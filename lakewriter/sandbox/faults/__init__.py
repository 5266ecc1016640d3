"""Faults on request, and the exchange's limits on one caller.

Entry point: `table` names each fault. `fault_syntax` parses faults, and `fault_set` keeps
those of a sandbox. `caller_limits` counts a caller's calls, messages and connection
attempts.
"""
