"""Signature version 4: whether a request was signed with the one key of the stack, now, and in all that counts."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote

from embedded.s3.request import S3Refused, S3Request

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
SKEW_S = 15 * 60  # how far a client's clock may be off
LONGEST_S = 7 * 24 * 3600  # the life of a presigned address
AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=([^\s,]+), *SignedHeaders=([a-z0-9;-]+), *Signature=([0-9a-f]{{64}})"
)
DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
HASH = re.compile(r"[0-9a-f]{64}")
IN_QUERY = frozenset(f"X-Amz-{part}" for part in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders",
                                                  "Signature"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """The one key pair that is accepted."""

    name: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignatureClaim:
    """What a request says of its own signature; `expires_s` where it is presigned."""

    credential: str
    signed: tuple[str, ...]
    signature: str
    date: str
    payload: str
    expires_s: int | None = None


def verified(request: S3Request, key: Key, now: float) -> str:
    """The hash that the body must have (or UNSIGNED); S3Refused where anything is not as the key's owner signed it.

    `now`: seconds since the epoch.
    """
    claim = _claim(request)
    scope = _scope(claim, key)
    _check_time(claim, now)
    _check_signed(request, claim)
    expected = _signature(request, claim, scope, key)
    if not hmac.compare_digest(expected, claim.signature):
        raise S3Refused(403, "SignatureDoesNotMatch", "the signature is not that of this request with the stack's key")
    return claim.payload


def check_body(body: bytes, payload: str) -> None:
    """S3Refused where the body is not the one that was signed."""
    if payload != UNSIGNED and not hmac.compare_digest(hashlib.sha256(body).hexdigest(), payload):
        raise S3Refused(400, "XAmzContentSHA256Mismatch", "the body is not the one that was signed")


def _claim(request: S3Request) -> SignatureClaim:
    in_query = [name for name in request.query if name in IN_QUERY]
    header = request.headers.get("authorization")
    if header is not None and not in_query:
        return _from_header(request, header)
    if in_query and header is None:
        return _from_query(request)
    if header is not None:
        raise S3Refused(400, "InvalidArgument", "sign in the header or in the address, not in both")
    raise S3Refused(403, "AccessDenied", "requests are signed with the stack's key (Signature version 4)")


def _from_header(request: S3Request, header: str) -> SignatureClaim:
    parts = AUTHORIZATION.fullmatch(header)
    if parts is None:
        raise S3Refused(403, "AccessDenied", "only Signature version 4 counts here")
    payload = request.headers.get("x-amz-content-sha256", "")
    return SignatureClaim(parts[1], tuple(parts[2].split(";")), parts[3], request.headers.get("x-amz-date", ""),
                          _payload(payload))  # fmt: skip


def _from_query(request: S3Request) -> SignatureClaim:
    query = request.query
    expires = query.get("X-Amz-Expires", "")
    if query.keys() & IN_QUERY != IN_QUERY or query["X-Amz-Algorithm"] != ALGORITHM or not re.fullmatch(
        r"[0-9]{1,6}", expires
    ):  # fmt: skip
        raise S3Refused(403, "AccessDenied", "the address is not presigned with Signature version 4")
    payload = _payload(request.headers.get("x-amz-content-sha256", UNSIGNED))
    signed = tuple(query["X-Amz-SignedHeaders"].split(";"))
    return SignatureClaim(query["X-Amz-Credential"], signed, query["X-Amz-Signature"], query["X-Amz-Date"], payload,
                          int(expires))  # fmt: skip


def _payload(value: str) -> str:
    if value != UNSIGNED and not HASH.fullmatch(value):
        if value.startswith("STREAMING-"):
            raise S3Refused(501, "NotImplemented", "bodies that are signed in pieces are not taken: sign them whole")
        raise S3Refused(400, "InvalidRequest", "x-amz-content-sha256 is missing or no hash")
    return value


def _scope(claim: SignatureClaim, key: Key) -> tuple[str, str]:
    """(day, region) that the signature is bound to."""
    parts = claim.credential.split("/")
    if len(parts) != 5 or parts[3:] != ["s3", "aws4_request"] or not re.fullmatch(r"[a-z0-9-]{1,40}", parts[2]):
        raise S3Refused(403, "AccessDenied", "the signature is for another service")
    if not hmac.compare_digest(parts[0], key.name):
        raise S3Refused(403, "InvalidAccessKeyId", "the key is not that of this stack")
    if not DATE.fullmatch(claim.date) or parts[1] != claim.date[:8]:
        raise S3Refused(403, "AccessDenied", "the date is missing, or not that of the signature")
    return parts[1], parts[2]


def _check_time(claim: SignatureClaim, now: float) -> None:
    try:
        signed_at = datetime.strptime(claim.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise S3Refused(403, "AccessDenied", "the date is none") from error
    age = now - signed_at
    if age < -SKEW_S or (claim.expires_s is None and age > SKEW_S):
        raise S3Refused(403, "RequestTimeTooSkewed", "the clocks of client and server differ by more than 15 minutes")
    if claim.expires_s is not None and not age <= claim.expires_s <= LONGEST_S:
        raise S3Refused(403, "AccessDenied", "the presigned address has expired, or would live longer than a week")


def _check_signed(request: S3Request, claim: SignatureClaim) -> None:
    """Nothing that S3 acts on may be added to a signed request."""
    if "host" not in claim.signed or list(claim.signed) != sorted(set(claim.signed)):
        raise S3Refused(403, "AccessDenied", "the list of signed headers is not in order")
    if missing := [name for name in claim.signed if name not in request.headers]:
        raise S3Refused(403, "AccessDenied", f"a signed header is missing: {missing[0]}")
    added = [name for name in request.headers if name.startswith("x-amz-") and name not in claim.signed]
    if added:
        raise S3Refused(403, "AccessDenied", f"a header was not signed: {added[0]}")


def _signature(request: S3Request, claim: SignatureClaim, scope: tuple[str, str], key: Key) -> str:
    canonical = "\n".join([
        request.method,
        request.path,
        canonical_query(request.query),
        *(f"{name}:{' '.join(request.headers[name].split())}" for name in claim.signed),
        "",
        ";".join(claim.signed),
        claim.payload,
    ])  # fmt: skip
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    bound = f"{scope[0]}/{scope[1]}/s3/aws4_request"
    to_sign = "\n".join([ALGORITHM, claim.date, bound, digest])
    return hmac.new(_signing_key(key, *scope), to_sign.encode(), hashlib.sha256).hexdigest()


def canonical_query(query: Mapping[str, str]) -> str:
    """Everything but the signature itself, encoded the one way, in order."""
    pairs = [(quote(n, safe="-_.~"), quote(v, safe="-_.~")) for n, v in query.items() if n != "X-Amz-Signature"]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


@lru_cache(maxsize=32)
def _signing_key(key: Key, day: str, region: str) -> bytes:
    derived = f"AWS4{key.secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        derived = hmac.new(derived, part.encode(), hashlib.sha256).digest()
    return derived
