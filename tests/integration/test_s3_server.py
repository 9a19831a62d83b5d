"""The embedded S3 server as a process: what S3 clients rely on, what nobody else gets, and what a kill leaves."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Barrier, Thread
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from embedded.environments import DEFAULT_ROOT
from embedded.ports import LOOPBACK, is_free, pick_port
from embedded.s3.signature import Key
from embedded.services import CODE, ServicePlace, s3_service, s3_storage
from embedded.supervisor import Supervisor
from labelloop.config.settings import load_settings
from labelloop.objects.s3_client import s3_client
from tests.integration.conftest import KEYS, PROGRAMS, S3_KEY

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PATH_STYLE = {"addressing_style": "path"}
FORMER = Key("test", "test")


def client(endpoint: str, key: Key = S3_KEY, **config: Any) -> S3Client:
    settings = Config(s3=PATH_STYLE, retries={"max_attempts": 1}, **{"signature_version": "s3v4", **config})
    return boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=key.name, aws_secret_access_key=key.secret,
                        region_name="us-east-1", config=settings)  # fmt: skip


@pytest.fixture
def s3(s3_endpoint: str) -> Iterator[S3Client]:
    s3_client = client(s3_endpoint)
    yield s3_client
    s3_client.close()


@pytest.fixture
def bucket(s3: S3Client) -> str:
    name = f"test-{secrets.token_hex(4)}"
    s3.create_bucket(Bucket=name)
    return name


def status_of(call: Callable[[], object]) -> int:
    try:
        call()
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    return 200


# --- who is let in


@pytest.mark.parametrize("key", [Key(S3_KEY.name, "test"), FORMER, Key("123456789012", "x"), Key("a", S3_KEY.secret)])
def test_another_key_or_secret_is_refused_everywhere(s3_endpoint: str, s3: S3Client, bucket: str, key: Key) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"kept")
    stranger = client(s3_endpoint, key)
    for call in everything(stranger, bucket):
        assert status_of(call) == 403
    stranger.close()
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"kept"


def test_who_does_not_sign_is_refused_everywhere(s3_endpoint: str, s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"kept")
    nobody = client(s3_endpoint, signature_version=UNSIGNED)
    for call in everything(nobody, bucket):
        assert status_of(call) == 403
    nobody.close()
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"kept"


def everything(s3: S3Client, bucket: str) -> list[Callable[[], object]]:
    """One call of each kind: read, list, write, erase, make."""
    return [
        s3.list_buckets,
        partial(s3.create_bucket, Bucket="theirs"),
        partial(s3.head_bucket, Bucket=bucket),
        partial(s3.list_objects_v2, Bucket=bucket),
        partial(s3.get_object, Bucket=bucket, Key="a"),
        partial(s3.put_object, Bucket=bucket, Key="a", Body=b"x" * 100_000),
        partial(s3.delete_object, Bucket=bucket, Key="a"),
        partial(s3.delete_objects, Bucket=bucket, Delete={"Objects": [{"Key": "a"}]}),
        partial(s3.delete_bucket, Bucket=bucket),
        partial(s3.create_multipart_upload, Bucket=bucket, Key="b"),
    ]


def test_a_presigned_address_works_until_it_expires(s3_endpoint: str, s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a b/ü+(1).png", Body=b"image")
    ours = s3_client(load_settings({"LABELLOOP_S3_ENDPOINT": s3_endpoint, **KEYS}))
    parameters = {"Bucket": bucket, "Key": "a b/ü+(1).png", "ResponseContentType": "image/png"}
    url = ours.generate_presigned_url("get_object", Params=parameters, ExpiresIn=2)
    answer = httpx.get(url)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"image", "image/png")
    assert httpx.get(url.replace(bucket, f"{bucket}x")).status_code == 403
    assert httpx.delete(url).status_code == 403
    time.sleep(3)
    assert httpx.get(url).status_code == 403
    ours.close()


FOREIGN = [
    ("POST", "/_ministack/reset", {}),
    ("GET", "/_ministack/health", {}),
    ("POST", "/_ministack/config", {}),
    ("GET", "/_localstack/health", {}),
    ("GET", "/health", {}),
    ("POST", "/2015-03-31/functions", {}),
    ("GET", "/2015-03-31/functions/", {}),
    ("POST", "/", {"X-Amz-Target": "DynamoDB_20120810.ListTables"}),
    ("POST", "/", {"Content-Type": "application/x-www-form-urlencoded"}),
    ("GET", "/?Action=ListUsers&Version=2010-05-08", {}),
    ("POST", "/?Action=CreateQueue&QueueName=q", {}),
    ("GET", "/v2/_catalog", {}),
    ("GET", "/latest/meta-data/", {}),
    ("GET", "/restapis", {}),
    ("GET", "/", {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request, "
                  "SignedHeaders=host, Signature=" + "0" * 64}),
    ("OPTIONS", "/images/a", {"Access-Control-Request-Method": "PUT"}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "headers"), FOREIGN)
def test_there_is_no_cloud_and_no_cors(s3_endpoint: str, method: str, path: str, headers: dict[str, str]) -> None:
    answer = httpx.request(method, s3_endpoint + path, headers={"Origin": "http://evil.example", **headers},
                           content=b"Action=CreateUser" if method == "POST" else None)  # fmt: skip
    assert answer.status_code in {400, 403, 405, 501}
    assert not [name for name in answer.headers if name.startswith("access-control")]


HOSTILE = {
    "a foreign name": b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\n\r\n",
    "two names": b"GET / HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\n\r\n",
    "an absolute address": b"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "chunked": b"PUT /b/a HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "both lengths": b"PUT /b/a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nPOST /_ministack/reset HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "two lengths": b"PUT /b/a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a request in the body of a refused one": b"PUT /b/a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99\r\n"
    b"Expect: 100-continue\r\n\r\nGET / HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "slashes": b"POST //_ministack/reset HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n",
    "encoded slashes": b"POST /%2F_ministack%2Freset HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n",
    "dots": b"POST /b/../_ministack/reset HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n",
    "a huge header": b"GET / HTTP/1.1\r\nHost: {host}\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: {host}\r\n" + b"".join(b"X%d: a\r\n" % i for i in range(5000)) + b"\r\n",
    "a huge line": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "no http": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\x00" * 64,
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "an upgrade to http 2": b"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
    "a web socket": b"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "nul": b"GET /\x00 HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: AWS4-HMAC-SHA256\r\n Credential=x\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_are_refused_and_do_not_stop_the_server(s3_endpoint: str, s3: S3Client, what: str) -> None:
    host = s3_endpoint.removeprefix("http://")
    before = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    answer = spoken(host, HOSTILE[what].replace(b"{host}", host.encode()))
    statuses = [line.split()[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert all(status.startswith((b"4", b"5")) for status in statuses), answer[:300]
    assert b"access-control" not in answer.lower()
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == before


def spoken(host: str, sent: bytes) -> bytes:
    """What a server says to these bytes until it hangs up, or says no more for a while."""
    address, _, port = host.partition(":")
    heard = b""
    with socket.create_connection((address, int(port)), 2) as line:
        line.settimeout(1)
        try:
            line.sendall(sent)
            while chunk := line.recv(65536):
                heard += chunk
        except OSError:  # it hung up, or waits for more
            pass
    return heard


# --- what S3 clients rely on


@pytest.mark.parametrize("writes", ["create", "replace"])
def test_one_of_sixteen_conditional_writers_wins(s3: S3Client, bucket: str, writes: str) -> None:
    condition = {"IfNoneMatch": "*"}
    if writes == "replace":
        condition = {"IfMatch": s3.put_object(Bucket=bucket, Key="log", Body=b"0")["ETag"]}
    barrier, statuses = Barrier(16), list[int]()

    def write(number: int) -> None:
        barrier.wait()
        statuses.append(status_of(partial(s3.put_object, Bucket=bucket, Key="log", Body=b"%d" % number, **condition)))

    threads = [Thread(target=write, args=(number,)) for number in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [412] * 15


def test_conditions_are_those_of_s3(s3: S3Client, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"1")["ETag"]
    put = partial(s3.put_object, Bucket=bucket, Body=b"2")
    assert status_of(partial(put, Key="a", IfNoneMatch="*")) == 412
    assert status_of(partial(put, Key="a", IfMatch='"0"')) == 412
    assert status_of(partial(put, Key="b", IfMatch=etag)) == 404
    assert status_of(partial(put, Key="a", IfMatch=etag)) == 200
    assert status_of(partial(s3.get_object, Bucket=bucket, Key="a", IfMatch=etag)) == 412
    now = s3.head_object(Bucket=bucket, Key="a")["ETag"]
    assert status_of(partial(s3.get_object, Bucket=bucket, Key="a", IfNoneMatch=now)) == 304


def test_parts_ranges_copies_and_versions(s3: S3Client, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big", Metadata={"a": "b"})["UploadId"]
    data = [os.urandom(5 * 1024 * 1024), b"end"]
    parts = [{"ETag": s3.upload_part(Bucket=bucket, Key="big", UploadId=upload, PartNumber=n, Body=d)["ETag"],
              "PartNumber": n} for n, d in enumerate(data, 1)]  # fmt: skip
    s3.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=upload, MultipartUpload={"Parts": parts})  # type: ignore[typeddict-item]
    assert s3.get_object(Bucket=bucket, Key="big", Range="bytes=5242878-")["Body"].read() == data[0][-2:] + b"end"
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "big"})
    assert s3.head_object(Bucket=bucket, Key="copy")["Metadata"] == {"a": "b"}
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="v", Body=b"1")["VersionId"]
    s3.put_object(Bucket=bucket, Key="v", Body=b"2")
    assert s3.get_object(Bucket=bucket, Key="v", VersionId=first)["Body"].read() == b"1"
    keys = [{"Key": key} for key in ("big", "copy", "v")]
    assert len(s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})["Deleted"]) == 3  # type: ignore[typeddict-item]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("key", ["x", "x/y", "x/y/z", "a" * 300, "a//b", "/a", "a/", "../a", "ü +%&?=#'\"()*", "a\nb"])
def test_keys_of_every_form_are_kept(s3: S3Client, bucket: str, key: str) -> None:
    for stored in ("x", key):
        s3.put_object(Bucket=bucket, Key=stored, Body=stored.encode())
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 1})
    assert {item["Key"] for page in pages for item in page["Contents"]} == {"x", key}


# --- what is kept


@contextmanager
def running(directory: Path, key: Key = S3_KEY) -> Iterator[tuple[str, Supervisor]]:
    """A server of one's own on this directory: (endpoint, its supervisor)."""
    place = ServicePlace(directory, pick_port(), directory.parent / "s3.log", dict(os.environ))
    supervisor = Supervisor([s3_service(place, key, PROGRAMS)], mark=str(directory))
    supervisor.start()
    try:
        supervisor.wait_ready()
        yield f"http://{LOOPBACK}:{place.port}", supervisor
    finally:
        supervisor.stop()


