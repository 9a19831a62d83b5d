"""No page of another origin acts in Label Studio with the session of a person who is signed in.

Label Studio switches Django's protection off for its API, and a session's cookie goes along from every other port of
this machine: to a browser, they are one site. What a browser says of a request's origin no page can forge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

FOREIGN = {"cross-site", "same-site"}


class OwnPagesAlone:
    """Django middleware."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Refuses what a page of elsewhere has sent; programs and people who follow a link are let through."""
        if from_elsewhere(request.headers, request.get_host()):
            from django.http import HttpResponseForbidden

            return HttpResponseForbidden("a page of another address may not do this\n", content_type="text/plain")
        return self._get_response(request)


def from_elsewhere(headers: Any, host: str) -> bool:
    """``headers``: any mapping that ignores case. ``host``: as the browser knows us."""
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return True
    follows_a_link = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return headers.get("Sec-Fetch-Site") in FOREIGN and not follows_a_link
