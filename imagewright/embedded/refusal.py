"""Why the registry says no: the distribution specification's error codes, each with the status it is answered with.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes; the last ones are those of
https://distribution.github.io/distribution/spec/api/#errors-2, which clients know as well.
"""

from enum import Enum


class Code(Enum):
    """value: (code in the answer's body, HTTP status)."""

    BLOB_UNKNOWN = ("BLOB_UNKNOWN", 404)
    BLOB_UPLOAD_INVALID = ("BLOB_UPLOAD_INVALID", 400)
    BLOB_UPLOAD_UNKNOWN = ("BLOB_UPLOAD_UNKNOWN", 404)
    DIGEST_INVALID = ("DIGEST_INVALID", 400)
    MANIFEST_BLOB_UNKNOWN = ("MANIFEST_BLOB_UNKNOWN", 400)
    MANIFEST_INVALID = ("MANIFEST_INVALID", 400)
    MANIFEST_UNKNOWN = ("MANIFEST_UNKNOWN", 404)
    NAME_INVALID = ("NAME_INVALID", 400)
    NAME_UNKNOWN = ("NAME_UNKNOWN", 404)
    SIZE_INVALID = ("SIZE_INVALID", 400)
    TOO_LARGE = ("SIZE_INVALID", 413)
    TARGET_TOO_LONG = ("UNSUPPORTED", 414)
    UNSUPPORTED = ("UNSUPPORTED", 405)
    NOT_FOUND = ("UNSUPPORTED", 404)
    TAG_INVALID = ("TAG_INVALID", 400)
    PAGINATION_NUMBER_INVALID = ("PAGINATION_NUMBER_INVALID", 400)
    RANGE_INVALID = ("RANGE_INVALID", 416)
    BAD_REQUEST = ("UNSUPPORTED", 400)
    BROKEN = ("UNKNOWN", 500)

    def __init__(self, text: str, status: int) -> None:
        self.text = text
        self.status = status


class Refused(Exception):
    """What was asked for cannot be done. code: which rule; detail: what it is about, any JSON value."""

    def __init__(self, code: Code, message: str, detail: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail
