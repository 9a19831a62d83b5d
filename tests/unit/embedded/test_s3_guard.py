"""The guard of the embedded S3 server: what botocore has signed is let through, and nothing else ever is."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from botocore.auth import HmacV1Auth, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from embedded.s3.app import MAX_BODY, S3Guard, S3Response
from embedded.s3.calls import SERVED, Call
from embedded.s3.signature import SKEW_S, Key

KEY = Key("labelloop", "a secret that nobody knows")
HOST = "127.0.0.1:9000"
HOSTS = ["127.0.0.1", "localhost"]
FORBIDDEN = {400, 403, 405, 411, 501, 505}


@dataclass(frozen=True)
class Sent:
    """One request as it goes over the line."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    version: str = "1.1"

    def without(self, *names: str) -> Sent:
        return replace(self, headers=tuple((n, v) for n, v in self.headers if n.lower() not in names))

    def with_header(self, name: str, value: str) -> Sent:
        bare = self.without(name.lower())
        return replace(bare, headers=(*bare.headers, (name, value)))

    def value(self, name: str) -> str:
        return next(v for n, v in self.headers if n.lower() == name)


@dataclass
class Server:
    """The guard, and what came through it."""

    later_s: float = 0
    through: list[tuple[Call, bytes]] = field(default_factory=list)

    def perform(self, call: Call, body: bytes) -> S3Response:
        self.through.append((call, body))
        return S3Response(200, {"ETag": '"e"', "Access-Control-Allow-Origin": "*"}, b"done")

    def ask(self, sent: Sent) -> S3Response:
        """The guard's answer as ASGI has it."""
        guard = S3Guard(KEY, HOSTS, self.perform, lambda: time.time() + self.later_s)
        return asyncio.run(_asked(guard, sent))


async def _asked(guard: S3Guard, sent: Sent) -> S3Response:
    path, _, query = sent.target.partition("?")
    scope = {
        "type": "http", "http_version": sent.version, "method": sent.method, "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in sent.headers],
    }  # fmt: skip
    sent_back: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": sent.body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent_back.append(message)

    await guard(scope, receive, send)
    headers = {n.decode(): v.decode() for n, v in sent_back[0]["headers"]}
    return S3Response(sent_back[0]["status"], headers, sent_back[1]["body"])


def signed(
    method: str = "GET", target: str = "/images/a.png", *, key: Key = KEY, body: bytes = b"", service: str = "s3",
    headers: Mapping[str, str] | None = None, payload: str | None = None,
) -> Sent:  # fmt: skip
    """As botocore signs it, in the header."""
    request = AWSRequest(method, f"http://{HOST}{target}", headers=dict(headers or {}), data=body)
    signer = S3SigV4Auth(Credentials(key.name, key.secret), service, "us-east-1")
    digest = payload or hashlib.sha256(body).hexdigest()
    signer.payload = lambda _request: digest  # type: ignore[method-assign]
    signer.add_auth(request)
    fields = {"Host": HOST, "Content-Length": str(len(body)), **dict(request.headers.items())}
    return Sent(method, target, tuple(fields.items()), body)


def presigned(
    method: str = "GET", target: str = "/images/a.png", *, key: Key = KEY, expires_s: int = 60, body: bytes = b""
) -> Sent:
    request = AWSRequest(method, f"http://{HOST}{target}")
    S3SigV4QueryAuth(Credentials(key.name, key.secret), "s3", "us-east-1", expires=expires_s).add_auth(request)
    assert request.url is not None
    fields = (("Host", HOST), ("Content-Length", str(len(body))))
    return Sent(method, request.url.removeprefix(f"http://{HOST}"), fields, body)


WRONG_SECRET, WRONG_KEY = Key(KEY.name, "test"), Key("test", KEY.secret)


