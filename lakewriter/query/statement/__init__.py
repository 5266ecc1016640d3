"""The text of a statement, before it runs: is it allowed, and what does it ask for?

`guard` parses a statement and refuses what does more than read. `where_tree` reads the
conditions of a simple statement, and `shape` whether names and days suffice for it.
`path_conditions` removes conditions that the chosen files fulfil. `pivot` names the values
of a PIVOT. `repeatable` and `relative_times` tell texts whose meaning changes with time.
Entry point: `guard`.
"""
