"""Basic auth on everything but what Label Studio cannot authenticate."""

from __future__ import annotations

import hmac
import threading
import time
from urllib.parse import urlsplit

from flask import Request
from werkzeug.datastructures import Authorization

from labelloop.config.settings import Settings
from labelloop.web.browsers import is_foreign_name, is_loopback

OPEN = frozenset({"health", "ready", "webhook"})  # endpoints; probes and Label Studio's own webhook send no credentials
LOOK_EVERY_S = 5.0  # how soon a withdrawn password no longer counts
LOOK_AGAIN_S = 1.0  # and a new one does; guessing cannot make us read more often


class AccessGate:
    """Who may ask. The passwords of a file are those that it holds now: the current one, and former ones below it."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._looked_at = settings, time.monotonic()
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """True where no password is set: everybody may ask."""
        return not self._settings.backend_passwords

    def goes_by(self, request: Request) -> bool:
        """False where this machine's own browser asks by a name that is somebody else's: DNS rebinding."""
        name = urlsplit(self._settings.backend_url).hostname
        return not is_loopback(request.remote_addr) or not is_foreign_name(request.headers.get("Host", ""), name)

    def permits(self, request: Request) -> bool:
        """True where the request may go on: the endpoint is open, no password is set, or the credentials are right."""
        return request.endpoint in OPEN or self.knows(request.authorization)

    def knows(self, credentials: Authorization | None) -> bool:
        """True where no password is set, or user and password are right."""
        if _right(credentials, self._now(LOOK_EVERY_S)):
            return True
        may_be_new = credentials is not None and bool(self._settings.secret_files)
        return may_be_new and _right(credentials, self._now(LOOK_AGAIN_S))

    def _now(self, older_than_s: float) -> Settings:
        if time.monotonic() - self._looked_at > older_than_s and self._lock.acquire(blocking=False):
            try:
                self._settings, self._looked_at = self._settings.reread(), time.monotonic()
            finally:
                self._lock.release()
        return self._settings


def _right(credentials: Authorization | None, settings: Settings) -> bool:
    """Compare in constant time; both parts always, and every password, so that none can be guessed alone."""
    if not settings.backend_passwords:
        return True
    if credentials is None or credentials.type != "basic":
        return False
    right_user = _same(credentials.username, settings.backend_user)
    right = [_same(credentials.password, password) for password in settings.backend_passwords]
    return right_user and any(right)


def _same(sent: str | None, expected: str) -> bool:
    return hmac.compare_digest((sent or "").encode(), expected.encode())
