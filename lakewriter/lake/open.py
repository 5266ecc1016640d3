"""Opening a lake to read it, wherever it is."""

from lakewriter.lake.lake import LakeStore


def open_to_read(uri: str) -> LakeStore:
    """Open a lake that exists: a directory, or on an object store.

    Raises:
        UsageError: if the URI is none.
        LakeError: if there is none, or of a newer format.
    """
    if "://" not in uri:
        return LakeStore.open(uri)
    # Arrow's object stores take as long to import as everything else together.
    from lakewriter.lake.remote.lake import RemoteLake  # noqa: PLC0415

    return RemoteLake.open(uri)
