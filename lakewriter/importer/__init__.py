"""Import files of candles from other tools.

Entry points: `import_files` imports into the lake, `file_candles` reads the candles of
one file, `file_table` reads its bytes.
"""
