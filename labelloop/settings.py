"""The environment, read once into a frozen object; the only module that looks at it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from labelloop.errors import SettingsError

SHARED_WEIGHTS = Path("../shared/weights")
SHARED_DATA = Path("../shared/data")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a deployment is made of. Secrets are left out of repr, so that no log shows them."""

    s3_endpoint: str | None
    s3_access_key: str | None
    s3_secret_key: str | None = field(repr=False)
    s3_region: str
    state_bucket: str
    image_buckets: tuple[str, ...]  # the allow-list: nothing else is ever fetched
    redis_url: str = field(repr=False)
    studio_url: str
    studio_token: str | None = field(repr=False)
    studio_server: str  # names the Label Studio server in project keys
    backend_url: str
    backend_user: str
    backend_password: str | None = field(repr=False)
    dashboard_url: str | None
    cache_dir: Path
    weights_dirs: tuple[Path, ...]
    offline: bool
    log_json: bool

    def require_studio_token(self) -> str:
        """The token; SettingsError where there is none."""
        if not self.studio_token:
            raise SettingsError(
                "LABELLOOP_STUDIO_TOKEN is not set: create an access token in Label Studio (Account & Settings) and "
                "put it there"
            )
        return self.studio_token


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from ``LABELLOOP_*`` variables; SettingsError names the variable that is wrong."""
    env = os.environ if environ is None else environ
    state_bucket = env.get("LABELLOOP_STATE_BUCKET", "labelloop")
    return Settings(
        s3_endpoint=_url(env, "LABELLOOP_S3_ENDPOINT"),
        s3_access_key=env.get("LABELLOOP_S3_ACCESS_KEY"),
        s3_secret_key=_secret(env, "LABELLOOP_S3_SECRET_KEY"),
        s3_region=env.get("LABELLOOP_S3_REGION", "us-east-1"),
        state_bucket=state_bucket,
        image_buckets=_words(env.get("LABELLOOP_IMAGE_BUCKETS", "images")),
        redis_url=_secret(env, "LABELLOOP_REDIS_URL") or "redis://127.0.0.1:6379/0",
        studio_url=(_url(env, "LABELLOOP_STUDIO_URL") or "http://127.0.0.1:8080").rstrip("/"),
        studio_token=_secret(env, "LABELLOOP_STUDIO_TOKEN"),
        studio_server=_name(env, "LABELLOOP_STUDIO_SERVER", "main"),
        backend_url=(_url(env, "LABELLOOP_BACKEND_URL") or "http://127.0.0.1:9090").rstrip("/"),
        backend_user=env.get("LABELLOOP_BACKEND_USER", "labelloop"),
        backend_password=_secret(env, "LABELLOOP_BACKEND_PASSWORD"),
        dashboard_url=_url(env, "LABELLOOP_DASHBOARD_URL"),
        cache_dir=Path(env.get("LABELLOOP_CACHE_DIR", "~/.cache/labelloop")).expanduser(),
        weights_dirs=_weights(env),
        offline=env.get("LABELLOOP_OFFLINE", "") not in {"", "0", "false"},
        log_json=env.get("LABELLOOP_LOG", "json") == "json",
    )


def data_dir(environ: Mapping[str, str] | None = None) -> Path | None:
    """The folder of real images for tests and demos, where there is one."""
    env = os.environ if environ is None else environ
    folder = Path(env.get("LABELLOOP_DATA", SHARED_DATA))
    return folder.resolve() if folder.is_dir() else None


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of the environment for a child process."""
    return dict(os.environ if environ is None else environ)


def _weights(env: Mapping[str, str]) -> tuple[Path, ...]:
    named = [Path(p) for p in env.get("LABELLOOP_WEIGHTS", "").split(os.pathsep) if p]
    return tuple(p.resolve() for p in [*named, SHARED_WEIGHTS] if p.exists())


def _name(env: Mapping[str, str], name: str, default: str) -> str:
    value = env.get(name, default)
    if not re.fullmatch(r"[A-Za-z0-9]+", value):  # part of keys and job ids, which are split at "-" and "_"
        raise SettingsError(f"{name} may hold letters and digits only, not {value!r}")
    return value


def _words(text: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in text.split(",") if w.strip())


def _secret(env: Mapping[str, str], name: str) -> str | None:
    """The variable, or the content of the file that ``<name>_FILE`` names (container secrets)."""
    if path := env.get(f"{name}_FILE"):
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise SettingsError(f"{name}_FILE names {path}, which cannot be read: {error}") from error
    return env.get(name)


def _url(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name)
    if value and urlsplit(value).scheme not in {"http", "https"}:
        raise SettingsError(f"{name} must begin with http:// or https://")
    return value or None
