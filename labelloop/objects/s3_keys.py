"""Secrets replaced while a process runs: after a refusal, and for each new connection, files are read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, Credentials, ReadOnlyCredentials

from labelloop.config.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# HEAD has no body, so only the status shows it
REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden", "403"}
FRESH_S = 60.0  # a request signed just before the keys changed is tried once more, too
S3_KEYS = ("LABELLOOP_S3_ACCESS_KEY", "LABELLOOP_S3_SECRET_KEY")


class FollowedKeys(Credentials):
    """The key pair of the settings, replaced whole when its files hold another."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.s3_access_key or "", settings.s3_secret_key or "", method="labelloop")
        self._settings = settings
        self._lock = threading.Lock()
        self._pair = ReadOnlyCredentials(self.access_key, self.secret_key, None)
        self._changed_at = float("-inf")

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What the next request is signed with."""
        return self._pair

    def refused(self) -> bool:
        """Read the files again; True where the pair is another one, or was a moment ago."""
        with self._lock:
            fresh = self._settings.reread()
            pair = ReadOnlyCredentials(fresh.s3_access_key or "", fresh.s3_secret_key or "", None)
            if pair != self._pair:
                self._pair, self._changed_at = pair, time.monotonic()
            return time.monotonic() - self._changed_at < FRESH_S


class _OnlyThese(CredentialProvider):
    METHOD = "labelloop"

    def __init__(self, keys: FollowedKeys) -> None:
        super().__init__()
        self._keys = keys

    def load(self) -> Credentials:
        return self._keys


def following_client(settings: Settings, config: Config) -> S3Client:
    """An S3 client that reads its keys again when they are refused, and then repeats the request once."""
    keys = FollowedKeys(settings)
    session = botocore.session.get_session()
    session.register_component("credential_provider", CredentialResolver([_OnlyThese(keys)]))
    client = boto3.Session(botocore_session=session).client(
        "s3", endpoint_url=settings.s3_endpoint, region_name=settings.s3_region, config=config
    )

    def again(response: tuple[Any, Mapping[str, Any]] | None, attempts: int, **_: Any) -> float | None:
        """Botocore asks this after every answer: seconds to wait, or None for no other try."""
        code = str(response[1].get("Error", {}).get("Code", "")) if response else ""
        return 0 if attempts == 1 and code in REFUSED and keys.refused() else None

    client.meta.events.register_first("needs-retry.s3", again)  # type: ignore[arg-type]
    return client


def keys_are_followed(settings: Settings) -> bool:
    """True where the S3 keys lie in files, so that they can be replaced while we run."""
    return bool(settings.s3_access_key) and any(name in settings.secret_files for name in S3_KEYS)
