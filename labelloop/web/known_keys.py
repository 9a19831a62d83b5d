"""API keys as one process knows them: read from the bucket every two seconds, asked for from memory alone.

A revocation counts within two seconds. Where the bucket is away the last copy counts for an hour, then none does:
nobody could revoke meanwhile. Redis is not asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from labelloop.errors import LabelloopError
from labelloop.records.api_keys import ApiKey
from labelloop.rules.api_keys import UNKNOWN, KeyRefusal, parts_of, refusal
from labelloop.store.api_keys import ApiKeyStore

EVERY_S = 2.0
STALE_S = 3600.0
NOT_READ = KeyRefusal(503, "the API keys cannot be read from object storage; try again soon")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Copy:
    keys: Mapping[str, ApiKey]  # by id
    at: float


class KnownKeys:
    """Safe to share between threads; a request never waits for the bucket."""

    def __init__(self, store: ApiKeyStore, *, every_s: float = EVERY_S, stale_s: float = STALE_S) -> None:
        self._store, self._every_s, self._stale_s = store, every_s, stale_s
        self._copy: _Copy | None = None
        self._away = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)

    def start(self) -> None:
        """Read from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more; a read that hangs is not waited for."""
        self._stop.set()

    def find(self, authorization: str | None) -> ApiKey | KeyRefusal:
        """The key that a header ``Authorization: Bearer …`` holds, or why there is none that counts."""
        scheme, _, text = (authorization or "").partition(" ")
        parts = parts_of(text.strip()) if scheme.lower() == "bearer" else None
        if parts is None:
            return KeyRefusal(401, UNKNOWN)
        copy = self._copy
        if copy is None or not self.known():
            return NOT_READ
        key = copy.keys.get(parts[0])
        why = refusal(key, parts[1], datetime.now(UTC))
        return why or key or NOT_READ

    def known(self) -> bool:
        """Whether the keys were read, and not too long ago."""
        copy = self._copy
        return copy is not None and time.monotonic() - copy.at <= self._stale_s

    def read(self) -> None:
        """Once; what cannot be read now stays as it was."""
        at = time.monotonic()  # of the beginning: what is revoked meanwhile is seen by the next read
        try:
            keys = {key.id: key for key in self._store.all()}
        except LabelloopError as error:
            if not self._away:  # once per outage
                log.warning("the API keys cannot be read", action="keys", reason=str(error))
            self._away = True
            return
        self._copy, self._away = _Copy(keys, at), False

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.read()
            except Exception as error:  # a thread's edge: the next read tries again
                log.error("reading the API keys failed", action="keys", exc_info=error)
            self._stop.wait(self._every_s)
