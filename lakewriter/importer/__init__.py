"""Import files of candles made by other tools. Door: `importer.py`; `read_file.py` reads bytes, `file_candles.py` decides."""
