"""The lake of a command line that names none."""

DEFAULT_LAKE = "data"
