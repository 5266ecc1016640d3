"""Evidence on rows of other tools: their series, and whether they are closed, unique and archived. Pure.

Evidence comes from the options, and from a file's name, directories, columns and rows. If
two sources contradict each other, the file is refused in one line that names both.

Entry points: `choice.py` for series; `spacing.py`, `closed.py`, `duplicates.py` and
`archive_proof.py` for rows.
"""
