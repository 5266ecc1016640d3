"""Proof that what the lake holds is right, by itself and against what the exchange publishes.

Door: `run` for the lake by itself, `compare_published` for the exchange.
"""