def test_a_kill_forgets_nothing_and_nobody_else_may_look(tmp_path: Path) -> None:
    with running(tmp_path / "s3") as (endpoint, supervisor):
        s3 = client(endpoint)
        s3.create_bucket(Bucket="empty")
        s3.create_bucket(Bucket="kept")
        s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
        s3.put_object(Bucket="kept", Key="a/b", Body=b"1", Metadata={"a": "b"})
        pid = supervisor.statuses()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        supervisor.wait_ready()
        end = time.monotonic() + 30
        while not restarted(supervisor, pid):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert [row["Name"] for row in s3.list_buckets()["Buckets"]] == ["empty", "kept"]
        assert s3.get_bucket_versioning(Bucket="kept")["Status"] == "Enabled"
        answer = s3.get_object(Bucket="kept", Key="a/b")
        assert (answer["Body"].read(), answer["Metadata"]) == (b"1", {"a": "b"})
        s3.close()
    open_to_others = [p for p in (tmp_path / "s3").rglob("*") if p.stat().st_mode & 0o077]
    assert not open_to_others
    assert (tmp_path / "s3").stat().st_mode & 0o777 == 0o700


def restarted(supervisor: Supervisor, former: int) -> bool:
    (status,) = supervisor.statuses()
    return status.pid not in {None, former} and status.state == "ready"