def test_what_is_signed_with_the_key_comes_through_as_it_was_meant() -> None:
    server = Server()
    assert server.ask(signed("PUT", "/images/a%20b/%C3%BC%2B(1).png", body=b"bytes")).status == 200
    call, body = server.through[0]
    assert (call.method, call.bucket, call.key, body) == ("PUT", "images", "a b/ü+(1).png", b"bytes")
    assert "authorization" not in call.headers
    assert "host" not in call.headers


@pytest.mark.parametrize("target", [
    "/", "/images", "/images?list-type=2&prefix=a%2Fb%20%2B%26c&encoding-type=url", "/images?versioning",
    "/images?versions&key-marker=%C3%BC", "/images/a?versionId=1.2", "/images//a//", "/images/..%2Fx", "/images/%00",
])  # fmt: skip
def test_addresses_of_every_form_are_verified(target: str) -> None:
    server = Server()
    assert server.ask(signed("GET", target)).status == 200
    assert server.ask(signed("GET", target, key=WRONG_SECRET)).status == 403
    assert len(server.through) == 1


@pytest.mark.parametrize("make", [signed, presigned])
@pytest.mark.parametrize("key", [WRONG_SECRET, WRONG_KEY, Key("000000000000", "x"), Key("test", "test")])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_another_key_or_secret_is_refused(make: Any, key: Key, method: str) -> None:
    server = Server()
    assert server.ask(make(method, key=key)).status == 403
    assert not server.through


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"])
@pytest.mark.parametrize("target", [
    "/", "/images", "/images/a", "/_ministack/reset", "/_ministack/health", "/_localstack/health", "/health",
    "/2015-03-31/functions", "/images?cors", "/?Action=ListUsers", "//images/a", "/%2Fimages", "/./images",
    "http://127.0.0.1:9000/images", "*", "", "/v20180820/accesspoint/x", "/_aws/execute-api/x", "/restapis",
])  # fmt: skip
def test_nothing_unsigned_is_answered_and_no_page_may_read_even_that(method: str, target: str) -> None:
    server = Server()
    answer = server.ask(Sent(method, target, (("Host", HOST), ("Origin", "http://evil.example"))))
    assert answer.status in FORBIDDEN
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert not server.through


@pytest.mark.parametrize(("headers", "target", "service"), [
    ({"X-Amz-Target": "DynamoDB_20120810.ListTables"}, "/", "dynamodb"),
    ({"X-Amz-Target": "DynamoDB_20120810.ListTables"}, "/images/a", "s3"),
    ({}, "/2015-03-31/functions", "lambda"),
    ({}, "/_ministack/reset", "s3"),
    ({}, "/_ministack/config", "s3"),
    ({}, "/?Action=CreateUser&UserName=x", "iam"),
    ({}, "/?Action=CreateUser&UserName=x", "s3"),
    ({"Content-Type": "application/x-www-form-urlencoded"}, "/", "s3"),
    ({}, "/v20180820/accesspoint/x", "s3-outposts"),
    ({}, "/restapis", "apigateway"),
    ({}, "/alias-s3alias/a", "s3"),
    ({}, "/alias--ol-s3/a", "s3"),
])  # fmt: skip
def test_no_other_service_is_reached_even_with_the_key(headers: dict[str, str], target: str, service: str) -> None:
    server = Server()
    statuses = {server.ask(signed(m, target, headers=headers, service=service)).status for m in ("POST", "PUT")}
    assert statuses <= FORBIDDEN
    assert not server.through


@pytest.mark.parametrize("word", [
    "acl", "policy", "cors", "website", "notification", "replication", "lifecycle", "tagging", "logging", "encryption",
    "object-lock", "accelerate", "requestPayment", "publicAccessBlock", "ownershipControls", "annotation", "torrent",
    "select", "restore", "attributes", "retention", "legal-hold", "analytics", "inventory", "metrics",
])  # fmt: skip
def test_parts_of_s3_that_act_elsewhere_are_not_served(word: str) -> None:
    server = Server()
    for method in ("GET", "PUT", "POST", "DELETE"):
        for place in ("/images", "/images/a"):
            assert server.ask(signed(method, f"{place}?{word}")).status in {405, 501}
    assert not server.through


