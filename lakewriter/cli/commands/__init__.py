"""One module for each command. Each exposes `command`, imported when it runs."""