@contextmanager
def the_whole_emulator(directory: Path) -> Iterator[str]:
    """ministack as earlier releases of labelloop ran it."""
    port = pick_port()
    directory.mkdir()
    env = {"PATH": os.defpath, "BIND_HOST": LOOPBACK, "GATEWAY_PORT": str(port), "TMPDIR": str(directory),
           "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0", "DOCKER_HOST": f"unix://{directory}/no.sock",
           **s3_storage(directory)}  # fmt: skip
    server = subprocess.Popen([DEFAULT_ROOT / "s3" / "bin" / "ministack"], env=env, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while is_free(port):
            assert time.monotonic() < end
            time.sleep(0.1)
        yield f"http://{LOOPBACK}:{port}"
    finally:
        server.terminate()
        server.wait(30)


def test_what_an_earlier_release_has_kept_is_there_under_the_new_key_and_nothing_that_acts(tmp_path: Path) -> None:
    with the_whole_emulator(tmp_path / "s3") as endpoint:
        before = client(endpoint, FORMER)
        before.create_bucket(Bucket="labelloop")
        for i in range(3):
            before.put_object(Bucket="labelloop", Key=f"projects/{i}", Body=b"%d" % i)
        before.put_bucket_versioning(Bucket="labelloop", VersioningConfiguration={"Status": "Enabled"})
        _plant(before, endpoint)
        before.close()
    assert "arn:aws:sqs" in (tmp_path / "s3" / "state" / "s3.json").read_text(), "nothing was planted"
    with running(tmp_path / "s3") as (endpoint, _):
        after, stranger = client(endpoint), client(endpoint, FORMER)
        assert [after.get_object(Bucket="labelloop", Key=f"projects/{i}")["Body"].read() for i in range(3)] == [
            b"0", b"1", b"2",
        ]  # fmt: skip
        assert after.get_bucket_versioning(Bucket="labelloop")["Status"] == "Enabled"
        assert status_of(partial(stranger.get_object, Bucket="labelloop", Key="projects/0")) == 403
        after.put_object(Bucket="labelloop", Key="projects/3", Body=b"3")
        after.create_bucket(Bucket="images")
        for connection in (after, stranger):
            connection.close()
    kept = json.loads((tmp_path / "s3" / "state" / "s3.json").read_text())["payload"]
    assert set(kept) == {"buckets_meta", "bucket_versioning"}


def _plant(s3: S3Client, endpoint: str) -> None:
    """As a web page could: each new object makes the emulator act."""
    sqs = boto3.client("sqs", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test",
                       region_name="us-east-1")  # fmt: skip
    sqs.create_queue(QueueName="q")
    sqs.close()
    arn = "arn:aws:sqs:us-east-1:000000000000:q"
    s3.put_bucket_notification_configuration(Bucket="labelloop", NotificationConfiguration={"QueueConfigurations": [
        {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}, SkipDestinationValidation=True)  # fmt: skip


def test_the_cloud_around_s3_cannot_even_be_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from embedded.s3.emulator import open_emulator; open_emulator()\n"
        "print([m for m in sys.modules if m.startswith('ministack.services.')])\n"
        "print(hasattr(sys.modules['ministack.app'], 'app'))\n"
        "import ministack.services.lambda_svc"
    )
    env = {"PATH": os.defpath, "PYTHONPATH": str(CODE), **s3_storage(tmp_path)}
    python = DEFAULT_ROOT / "s3" / "bin" / "python"
    done = subprocess.run([python, "-P", "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['ministack.services.s3']\nFalse"
    assert "not part of this server" in done.stderr
    assert done.returncode == 1
