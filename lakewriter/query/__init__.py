"""Asking: SQL over the lake. Only this package knows DuckDB; it never listens."""
