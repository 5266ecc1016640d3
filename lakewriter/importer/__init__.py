"""Import files of candles made by other tools.

Doors: `import_files` for the lake, `file_candles` for one file, `file_table` for its bytes.
"""