@pytest.mark.parametrize("name", ["x-amz-acl", "x-amz-grant-read", "x-amz-object-lock-mode", "x-amz-security-token",
                                  "x-amz-website-redirect-location", "x-amz-tagging", "x-amz-mfa"])  # fmt: skip
def test_a_header_that_would_promise_something_is_refused_not_dropped(name: str) -> None:
    server = Server()
    assert server.ask(signed("PUT", headers={name: "x"})).status == 501
    assert not server.through


def test_conditions_ranges_and_metadata_come_through() -> None:
    server = Server()
    headers = {"If-None-Match": "*", "If-Match": '"e"', "Range": "bytes=0-3", "x-amz-meta-a": "b",
               "Content-Type": "x/y", "x-amz-copy-source": "images/b", "x-amz-checksum-crc32": "AAAAAA=="}  # fmt: skip
    server.ask(signed("PUT", headers=headers))
    assert dict(server.through[0][0].headers) == {name.lower(): value for name, value in headers.items()}


@pytest.mark.parametrize("change", [
    lambda s: replace(s, method="DELETE"),
    lambda s: replace(s, target="/images/b.png"),
    lambda s: replace(s, target=s.target + "?versionId=1"),
    lambda s: replace(s, body=b"other"),
    lambda s: s.with_header("Host", "localhost:9000"),
    lambda s: s.with_header("x-amz-date", "20200101T000000Z"),
    lambda s: s.with_header("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
    lambda s: s.with_header("x-amz-copy-source", "labelloop/secret"),
    lambda s: s.with_header("x-amz-meta-a", "b"),
    lambda s: s.without("x-amz-date"),
    lambda s: s.without("x-amz-content-sha256"),
    lambda s: s.without("authorization"),
    lambda s: s.with_header("Authorization", s.value("authorization").replace("SignedHeaders=host;", "SignedHeaders=")),
    lambda s: s.with_header("Authorization", s.value("authorization") + ", x=y"),
    lambda s: s.with_header("Authorization", s.value("authorization")[:-1] + "A"),
    lambda s: s.with_header("Authorization", s.value("authorization").replace("/s3/", "/sts/")),
    lambda s: s.with_header("Authorization", s.value("authorization").replace("us-east-1", "eu-west-1")),
    lambda s: s.with_header("Authorization", "Basic bGFiZWxsb29wOng="),
    lambda s: s.with_header("Authorization", "AWS labelloop:c2lnbmF0dXJl"),
    lambda s: s.with_header("Authorization", ""),
])  # fmt: skip
def test_a_request_that_was_changed_after_signing_is_refused(change: Any) -> None:
    server = Server()
    sent = signed("PUT", body=b"bytes")
    assert server.ask(change(sent)).status in {400, 403}
    assert not server.through
    assert server.ask(sent).status == 200


@pytest.mark.parametrize("change", [
    lambda s: replace(s, method="DELETE"),
    lambda s: replace(s, target=s.target.replace("/images/", "/labelloop/")),
    lambda s: replace(s, target=s.target.replace("X-Amz-Expires=60", "X-Amz-Expires=6000")),
    lambda s: replace(s, target=s.target + "&versionId=1"),
    lambda s: replace(s, target=s.target + "&X-Amz-Expires=60"),
    lambda s: replace(s, target=s.target + "&x-amz-copy-source=labelloop/secret"),
    lambda s: replace(s, target=s.target.replace("SignedHeaders=host", "SignedHeaders=")),
    lambda s: replace(s, target=s.target.partition("&X-Amz-Signature")[0]),
    lambda s: replace(s, target=s.target.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")),
    lambda s: s.with_header("Host", "localhost:9000"),
    lambda s: s.with_header("x-amz-copy-source", "labelloop/secret"),
    lambda s: s.with_header("Authorization", "AWS4-HMAC-SHA256 Credential=a"),
])  # fmt: skip
def test_a_presigned_address_that_was_changed_is_refused(change: Any) -> None:
    server = Server()
    sent = presigned()
    assert server.ask(change(sent)).status in {400, 403}
    assert not server.through
    assert server.ask(sent).status == 200


@pytest.mark.parametrize("later_s", [-SKEW_S - 5, SKEW_S + 5, 365 * 24 * 3600])
def test_a_signed_request_cannot_be_kept_for_later(later_s: float) -> None:
    server = Server(later_s)
    answer = server.ask(signed())
    assert (answer.status, b"RequestTimeTooSkewed" in answer.body) == (403, True)
    assert not server.through


def test_clocks_may_differ_by_minutes() -> None:
    for later_s in (SKEW_S - 60, -SKEW_S + 60):
        assert Server(later_s).ask(signed()).status == 200


@pytest.mark.parametrize(("expires_s", "later_s", "status"), [
    (60, 30, 200), (60, 65, 403), (3600, 3500, 200), (3600, 3605, 403), (604800, 604000, 200), (604801, 0, 403),
    (999999, 0, 403), (60, -SKEW_S - 5, 403),
])  # fmt: skip
def test_a_presigned_address_expires(expires_s: int, later_s: float, status: int) -> None:
    server = Server(later_s)
    assert server.ask(presigned(expires_s=expires_s)).status == status
    assert len(server.through) == (status == 200)


def test_version_two_signatures_are_refused() -> None:
    request = AWSRequest("GET", f"http://{HOST}/images/a.png")
    request.auth_path = "/images/a.png"
    HmacV1Auth(Credentials(KEY.name, KEY.secret)).add_auth(request)
    server = Server()
    headers = (("Host", HOST), *request.headers.items())
    assert server.ask(Sent("GET", "/images/a.png", tuple(headers))).status == 403
    query = "AWSAccessKeyId=labelloop&Signature=x&Expires=9999999999"
    assert server.ask(Sent("GET", f"/images/a.png?{query}", (("Host", HOST),))).status == 403


@pytest.mark.parametrize("payload", ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"])
def test_bodies_in_pieces_are_not_taken(payload: str) -> None:
    server = Server()
    body = b"5;chunk-signature=0\r\nbytes\r\n0\r\n\r\n"
    assert server.ask(signed("PUT", body=body, payload=payload)).status == 501
    assert server.ask(signed("PUT", body=body, headers={"Content-Encoding": "aws-chunked"})).status == 501
    assert not server.through


def test_an_unsigned_body_is_the_key_holders_choice() -> None:
    server = Server()
    assert server.ask(signed("PUT", body=b"any", payload="UNSIGNED-PAYLOAD")).status == 200
    assert server.ask(presigned("PUT", body=b"any")).status == 200
    assert [body for _, body in server.through] == [b"any", b"any"]


@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:9000", "127.0.0.1.evil.example", "127.0.0.1:80:90", "", "images.localhost:9000",
    "127.0.0.1@evil.example", "127.0.0.1/", "2130706433", "0.0.0.0:9000", "[::1]:9000", "127.0.0.1:port",
    "images.s3.amazonaws.com", "x.execute-api.localhost:9000",
])  # fmt: skip
def test_a_name_that_somebody_led_here_is_refused_before_the_signature(host: str) -> None:
    answer = Server().ask(signed().with_header("Host", host))
    assert (answer.status, b"another name" in answer.body) == (403, True)


@pytest.mark.parametrize("change", [
    lambda s: replace(s, headers=(*s.headers, ("Host", HOST))),
    lambda s: replace(s, headers=(*s.headers, ("x-amz-date", s.value("x-amz-date")))),
    lambda s: replace(s, headers=(*s.headers, ("Authorization", s.value("authorization")))),
    lambda s: s.with_header("Transfer-Encoding", "chunked"),
    lambda s: s.with_header("Upgrade", "h2c"),
    lambda s: s.with_header("Content-Length", "-1"),
    lambda s: s.with_header("Content-Length", "1e3"),
    lambda s: s.with_header("Content-Length", str(MAX_BODY + 1)),
    lambda s: s.with_header("Content-Length", "4"),
    lambda s: s.with_header("X-Any", "ü"),
    lambda s: replace(s, version="2"),
    lambda s: replace(s, target="/images/a%zz.png"),
    lambda s: replace(s, target="/images/%ff"),
    lambda s: replace(s, target="/images/a.png?a=%ff"),
    lambda s: replace(s, target="/images/a.png?&"),
    lambda s: replace(s, target="/images/a.png?prefix=a&prefix=b"),
    lambda s: replace(s, target="images/a.png"),
    lambda s: replace(s, target="http://127.0.0.1:9000/images/a.png"),
])  # fmt: skip
def test_what_could_mean_two_things_is_refused(change: Any) -> None:
    server = Server()
    assert server.ask(change(signed("PUT", body=b"bytes"))).status in FORBIDDEN
    assert not server.through


@pytest.mark.parametrize("host", ["127.0.0.1:1234", "localhost:9000", "localhost"])
def test_behind_another_port_it_is_the_same_server(host: str) -> None:
    """A tunnel, or the proxy of the fault schedules."""
    request = AWSRequest("GET", f"http://{host}/images/a")
    request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(b"").hexdigest()
    S3SigV4Auth(Credentials(KEY.name, KEY.secret), "s3", "us-east-1").add_auth(request)
    assert Server().ask(Sent("GET", "/images/a", (("Host", host), *request.headers.items()))).status == 200


def test_a_long_key_and_a_form_are_refused() -> None:
    server = Server()
    assert server.ask(signed("PUT", "/images/" + "a" * 1024)).status == 200
    assert server.ask(signed("PUT", "/images/" + "a" * 1025)).status == 400
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert server.ask(signed("POST", "/images", body=b"--x--", headers=form)).status == 405
    assert len(server.through) == 1


def test_no_answer_opens_a_door_to_pages() -> None:
    for answer in (Server().ask(signed()), Server().ask(signed(key=WRONG_SECRET)), Server().ask(signed("HEAD"))):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_operation_that_is_served_comes_through() -> None:
    server = Server()
    places = {"server": "/", "bucket": "/images", "object": "/images/a"}
    for (method, of), words in SERVED.items():
        assert server.ask(signed(method, f"{places[of]}?{'&'.join(sorted(words))}")).status == 200, (method, of)
    assert len(server.through) == len(SERVED)


def test_two_thousand_damaged_requests_never_come_through_and_never_stop_the_server() -> None:
    random, server = Random(12), Server()
    makers = (lambda: signed("PUT", "/images/a?partNumber=1&uploadId=u", body=b"bytes"), lambda: presigned("DELETE"))
    for _ in range(2000):
        assert server.ask(_damaged(random, random.choice(makers)())).status in FORBIDDEN
    assert not server.through


def _damaged(random: Random, sent: Sent) -> Sent:
    """One character changed in the target, or in a header that is signed."""
    names = [i for i, (n, _) in enumerate(sent.headers) if n.lower() in {"host", "authorization", "x-amz-date",
                                                                       "x-amz-content-sha256"}]  # fmt: skip
    where = random.choice([None, *names])
    if where is None:
        return replace(sent, target=_mutated(random, sent.target))
    name, value = sent.headers[where]
    headers = [*sent.headers[:where], (name, _mutated(random, value)), *sent.headers[where + 1 :]]
    return replace(sent, headers=tuple(headers))


def _mutated(random: Random, text: str) -> str:
    place = random.randrange(len(text))
    other = random.choice([c for c in "abcXYZ019/%&=?.;,-+\x00\n é" if c.lower() != text[place].lower()])
    return text[:place] + other + text[place + 1 :]
