"""Numbers in words for people: durations, sizes, and nouns with their number. Pure."""


def duration_text(ms: float) -> str:
    """Return a duration in one unit: "26 ms", "4.2 s", "45 s", "12 min", "5 h", "3 days"."""
    seconds = abs(ms) / 1000
    if seconds < 1:
        return f"{abs(ms):.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:,.0f} days"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: "1 candle", "1,204 candles".

    Args:
        plural: the noun's plural, if it is not the noun with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def are(count: int) -> str:
    """Return "is" for one thing, else "are"."""
    return "is" if count == 1 else "are"
