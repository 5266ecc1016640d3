"""Import files of candles made by other tools. Doors: `import_files`; `read_file` for bytes, `file_candles` for rows."""
