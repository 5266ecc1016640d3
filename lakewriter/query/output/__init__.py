"""The output of answers to files, pipes and terminals.

`formats` is the table of formats, and `writers` has their functions. `text` renders
values and tables, and `destination` opens files and pipes. Entry point: `writers`.
"""
