"""The environment, read once into a frozen object; the only module that looks at it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from labelloop.errors import SettingsError

SHARED_WEIGHTS = Path("../shared/weights")
SHARED_DATA = Path("../shared/data")
GB = 1_000_000_000
PATHS = {"LABELLOOP_CACHE_DIR", "LABELLOOP_WEIGHTS", "LABELLOOP_TENSORBOARD_DIR", "LABELLOOP_DATA"}
LARGEST_SECRET = 65_536  # bytes; a device would never end
LOG_FORMS = ("json", "text")
SHORTEST_SECRET = 8  # shorter ones are words that stand everywhere, like the `test` of a local S3 server


@dataclass(frozen=True, slots=True)
class Settings:
    """What a deployment is made of. Secrets are left out of repr, so that no log shows them."""

    s3_endpoint: str | None
    s3_access_key: str | None
    s3_secret_key: str | None = field(repr=False)
    s3_region: str
    state_bucket: str
    image_buckets: tuple[str, ...]  # the allow-list: from no other bucket is an image ever read
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
    former_backend_passwords: tuple[str, ...] = field(default=(), repr=False)  # accepted, too, while one is replaced
    metrics_port: int | None = None  # of sync and the workers; the backend shows its own under /metrics
    metrics_bind: str = "127.0.0.1"
    image_hosts: tuple[str, ...] = ()  # the allow-list of the web: host or host:port
    image_hosts_private: bool = False  # these names may lead to private addresses
    cache_max_bytes: int = 50 * GB
    tensorboard_dir: Path | None = None  # where train workers write what TensorBoard shows
    api_url: str | None = None  # the REST API, as programs reach it
    dashboard_user: str = "labelloop"
    dashboard_password: str | None = field(default=None, repr=False)  # the dashboard's own; it shows nothing without
    mlflow_uri: str | None = field(default=None, repr=False)  # MLflow's own variable: a server that follows retrains
    studio_public_url: str | None = None  # where it differs from how our services reach it
    secret_files: Mapping[str, str] = field(default_factory=dict)  # secrets that came from files: variable -> path

    @property
    def studio_link(self) -> str:
        """Label Studio, as people open it."""
        return self.studio_public_url or self.studio_url

    @property
    def backend_passwords(self) -> tuple[str, ...]:
        """All that the backend accepts, the current one first; none: everybody is let in."""
        return () if self.backend_password is None else (self.backend_password, *self.former_backend_passwords)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value that is long enough to be told from a word: what no log may show."""
        inside = urlsplit(self.redis_url).password or ""
        values = (self.s3_secret_key, inside, unquote(inside), self.studio_token, self.dashboard_password,
                 *self.backend_passwords)  # fmt: skip
        return tuple(dict.fromkeys(text for text in values if text and len(text) >= SHORTEST_SECRET))

    def reread(self) -> Settings:
        """The same, with the secrets of files as the files say now. What cannot be read stays as it was.

        For a caller that was refused: the secret may have been replaced meanwhile.
        """
        try:
            secrets = _secrets({f"{name}_FILE": path for name, path in self.secret_files.items()})
        except SettingsError:  # just being replaced
            return self
        return replace(self, **secrets)

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
    _require_utf8(env)
    none = Settings(
        s3_endpoint=_url(env, "LABELLOOP_S3_ENDPOINT"),
        s3_access_key=None,
        s3_secret_key=None,
        s3_region=env.get("LABELLOOP_S3_REGION", "us-east-1"),
        state_bucket=env.get("LABELLOOP_STATE_BUCKET", "labelloop"),
        image_buckets=_words(env.get("LABELLOOP_IMAGE_BUCKETS", "images")),
        image_hosts=_words(env.get("LABELLOOP_IMAGE_HOSTS", "")),
        image_hosts_private=env.get("LABELLOOP_IMAGE_HOSTS_PRIVATE", "") not in {"", "0", "false"},
        redis_url="redis://127.0.0.1:6379/0",
        studio_url=(_url(env, "LABELLOOP_STUDIO_URL") or "http://127.0.0.1:8080").rstrip("/"),
        studio_public_url=(_url(env, "LABELLOOP_STUDIO_PUBLIC_URL") or "").rstrip("/") or None,
        studio_token=None,
        studio_server=_name(env, "LABELLOOP_STUDIO_SERVER", "main"),
        backend_url=(_url(env, "LABELLOOP_BACKEND_URL") or "http://127.0.0.1:9090").rstrip("/"),
        backend_user=env.get("LABELLOOP_BACKEND_USER", "labelloop"),
        backend_password=None,
        dashboard_url=_url(env, "LABELLOOP_DASHBOARD_URL"),
        api_url=(_url(env, "LABELLOOP_API_URL") or "").rstrip("/") or None,
        dashboard_user=env.get("LABELLOOP_DASHBOARD_USER", "labelloop"),
        cache_dir=_path(env.get("LABELLOOP_CACHE_DIR") or "~/.cache/labelloop", "LABELLOOP_CACHE_DIR"),
        weights_dirs=_weights(env),
        offline=env.get("LABELLOOP_OFFLINE", "") not in {"", "0", "false"},
        log_json=env.get("LABELLOOP_LOG", "json") == "json",
        metrics_port=_port(env, "LABELLOOP_METRICS_PORT"),
        metrics_bind=env.get("LABELLOOP_METRICS_BIND", "127.0.0.1"),
        cache_max_bytes=_gigabytes(env, "LABELLOOP_CACHE_MAX_GB", 50),
        tensorboard_dir=_folder(env, "LABELLOOP_TENSORBOARD_DIR"),
        mlflow_uri=env.get("MLFLOW_TRACKING_URI") or None,
    )
    settings = replace(none, **_secrets(env), secret_files=_secret_files(env))
    _check(settings)
    if bool(settings.s3_access_key) != bool(settings.s3_secret_key):
        missing = "LABELLOOP_S3_SECRET_KEY" if settings.s3_access_key else "LABELLOOP_S3_ACCESS_KEY"
        raise SettingsError(f"{missing} is missing beside its other half: set both, or neither")
    return settings


