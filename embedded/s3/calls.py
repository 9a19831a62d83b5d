"""Which parts of S3 are served: what labelloop, Label Studio and the usual tools need, and nothing that acts elsewhere.

Left out on purpose: policies, access lists, CORS, websites, notifications (they run things), replication, forms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from embedded.s3.request import S3Refused, S3Request, text
from embedded.s3.signature import IN_QUERY

BUCKET = re.compile(r"(?!.*(?:\.\.|-s3alias$|--ol-s3$))[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
LONGEST_KEY = 1024  # bytes
CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_PAGE = {"delimiter", "encoding-type", "max-keys", "prefix"}
_LISTS = {"list-type", "continuation-token", "fetch-owner", "start-after", "marker"}
_VERSIONS = {"versions", "key-marker", "version-id-marker"}
_UPLOADS = {"uploads", "upload-id-marker", "max-uploads"}
_PARTS = {"uploadId", "max-parts", "part-number-marker"}
_SHOWN_AS = {f"response-{n}" for n in ("cache-control", "content-disposition", "content-encoding", "content-language",
                                       "content-type", "expires")}  # fmt: skip
# (method, of what): the words a query may hold
SERVED: Mapping[tuple[str, str], frozenset[str]] = {
    ("GET", "server"): frozenset({"continuation-token", "max-buckets", "prefix"}),
    ("GET", "bucket"): frozenset({*_PAGE, *_LISTS, *_VERSIONS, *_UPLOADS, "location", "versioning"}),
    ("HEAD", "bucket"): frozenset(),
    ("PUT", "bucket"): frozenset({"versioning"}),
    ("DELETE", "bucket"): frozenset(),
    ("POST", "bucket"): frozenset({"delete"}),
    ("GET", "object"): frozenset({*_PARTS, *_SHOWN_AS, "versionId", "partNumber"}),
    ("HEAD", "object"): frozenset({*_SHOWN_AS, "versionId", "partNumber"}),
    ("PUT", "object"): frozenset({"uploadId", "partNumber"}),
    ("POST", "object"): frozenset({"uploads", "uploadId"}),
    ("DELETE", "object"): frozenset({"uploadId", "versionId"}),
}
HEADERS = frozenset({
    "cache-control", "content-disposition", "content-encoding", "content-language", "content-md5", "content-type",
    "expires", "if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "range",
    "x-amz-copy-source", "x-amz-metadata-directive", "x-amz-mp-object-size", "x-amz-sdk-checksum-algorithm",
})  # fmt: skip
FAMILIES = ("x-amz-meta-", "x-amz-checksum-", "x-amz-copy-source-")
OF_THE_SIGNATURE = frozenset({"x-amz-date", "x-amz-content-sha256"})
SAY_NOTHING = frozenset({"x-id"})  # the name of the operation, which some clients add to the address


@dataclass(frozen=True, slots=True)
class Call:
    """One operation of S3, as the emulator gets it: nothing else of the request reaches it."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def changes_buckets(self) -> bool:
        """Whether it may change which buckets there are, or how one is kept."""
        return bool(self.bucket) and not self.key and self.method in {"PUT", "DELETE"}


def call_of(request: S3Request) -> Call:
    """The operation that a request asks for; S3Refused where it is not served."""
    bucket, key = _place(request.path)
    of = "object" if key else "bucket" if bucket else "server"
    query = {n: v for n, v in request.query.items() if n not in IN_QUERY and n not in SAY_NOTHING}
    words = SERVED.get((request.method, of))
    if words is None:
        raise S3Refused(405, "MethodNotAllowed", f"{request.method} means nothing for a {of}")
    if strange := sorted(query.keys() - words):
        raise S3Refused(501, "NotImplemented", f"not served here: ?{strange[0]}")
    if request.method == "POST" and not query:
        raise S3Refused(405, "MethodNotAllowed", "forms are not taken")
    if any(CONTROL.search(query[name]) for name in query.keys() & _SHOWN_AS):
        raise S3Refused(400, "InvalidArgument", "a header of an answer is one line")
    return Call(request.method, bucket, key, query, _headers(request.headers))


def _place(path: str) -> tuple[str, str]:
    bucket, _, key = text(path)[1:].partition("/")
    if (bucket or key) and not BUCKET.fullmatch(bucket):
        raise S3Refused(400, "InvalidBucketName", "the bucket's name is none")
    if len(key.encode()) > LONGEST_KEY:
        raise S3Refused(400, "KeyTooLongError", f"a key has at most {LONGEST_KEY} bytes")
    return bucket, key


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that S3 acts on. One that is not served is refused, or it would promise what nobody keeps."""
    kept = {name: value for name, value in headers.items() if name in HEADERS or name.startswith(FAMILIES)}
    strange = [n for n in headers if n.startswith("x-amz-") and n not in kept and n not in OF_THE_SIGNATURE]
    if strange:
        raise S3Refused(501, "NotImplemented", f"not served here: {strange[0]}")
    if "aws-chunked" in kept.get("content-encoding", "").lower():
        raise S3Refused(501, "NotImplemented", "bodies in pieces are not taken")
    return kept
