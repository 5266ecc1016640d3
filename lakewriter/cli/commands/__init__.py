"""The commands, one module each. A module defines `command`, and is imported when the command runs."""