def _require_utf8(env: Mapping[str, str]) -> None:
    """Names of files may be any bytes; what goes into requests and headers may not. Never shows the value."""
    for name, value in env.items():
        if name.startswith("LABELLOOP_") and name not in PATHS and not name.endswith("_FILE"):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise SettingsError(f"{name} is not UTF-8: type or copy it again") from error


def _check(settings: Settings) -> None:
    """What clients would refuse much later, and in words of their own."""
    if not _is_address(settings.redis_url, {"redis", "rediss"}):
        raise SettingsError("LABELLOOP_REDIS_URL must look like redis://:PASSWORD@HOST:6379/0 (or rediss://)")
    if not re.fullmatch(r"[!-~]*", settings.studio_token or ""):
        raise SettingsError("LABELLOOP_STUDIO_TOKEN holds a space, a line break or a letter that no token has: copy it "
                            "again")  # fmt: skip
    if not settings.image_buckets:
        raise SettingsError("LABELLOOP_IMAGE_BUCKETS lists no bucket: name those that hold images, e.g. images")


def data_dir(environ: Mapping[str, str] | None = None) -> Path | None:
    """The folder of real images for tests and demos, where there is one."""
    env = os.environ if environ is None else environ
    folder = Path(env.get("LABELLOOP_DATA", SHARED_DATA))
    return folder.resolve() if folder.is_dir() else None


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of the environment for a child process."""
    return dict(os.environ if environ is None else environ)


def our_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Every ``LABELLOOP_*`` variable that is set, known or not."""
    env = os.environ if environ is None else environ
    return {name: value for name, value in env.items() if name.startswith("LABELLOOP_")}


def known_variables() -> frozenset[str]:
    """The names that are read, found by reading."""
    variables = _VariableNames()
    load_settings(variables)
    data_dir(variables)
    return frozenset(variables.names)


