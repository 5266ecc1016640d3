"""Answers as bytes, in files, pipes and terminals.

`formats` is the table of formats, `writers` has their functions, `text` renders
values and tables, `destination` opens files and pipes. Door: `writers`.
"""
