"""An allowed http(s) address in, its bytes out: resolved first, checked, and connected to that very address."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpcore

from labelloop.errors import ImageUnreadableError, SourceAwayError
from labelloop.images.reader import MAX_BYTES, short
from sync.images.hosts import Address, Hosts, Target

REDIRECTS = 5
CONNECT_S, READ_S, TOTAL_S = 5.0, 10.0, 30.0
AGAIN = {408, 425, 429, 500, 502, 503, 504}
MOVED = {301, 302, 303, 307, 308}
Resolve = Callable[[str, int], list[Address]]


@dataclass(frozen=True, slots=True)
class Fetched:
    """One image as its source gave it."""

    data: bytes
    etag: str | None = None
    modified: str | None = None
    location: str | None = None  # where to ask instead; then there are no bytes


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a name; SourceAwayError."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SourceAwayError(f"{host} cannot be resolved: {error}") from error
    return [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos]


class Web:
    """Fetches from hosts of the allow-list alone, also where they redirect to. Safe to share between threads."""

    def __init__(
        self, hosts: Hosts, *, max_bytes: int = MAX_BYTES, total_s: float = TOTAL_S, resolver: Resolve = resolve
    ) -> None:
        self._hosts, self._max_bytes, self._total_s, self._resolve = hosts, max_bytes, total_s, resolver
        self._tls = ssl.create_default_context()

    def get(self, url: str) -> Fetched:
        """The bytes; ImageUnreadableError where asking again is useless, SourceAwayError where it may help."""
        end = time.monotonic() + self._total_s
        for _ in range(REDIRECTS + 1):
            fetched = self._ask(url, end)
            if fetched.location is None:
                return fetched
            url = _joined(url, fetched.location)
        raise ImageUnreadableError(f"{short(url)} redirects more than {REDIRECTS} times")

    def _ask(self, url: str, end: float) -> Fetched:
        target = self._hosts.target(url)
        if isinstance(target, str):
            raise ImageUnreadableError(target)
        backend = _Pinned(self._addresses(target), end)
        timeouts = {"connect": CONNECT_S, "read": READ_S, "write": READ_S, "pool": CONNECT_S}
        headers = [("Host", target.name), ("Accept", "image/*"), ("Accept-Encoding", "identity"),
                   ("User-Agent", "labelloop"), ("Connection", "close")]  # fmt: skip
        try:
            with (
                httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
                pool.stream("GET", _url(target, url), headers=headers, extensions={"timeout": timeouts}) as answer,
            ):
                return self._read(url, answer)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError) as error:
            raise SourceAwayError(f"{short(url)}: {type(error).__name__} {error}") from error

    def _addresses(self, target: Target) -> list[str]:
        """Where a name leads, if all of it is allowed. Nobody resolves it again: the next answer may be another."""
        addresses = [target.address] if target.address is not None else self._resolve(target.host, target.port)
        for address in addresses:
            why = self._hosts.refusal(target, address)
            if why:
                raise ImageUnreadableError(why)
        if not addresses:
            raise SourceAwayError(f"{target.host} has no address")
        return [str(address) for address in addresses]

    def _read(self, url: str, answer: httpcore.Response) -> Fetched:
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in answer.headers}
        if answer.status in MOVED and "location" in headers:
            return Fetched(b"", location=headers["location"])
        _check_status(url, answer.status)
        if headers.get("content-encoding", "identity") != "identity":
            raise ImageUnreadableError(
                f"{short(url)} comes packed ({headers['content-encoding'][:20]}): not unpacked here"
            )
        data = capped(url, answer.iter_stream(), self._max_bytes, declared=headers.get("content-length"))
        return Fetched(data, headers.get("etag"), headers.get("last-modified"))


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:  # brackets around what is no address
        raise ImageUnreadableError(f"{short(url)} redirects to {short(location)!r}, which is no address") from error


def capped(uri: str, chunks: Iterable[bytes], limit: int, *, declared: str | None = None) -> bytes:
    """All of a stream; ImageUnreadableError as soon as it is too long, or says that it will be."""
    size, kept = int(declared) if declared and declared.isascii() and declared.isdigit() else 0, []
    if size <= limit:
        size = 0
        for chunk in chunks:
            size += len(chunk)
            if size > limit:
                break
            kept.append(chunk)
    if size > limit:
        raise ImageUnreadableError(f"{short(uri)} has more than {limit:,} bytes. Store a smaller copy of the image")
    return b"".join(kept)


def _check_status(url: str, status: int) -> None:
    if status == 200:
        return
    if status in AGAIN:
        raise SourceAwayError(f"{short(url)}: its server answers {status}")
    why = {401: "may not be read", 403: "may not be read", 404: "does not exist", 410: "does not exist"}.get(status)
    raise ImageUnreadableError(f"{short(url)} {why or 'cannot be read'}: its server answers {status}")


def _url(target: Target, url: str) -> httpcore.URL:
    """The address as it is sent: never another host than the one that was checked."""
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return httpcore.URL(scheme=target.scheme.encode(), host=target.host.encode(), port=target.port,
                        target=f"{path}?{query}".encode() if query else path.encode())  # fmt: skip


class _Pinned(httpcore.SyncBackend):
    """Connects to these addresses whatever the name, and gives up at one moment however slowly the bytes drip."""

    def __init__(self, addresses: Sequence[str], end: float) -> None:
        self._addresses, self._end = addresses, end

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        for i, address in enumerate(self._addresses):
            try:
                wait = _left(self._end, timeout)
                return _Timed(super().connect_tcp(address, port, wait, local_address, socket_options), self._end)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if i == len(self._addresses) - 1:
                    raise
        raise httpcore.ConnectError("no address")


class _Timed(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, end: float) -> None:
        self._stream, self._end = stream, end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._end, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._end, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, _left(self._end, timeout)), self._end)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(end: float, timeout: float | None) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("it takes too long")
    return left if timeout is None else min(left, timeout)