class _VariableNames(dict[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.names.add(key)
        return default


def share_counters(folder: Path) -> None:
    """Let the processes that are forked from now on keep their Prometheus counters in one folder."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def calm_mlflow() -> None:
    """Before MLflow is imported: it reports nothing to its makers, and a dead server costs seconds, not minutes."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


def shared_counters(environ: Mapping[str, str] | None = None) -> Path | None:
    """The folder where several processes keep their counters together; None where each keeps its own."""
    folder = (os.environ if environ is None else environ).get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


def _weights(env: Mapping[str, str]) -> tuple[Path, ...]:
    named = [Path(p) for p in env.get("LABELLOOP_WEIGHTS", "").split(os.pathsep) if p]
    return tuple(p.resolve() for p in [*named, SHARED_WEIGHTS] if os.path.exists(p))  # noqa: PTH110 -- never raises


def _folder(env: Mapping[str, str], name: str) -> Path | None:
    value = env.get(name, "")
    return _path(value, name) if value else None


def _path(value: str, name: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # a container's user may have no home
        raise SettingsError(f"{name} must name a folder: {value} cannot be found, there is no home (HOME)") from error


def _name(env: Mapping[str, str], name: str, default: str) -> str:
    value = env.get(name, default)
    if not re.fullmatch(r"[A-Za-z0-9]+", value):  # part of keys and job ids, which are split at "-" and "_"
        raise SettingsError(f"{name} may hold letters and digits only, not {value!r}")
    return value


def _words(text: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in text.split(",") if w.strip())


def _secrets(env: Mapping[str, str]) -> dict[str, Any]:
    """Field -> value, of the secrets that are given."""
    passwords = _secret(env, "LABELLOOP_BACKEND_PASSWORD")
    lines = [line.strip() for line in (passwords or "").splitlines() if line.strip()]
    secrets: dict[str, Any] = {
        "s3_access_key": _secret(env, "LABELLOOP_S3_ACCESS_KEY"),
        "s3_secret_key": _secret(env, "LABELLOOP_S3_SECRET_KEY"),
        "redis_url": _secret(env, "LABELLOOP_REDIS_URL") or None,
        "studio_token": _secret(env, "LABELLOOP_STUDIO_TOKEN"),
        "dashboard_password": _secret(env, "LABELLOOP_DASHBOARD_PASSWORD"),
        "backend_password": lines[0] if lines else passwords,
        "former_backend_passwords": tuple(lines[1:]) if lines else None,
    }
    return {name: value for name, value in secrets.items() if value is not None}


def _secret(env: Mapping[str, str], name: str) -> str | None:
    """The variable, or the content of the file that ``<name>_FILE`` names (container secrets)."""
    path = env.get(f"{name}_FILE")
    if not path:
        return env.get(name)
    try:
        with Path(path).open("rb") as file:
            text = file.read(LARGEST_SECRET).decode().strip()
    except (OSError, ValueError) as error:  # ValueError: it is not UTF-8
        raise SettingsError(f"{name}_FILE names {path}, which cannot be read: {error}") from error
    if not text:
        raise SettingsError(f"{name}_FILE names {path}, which is empty")
    return text


def _secret_files(env: Mapping[str, str]) -> dict[str, str]:
    """Variable -> file, of those that `_secret` reads."""
    named = {name.removesuffix("_FILE"): path for name, path in env.items() if name.endswith("_FILE") and path}
    return {name: path for name, path in named.items() if name.startswith("LABELLOOP_")}


def _url(env: Mapping[str, str], name: str) -> str | None:
    value = (env.get(name) or "").strip()
    if value and not _is_address(value, {"http", "https"}):
        raise SettingsError(f"{name} must begin with http:// or https:// and name a host, e.g. http://127.0.0.1:8080")
    return value or None


def _is_address(value: str, schemes: set[str]) -> bool:
    """A scheme, a host and perhaps a port: what every client takes."""
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:  # brackets, ports and names that are none
        return False
    return parts.scheme in schemes and bool(host) and port != 0 and re.search(r"[\s\x00-\x1f]", value) is None


def _gigabytes(env: Mapping[str, str], name: str, default: float) -> int:
    """In bytes."""
    value = env.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        raise SettingsError(f"{name} must be a number of gigabytes, e.g. 50 or 0.5, not {value!r}")
    return int(float(value) * GB)


def _port(env: Mapping[str, str], name: str) -> int | None:
    value = env.get(name, "")
    if not value:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 0 < int(value) < 65536:
        raise SettingsError(f"{name} must be a port, 1 to 65535, or empty, not {value!r}")
    return int(value)
