"""A client of Redis: time-outs, retries, and a password that may be replaced."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit, urlunsplit

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from labelloop.config.settings import Settings
from labelloop.errors import SettingsError


def connect(url: str, *, timeout_s: float | None = 5.0, credentials: CredentialProvider | None = None) -> Redis:
    """A client that retries a lost connection briefly; opens nothing yet.

    ``timeout_s`` None: RQ's own, for a worker that waits minutes for its next job. ``credentials``: asked at each new
    connection, where the address holds none.
    """
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 3)
    return Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=2, retry=retry, health_check_interval=15,
        credential_provider=credentials,
    )  # fmt: skip


def redis_client(settings: Settings, *, timeout_s: float | None = 5.0) -> Redis:
    """A client of the settings' Redis; where its address lies in a file, each new connection reads the password."""
    parts = urlsplit(settings.redis_url)
    followed = "LABELLOOP_REDIS_URL" in settings.secret_files and parts.password
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    try:
        if followed:
            return connect(bare, timeout_s=timeout_s, credentials=FollowedPassword(settings))
        return connect(settings.redis_url, timeout_s=timeout_s)
    except (ValueError, TypeError) as error:  # what stands behind the ? goes to the client library
        raise SettingsError(f"LABELLOOP_REDIS_URL holds an option that cannot be ({error}): leave out what stands "
                            "behind the ?") from error  # fmt: skip


class FollowedPassword(CredentialProvider):
    """User and password as the address's file says now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        parts = urlsplit(self._settings.reread().redis_url)
        password = unquote(parts.password or "")
        return (unquote(parts.username), password) if parts.username else (password,)
