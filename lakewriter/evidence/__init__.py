"""Decide which series, which closed candles, and of what standing the rows of others are. Pure.

The options, a file's name and place, its columns and its rows are evidence.
Where two of them disagree, the file is refused in one line that names both.
Door: `choice.py` for series, `rows.py` for rows.
"""
