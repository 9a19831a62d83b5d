"""An address of the web in, whether it may be fetched out, in words. Pure; `sync.web` asks before each connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from labelloop.errors import SettingsError
from labelloop.images import short

PORTS = {"http": 80, "https": 443}
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Target:
    """One place to connect to."""

    scheme: str
    host: str  # lower case, without brackets; a name as the DNS knows it, or an address
    port: int

    @property
    def name(self) -> str:
        """As it stands in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def address(self) -> Address | None:
        """Where the host is written as an address."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Hosts:
    """The allow-list: (host, port), a port of None for the scheme's own."""

    entries: frozenset[tuple[str, int | None]] = frozenset()
    private: bool = False  # names may lead to private and loopback addresses

    def target(self, url: str) -> Target | str:
        """Where a URL leads, or why it may not be followed."""
        found = _target(url)
        if found is None:
            return f"{short(url)} is no http:// or https:// address of a host, without user and password"
        if self._lists(found):
            return found
        return f"{short(url)} is on {found.name}, which is not allowed; add it to LABELLOOP_IMAGE_HOSTS"

    def refusal(self, target: Target, address: Address) -> str | None:
        """Why a listed target may not be connected to under this address, or None where it may."""
        if target.address is not None or _is_public(address):  # an address that is listed was meant
            return None
        if self.private and not address.is_link_local:  # link-local: where clouds keep credentials
            return None
        remedy = "list the address itself in LABELLOOP_IMAGE_HOSTS"
        if not address.is_link_local:
            remedy += ", or set LABELLOOP_IMAGE_HOSTS_PRIVATE=1"
        return f"{target.host} leads to {address}, which is not public: {remedy}"

    def _lists(self, target: Target) -> bool:
        own = PORTS[target.scheme] == target.port
        return (target.host, target.port) in self.entries or (own and (target.host, None) in self.entries)


def parse_hosts(words: Sequence[str], *, private: bool) -> Hosts:
    """From the settings; SettingsError names the entry that is none."""
    found = set()
    for word in words:
        target = _target(f"http://{word}")
        if target is None or "/" in word or "*" in word:
            raise SettingsError(
                f"LABELLOOP_IMAGE_HOSTS: {word!r} is no host or host:port (no scheme, path or wildcard)"
            )
        found.add((target.host, target.port if urlsplit(f"http://{word}").port else None))
    return Hosts(frozenset(found), private)


def _target(url: str) -> Target | None:
    if any(ord(c) < 32 for c in url) or "\\" in url:  # what readers of addresses disagree about
        return None
    try:
        parts = urlsplit(url)
        if any(c.isspace() for c in parts.netloc):
            return None
        port, host = parts.port, (parts.hostname or "").rstrip(".")
        name = host if ":" in host else host.encode("idna").decode()
    except (ValueError, UnicodeError):
        return None
    if parts.scheme not in PORTS or not name or parts.username is not None or parts.password is not None:
        return None
    return Target(parts.scheme, name.lower(), PORTS[parts.scheme] if port is None else port)


def _is_public(address: Address) -> bool:
    inner = _inside(address)
    if inner is not None:
        return _is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _inside(address: Address) -> ipaddress.IPv4Address | None:
    """The address of the older kind that a newer one stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
