"""An address of the web in, whether it may be fetched out, in words. Pure; `web` asks before each connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from labelloop.errors import SettingsError
from labelloop.images.reader import short

PORTS = {"http": 80, "https": 443}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# where clouds keep credentials, beside the link-local addresses
METADATA = tuple(map(ipaddress.ip_network, (
    "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",  # Alibaba, Azure, Oracle
    "fd00:ec2::/32", "fd20:ce::/32", "fd00:42::42/128",  # Amazon, Google, Scaleway
)))  # fmt: skip
# of the addresses in use, those that the `ipaddress` of some Python takes for public
SPECIAL = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20"))
)
UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is given out to the public
# an IPv4 address in the last 32 bits: compatible, mapped, translated, NAT64
LAST_BITS = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")  # of the operator, who may cut it in four ways (RFC 6052)
ISATAP = {0x00005EFE, 0x02005EFE}


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
        target = _target(url)
        if target is None:
            return f"{short(url)} is no http:// or https:// address of a host, without user and password"
        if self._lists(target):
            return target
        return f"{short(url)} is on {target.name}, which is not allowed; add it to LABELLOOP_IMAGE_HOSTS"

    def refusal(self, target: Target, address: Address) -> str | None:
        """Why a listed target may not be connected to under this address, or None where it may."""
        if target.address is not None:  # an address that is listed was meant
            return None
        closed = _is_closed(address)
        if not closed and (self.private or _is_public(address)):
            return None
        remedy = "list the address itself in LABELLOOP_IMAGE_HOSTS"
        if not closed:
            remedy += ", or set LABELLOOP_IMAGE_HOSTS_PRIVATE=1"
        return f"{target.host} leads to {address}, which is not public: {remedy}"

    def _lists(self, target: Target) -> bool:
        own = PORTS[target.scheme] == target.port
        return (target.host, target.port) in self.entries or (own and (target.host, None) in self.entries)


def parse_hosts(words: Sequence[str], *, private: bool) -> Hosts:
    """From the settings; SettingsError names the entry that is none."""
    hosts = set()
    for word in words:
        target = _target(f"http://{word}")
        if target is None or not target.port or set(word) & set("/*#?"):
            raise SettingsError(
                f"LABELLOOP_IMAGE_HOSTS: {word!r} is no host or host:port (no scheme, path or wildcard)"
            )
        hosts.add((target.host, target.port if urlsplit(f"http://{word}").port else None))
    return Hosts(frozenset(hosts), private)


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


def _is_closed(address: Address) -> bool:
    """Whether a name may never lead there, or to what lies inside: link-local, or a cloud's metadata."""
    addresses = (address, *_inside(address))
    return any(a.is_link_local or any(a in net for net in METADATA) for a in addresses)


def _is_public(address: Address) -> bool:
    inner = _inside(address)
    if inner:
        return address not in LOCAL_NAT64 and all(map(_is_public, inner))
    if address.is_multicast or not address.is_global or any(address in net for net in SPECIAL):
        return False
    return address.version == 4 or address in UNICAST


def _inside(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The addresses of the older kind that a newer one stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    bits = int(address)
    if address.teredo:
        return address.teredo  # its relay and its client
    if address.sixtofour:
        return (address.sixtofour,)
    if address in LOCAL_NAT64:
        return tuple(_cut(bits, prefix) for prefix in (48, 56, 64, 96))
    if any(address in net for net in LAST_BITS) or (bits >> 32) & 0xFFFFFFFF in ISATAP:
        return (_cut(bits, 96),)
    return ()


def _cut(bits: int, prefix: int) -> ipaddress.IPv4Address:
    """The 32 bits behind a prefix, without the byte in the middle that RFC 6052 leaves empty."""
    if prefix < 96:
        bits = (bits >> 64 << 56) | (bits & (1 << 56) - 1)
        return ipaddress.IPv4Address(bits >> (88 - prefix) & 0xFFFFFFFF)
    return ipaddress.IPv4Address(bits & 0xFFFFFFFF)
