"""Following a lake: its candles from a time on, then each new one as soon as it is durable.

Entry point: `follower`. `feed` joins the past and the present of a lake. The kernel wakes
it (`lake_watch`); `journal_tail` and `partition_changes` read what changed. Nothing is
written into the lake, and recorders do not know of followers.
"""
