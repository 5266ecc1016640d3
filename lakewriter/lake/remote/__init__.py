"""Reading of lakes on object stores.

`lake.open` combines these parts: `location` parses a URI, `object_store` lists and
reads keys, and `catalogue` lists partitions.
"""
