"""The errors of object stores, as errors of one line with a hint.

Only this module knows the texts of the stores.
"""

import re
import xml.sax.saxutils

from lakewriter.errors import LakeError
from lakewriter.lake.storage import InvalidKeyError, StoreAwayError, StoreError

# An answer's error: S3, Google and Azure send XML with a code and a message.
_CODE = re.compile(r"<Code>\s*([^<]*?)\s*</Code>")
_MESSAGE = re.compile(r"<Message>\s*([^<\n]*)")
_STATUS = re.compile(r"status code: (\d{3})")
_REGION = re.compile(r"(?:expecting|located in) '([a-z0-9-]+)'")
# What the client adds: "Generic S3 error: Error performing GET URL in 1.2ms, after 2 retries, … - "
_ATTEMPTS = re.compile(r"^.*?Error performing \w+ \S+ in \S+(?:, after [^-]*)? - ", re.DOTALL)
_DEBUG = "\n\nDebug source"
# The kinds of network errors are only in the debugging text.
_KIND = re.compile(r"kind: (Connect|Timeout)\b")
# The client spoke TLS, and the answer was none.
_NO_TLS = re.compile(r"\bInvalidContentType\b")
_KINDS = {"Connect": "cannot connect to the store", "Timeout": "no answer in time"}
# The client lists no directory with a key that is no path. A key may have line breaks.
_INVALID_KEY = re.compile(r'object with invalid path: .*?Path "(.*?)"(?:: | contained )', re.DOTALL)
# Codes below 500 that say "not now".
_NOT_NOW = ("SlowDown", "RequestTimeout", "TooManyRequests")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")

# Commands that create a bucket.
_NEW_BUCKET = {
    "s3": "aws s3 mb s3://{}",
    "gs": "gcloud storage buckets create gs://{}",
    "az": "az storage container create --name {}",
}
_CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_WRONG_REGION = "AWS_REGION, or ?region=…, has to be the bucket's"
_LATER = "try again later"

# Hints by a part of the error text.
_HINTS = (
    ("cannot connect", "is the network up, and AWS_ENDPOINT_URL right?"),
    ("speak https", "write http:// before the endpoint: AWS_ENDPOINT_URL=http://…"),
    ("404 Not Found", "is the endpoint that of a store, and AWS_ENDPOINT_URL right?"),
    ("no answer", "is the network up, and AWS_ENDPOINT_URL right?"),
    ("AccessDenied", _CREDENTIALS),
    ("InvalidAccessKeyId", _CREDENTIALS),
    ("SignatureDoesNotMatch", _CREDENTIALS),
    ("ExpiredToken", _CREDENTIALS),
    ("RequestTimeTooSkewed", "set this machine's clock"),
    ("incorrectly configured region", _WRONG_REGION),
    ("PermanentRedirect", _WRONG_REGION),
    ("AuthorizationHeaderMalformed", _WRONG_REGION),
    (
        "invalid name",
        "delete or rename that key: a part of its name is empty, . or .., or has a control character",
    ),
    ("SlowDown", _LATER),
    ("InternalError", _LATER),
    ("status code: 50", _LATER),
)


def store_error(uri: str, name: str, error: Exception) -> LakeError:
    """Return a store's error as one line with the name of a key or of the lake.

    Args:
        uri: the lake's name.
        name: the key, relative to the lake's root, or "" for the lake.
    """
    text = str(error).partition(_DEBUG)[0]
    code, message = _found(_CODE, text), xml.sax.saxutils.unescape(_found(_MESSAGE, text))
    if code in _NO_BUCKET:
        scheme, _, path = uri.partition("://")
        bucket = path.partition("/")[0]
        create = _NEW_BUCKET.get(scheme, "").format(bucket)
        return LakeError(f"lake: {uri}: there is no bucket {bucket}", f"{create} creates one")
    if _NO_TLS.search(str(error)):
        reason = "the store does not speak https"
    else:
        reason = _KINDS.get(_found(_KIND, str(error))) or _reason(text, code, message)
    hint = next((hint for word, hint in _HINTS if word in f"{reason} {text}"), "")
    if region := _found(_REGION, text):
        hint = f"AWS_REGION={region}, or {uri}?region={region}"
    where = f"{uri}/{name}" if name else uri
    kind = StoreAwayError if _is_away(text, code) else StoreError
    if _found(_INVALID_KEY, text):
        kind = InvalidKeyError
    return kind(f"lake: {where}: {reason}", hint, f"lake: {uri}: {reason}")


def _is_away(text: str, code: str) -> bool:
    """Return whether a request was sent and not served: no answer came, or one that says "not now"."""
    status = _found(_STATUS, text)
    return "Error performing" in text and (not status or status[0] == "5" or code in _NOT_NOW)


def is_missing_bucket(error: Exception) -> bool:
    """Return whether a store says that the bucket itself does not exist."""
    return _found(_CODE, str(error)) in _NO_BUCKET


def _reason(text: str, code: str, message: str) -> str:
    if key := _found(_INVALID_KEY, text):
        return f"the key {key} has an invalid name"
    if message:
        return message.rstrip(". ")
    if code:
        return f"{code} (HTTP status {_found(_STATUS, text)})"
    lines = _ATTEMPTS.sub("", text).strip().splitlines() or [""]
    return lines[0].rstrip(".: ")


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""
