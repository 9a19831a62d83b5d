"""What a stack remembers between two starts: ports, secrets, who runs it (`<state-dir>/stack.json`, mode 0600)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from embedded.ports import LOOPBACK, is_free, pick_port
from embedded.s3.signature import Key as S3Key
from labelloop.errors import StackError

DEFAULT_STATE = Path(".labelloop")
STACK_FILE = "stack.json"
LOCK_FILE = "lock"
KNOWN_TO_ALL = "test"  # the S3 secret of every stack that was made before it had one of its own


@dataclass(frozen=True)
class Ports:
    """TCP ports on the loopback address."""

    label_studio: int
    valkey: int
    s3: int
    backend: int
    dashboard: int
    api: int


@dataclass(frozen=True)
class Secrets:
    """Generated once; never in argv, never in a log, hence not in `repr` either."""

    studio_email: str = "labelloop@example.com"
    studio_password: str = field(default_factory=lambda: secrets.token_urlsafe(15), repr=False)
    studio_token: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    valkey_password: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    backend_user: str = "labelloop"
    backend_password: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)
    dashboard_user: str = "labelloop"
    dashboard_password: str = field(default_factory=lambda: secrets.token_urlsafe(15), repr=False)
    s3_access_key: str = "labelloop"
    s3_secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(30), repr=False)

    @property
    def s3_key(self) -> S3Key:
        """The pair that the S3 server takes; no other."""
        return S3Key(self.s3_access_key, self.s3_secret_key)


@dataclass(frozen=True)
class RunningProcess:
    """A pid together with its start time, so that a pid that came back is not mistaken for it."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return start_time(self.pid) == self.started


@dataclass(frozen=True)
class StackState:
    """One stack; `supervisor` is None while nothing runs."""

    directory: Path
    ports: Ports
    secrets: Secrets
    supervisor: RunningProcess | None = None

    @property
    def studio_url(self) -> str:
        """Label Studio, for people and for us."""
        return _http(self.ports.label_studio)

    @property
    def s3_endpoint(self) -> str:
        """The S3 API."""
        return _http(self.ports.s3)

    @property
    def backend_url(self) -> str:
        """The ML backend, as Label Studio calls it."""
        return _http(self.ports.backend)

    @property
    def dashboard_url(self) -> str:
        """The queue's dashboard."""
        return _http(self.ports.dashboard)

    @property
    def api_url(self) -> str:
        """The REST API, for programs; its page is under /docs."""
        return _http(self.ports.api)

    @property
    def redis_url(self) -> str:
        """Holds the password."""
        return f"redis://:{self.secrets.valkey_password}@{LOOPBACK}:{self.ports.valkey}/0"

    @property
    def logs(self) -> Path:
        """One log per service."""
        return self.directory / "logs"


def _http(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        fields_after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields_after_name[0] in "ZX" else int(fields_after_name[19])


def open_state(state_dir: Path, report: Callable[[str], None]) -> StackState:
    """The state of the stack that is about to start; the caller holds the lock.

    Made at the first start. Later a free port replaces one that another program has taken, and `report` hears of it.
    """
    stored = load_state(state_dir)
    if stored is None:
        if (state_dir / "label-studio").exists():
            raise StackError(
                f"{state_dir / STACK_FILE} is missing although {state_dir} holds data: restore the file from a "
                f"backup, or delete {state_dir} and start over"
            )
        stored = StackState(state_dir, Ports(**_complete_ports({}, lambda _: None)), Secrets())
    ports = Ports(**_complete_ports(asdict(stored.ports), report))
    state = replace(stored, ports=ports, secrets=_private(stored.secrets, report), supervisor=None)
    save_state(state)
    return state


def _private(before: Secrets, report: Callable[[str], None]) -> Secrets:
    if before.s3_secret_key != KNOWN_TO_ALL:
        return before
    report("the S3 server has a key of its own from now on; Label Studio gets it, too")
    fresh = Secrets()
    return replace(before, s3_access_key=fresh.s3_access_key, s3_secret_key=fresh.s3_secret_key)


def _complete_ports(before: Mapping[str, int], report: Callable[[str], None]) -> dict[str, int]:
    ports: dict[str, int] = {}
    for name in (item.name for item in fields(Ports)):
        port = before.get(name, 0)
        if not port or not is_free(port):
            port = pick_port({*before.values(), *ports.values()})
            if name in before:
                report(f"port {before[name]} of {name} is taken by another program; it now uses {port}")
        ports[name] = port
    return ports


def load_state(state_dir: Path) -> StackState | None:
    """What is written in the state directory; None at a first start, StackError if it cannot be understood."""
    path = state_dir / STACK_FILE
    try:
        raw = json.loads(path.read_bytes())
        supervisor = raw.get("supervisor")
        return StackState(
            directory=state_dir,
            ports=Ports(**_complete_ports_offline(raw["ports"])),
            secrets=Secrets(**_readable(Secrets, raw["secrets"])),
            supervisor=None if supervisor is None else RunningProcess(**supervisor),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
            raise StackError(f"--state-dir {state_dir} is no folder ({error.strerror}): choose another one") from error
        raise StackError(f"{path} cannot be read ({error.strerror}): check the folder's permissions") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StackError(
            f"{path} cannot be read ({error}): restore it from a backup, or delete {state_dir} and start over"
        ) from error


def _complete_ports_offline(raw: Mapping[str, Any]) -> dict[str, int]:
    """Ports of services that did not exist when the file was written are 0 until the next start."""
    ports = {item.name: int(raw.get(item.name, 0)) for item in fields(Ports)}
    if not all(0 <= port < 65536 for port in ports.values()):
        raise ValueError("a port lies outside 0 to 65535")
    return ports


def _readable(kind: type[Secrets], raw: Mapping[str, Any]) -> dict[str, str]:
    return {item.name: str(raw[item.name]) for item in fields(kind) if item.name in raw}


def save_state(state: StackState) -> None:
    """Replaces stack.json in one step, readable by its owner alone."""
    raw = {
        "ports": asdict(state.ports),
        "secrets": asdict(state.secrets),
        "supervisor": None if state.supervisor is None else asdict(state.supervisor),
    }
    write_private(state.directory / STACK_FILE, json.dumps(raw, indent=2) + "\n")


def make_private(directory: Path) -> None:
    """A directory that its owner alone may look into."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)


def write_private(path: Path, text: str) -> None:
    """Replaces a file in one step, mode 0600 from its first byte on."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    beside.replace(path)


def running_stack(state_dir: Path) -> StackState | None:
    """The stack that runs on this directory now, or None."""
    state = load_state(state_dir)
    if state is None or state.supervisor is None or not state.supervisor.alive:
        return None
    return state


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Holds the directory (made with mode 0700) against a second stack; StackError names who has it.

    A file lock and not the pid in stack.json: it goes with the process, however that ends.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    state_dir.chmod(0o700)
    descriptor = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 32, 0).decode() or "unknown"
            raise StackError(
                f"a stack already runs on {state_dir} (pid {owner}): use it, stop it with `labelloop down`,"
                " or choose another --state-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
