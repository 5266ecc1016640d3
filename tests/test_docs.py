"""The tests of the docs are in tests/docs; tools that name this path still find it."""
