"""Whether a web page is asking: programs call our services, and a page in somebody's browser has no business there."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

PRIVATE = (".localhost", ".local", ".internal", ".svc")  # of containers and clusters: in no public DNS
# what a browser adds by itself and no page can change; "none" is a person who typed the address
OF_PAGES = frozenset({"cross-site", "same-site", "same-origin"})


def asked_by_page(origin: str | None, fetch_site: str | None) -> bool:
    """True where a page's script, form or image has sent this: by its headers Origin and Sec-Fetch-Site."""
    return origin is not None or fetch_site in OF_PAGES


def is_foreign_name(host: str, ours: str | None = None) -> bool:
    """True where a Host header names somebody else's site: its page had that name lead to this machine (DNS rebinding).

    To its browser such a page is our own, so neither Origin nor Sec-Fetch-Site is sent. Addresses and names that nobody
    can own on the Internet are never foreign. ``ours``: the name by which we are called besides.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:  # brackets around what is no address
        return True
    return not (is_address(name) or "." not in name or name.endswith(PRIVATE) or name == ours)


def is_loopback(address: str | None) -> bool:
    """Whether this machine's own address is meant."""
    return address == "localhost" or (is_address(address or "") and ipaddress.ip_address(address or "").is_loopback)


def is_address(name: str) -> bool:
    """Whether a host is written as an address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def asked_from_elsewhere(headers: Any, host: str) -> bool:
    """True where a page of another origin has sent this to one that has pages of its own; a link may be followed.

    ``headers``: any mapping that ignores case. ``host``: our name and port, as the browser knows them. The embedded
    Label Studio has the same rule (`labelloop_pages`), in an environment that knows nothing of ours.
    """
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return True
    follows_a_link = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"} and not follows_a_link
