"""An image's address in, its bytes out: from Label Studio under our account, or an allowed host."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

from labelloop.config.settings import Settings
from labelloop.errors import ImageUnreadableError, SourceAwayError, StudioError
from labelloop.images.mirror import CopySource, source_of
from labelloop.images.reader import MAX_BYTES, short
from labelloop.studio.client import Studio
from labelloop.studio.http import Stream
from sync.images.hosts import parse_hosts
from sync.images.web import MOVED, Fetched, Web, capped

STUDIO_S = 30.0  # of silence
PASSING = {401, 408, 429}  # 401: the token is just being replaced


class Fetcher:
    """Gets one image. Safe to share between threads."""

    def __init__(self, studio: Studio, web: Web, *, max_bytes: int = MAX_BYTES) -> None:
        self._studio, self._web, self._max_bytes = studio, web, max_bytes

    def __call__(self, uri: str) -> Fetched:
        """The bytes; ImageUnreadableError where asking again is useless, SourceAwayError where it may help."""
        if source_of(uri) is CopySource.WEB:
            return self._web.get(uri)
        fetched = self._from_studio(uri)
        if fetched.location is None:
            return fetched
        return replace(self._web.get(fetched.location), location=None)  # without our token: it leads elsewhere

    def _from_studio(self, uri: str) -> Fetched:
        parts = urlsplit(uri)
        path, params = parts.path, dict(parse_qsl(parts.query))
        try:
            with self._studio.http.stream(path, params=params, timeout_s=STUDIO_S) as answer:
                return self._read(uri, answer)
        except StudioError as error:
            raise SourceAwayError(f"{short(uri)}: {error}") from error

    def _read(self, uri: str, answer: Stream) -> Fetched:
        location = answer.headers.get("location")
        if answer.status in MOVED and location:
            if not location.startswith(("http://", "https://")):
                raise ImageUnreadableError(
                    f"{short(uri)}: Label Studio sends us to a page of its own; is the token valid?"
                )
            return Fetched(b"", location=location)
        if answer.status >= 500 or answer.status in PASSING:
            raise SourceAwayError(f"{short(uri)}: Label Studio answers {answer.status}")
        if answer.status != 200:
            raise ImageUnreadableError(f"{short(uri)} cannot be had from Label Studio: it answers {answer.status}")
        data = capped(uri, answer.chunks, self._max_bytes, declared=answer.headers.get("content-length"))
        return Fetched(data, answer.headers.get("etag"), answer.headers.get("last-modified"))


def make_fetcher(settings: Settings, studio: Studio) -> Fetcher:
    """From the environment's allow-list."""
    return Fetcher(studio, Web(parse_hosts(settings.image_hosts, private=settings.image_hosts_private)))
