"""An ASGI scope in, a request that can mean one thing only out; whatever is ambiguous is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
VERSIONS = frozenset({"1.0", "1.1"})
PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
VISIBLE = re.compile(r"[\x20-\x7e\t]*")


class S3Refused(Exception):
    """The request is answered with this S3 error, and nobody has acted on it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True, slots=True)
class S3Request:
    """One request without its body. `path` is as it was sent; `query` is decoded."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


def request_of(scope: Mapping[str, Any], hosts: Collection[str]) -> S3Request:
    """The request of an ASGI scope; S3Refused. `hosts`: the names that this server goes by, on any port; none: any."""
    if scope["http_version"] not in VERSIONS:
        raise S3Refused(505, "HttpVersionNotSupported", "use HTTP/1.1")
    headers = _headers(scope["headers"])
    host = HOST.fullmatch(headers.get("host", "").lower())
    if host is None or (hosts and host[1] not in hosts):  # a name of somebody else that leads here: DNS rebinding
        raise S3Refused(403, "AccessDenied", "this server goes by another name")
    if scope["method"] not in METHODS:
        raise S3Refused(405, "MethodNotAllowed", "the method is none of S3's")
    path = _ascii(scope["raw_path"])
    if not path.startswith("/") or PERCENT.search(path):
        raise S3Refused(400, "InvalidURI", "the path cannot be read")
    return S3Request(scope["method"], path, _query(_ascii(scope["query_string"])), headers)


def text(encoded: str) -> str:
    """Percent-encoded UTF-8, decoded; S3Refused where it is none."""
    try:
        return unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError as error:
        raise S3Refused(400, "InvalidURI", "the address is no UTF-8") from error


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """By lower-case name. One that comes twice could be signed as one thing and read as another."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = _ascii(raw_name).lower(), _ascii(raw_value).strip()
        if name in headers:
            raise S3Refused(400, "InvalidRequest", f"the header {name} comes twice")
        headers[name] = value
    if "transfer-encoding" in headers or "upgrade" in headers:
        raise S3Refused(411, "MissingContentLength", "send the body as it is, with its Content-Length")
    return headers


def _query(raw: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for part in raw.split("&") if raw else ():
        encoded_name, _, encoded_value = part.partition("=")
        name, value = text(encoded_name), text(encoded_value)
        if not name or name in query or PERCENT.search(part):
            raise S3Refused(400, "InvalidURI", "the query cannot be read")
        query[name] = value
    return query


def _ascii(raw: bytes) -> str:
    decoded = raw.decode("latin-1")
    if not VISIBLE.fullmatch(decoded):
        raise S3Refused(400, "InvalidRequest", "addresses and headers are ASCII; encode the rest")
    return decoded
