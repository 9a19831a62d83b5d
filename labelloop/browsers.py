"""Whether a web page is asking: programs call our services, and a page in somebody's browser has no business there."""

from __future__ import annotations

# what a browser adds by itself and no page can change; "none" is a person who typed the address
OF_PAGES = frozenset({"cross-site", "same-site", "same-origin"})


def asked_by_page(origin: str | None, fetch_site: str | None) -> bool:
    """True where a page's script, form or image has sent this: by its headers Origin and Sec-Fetch-Site."""
    return origin is not None or fetch_site in OF_PAGES
