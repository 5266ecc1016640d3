"""The lake: storage, journal, merge and compaction. Only this package writes below a lake's root."""
