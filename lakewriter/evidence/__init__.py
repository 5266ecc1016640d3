"""Evidence on rows of other tools: their series, and whether they are closed, unique and archived. Pure.

Evidence is: the options, a file's name and directories, its columns, its rows.
If two pieces contradict, the file is refused in one line that names both.
Doors: `choice.py` for series; `spacing.py`, `closed.py`, `duplicates.py` and
`archive_proof.py` for rows.
"""
