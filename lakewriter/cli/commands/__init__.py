"""One module for each command. Each defines `command` and is imported when it runs."""
