"""Lakes on object stores, to read.

Door: `lake`. `location` parses a URI; `object_store` lists and fetches keys.
"""
