"""The lake: storage, journal, merge, compaction. Only this package writes below its root."""
