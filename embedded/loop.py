"""labelloop's own services as processes of the embedded stack, and the environment they share."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedded.ports import LOOPBACK
from embedded.probes import TIMEOUT_S, http_answers, http_listens
from embedded.process import ServiceSpec
from embedded.state import StackState
from labelloop.errors import QueueError
from labelloop.queue.connection import connect
from labelloop.queue.heartbeat import alive

STORES = ("valkey", "s3")
# a process that shares two cores with the person's page must not spread over all of them
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
WORKER_GRACE_S = 15.0


def loop_environment(state: StackState) -> dict[str, str]:
    """What the services (and the `labelloop` command) must find in their environment; it holds secrets."""
    hidden = state.secrets
    return {
        "LABELLOOP_S3_ENDPOINT": state.s3_endpoint,
        "LABELLOOP_S3_ACCESS_KEY": hidden.s3_access_key,
        "LABELLOOP_S3_SECRET_KEY": hidden.s3_secret_key,
        "LABELLOOP_S3_REGION": "us-east-1",
        "LABELLOOP_STATE_BUCKET": "labelloop",
        "LABELLOOP_IMAGE_BUCKETS": "images",
        "LABELLOOP_REDIS_URL": state.redis_url,
        "LABELLOOP_STUDIO_URL": state.studio_url,
        "LABELLOOP_STUDIO_PUBLIC_URL": state.studio_url,
        "LABELLOOP_STUDIO_TOKEN": hidden.studio_token,
        "LABELLOOP_BACKEND_URL": state.backend_url,
        "LABELLOOP_BACKEND_USER": hidden.backend_user,
        "LABELLOOP_BACKEND_PASSWORD": hidden.backend_password,
        "LABELLOOP_DASHBOARD_URL": state.dashboard_url,
        "LABELLOOP_API_URL": state.api_url,
        "LABELLOOP_CACHE_DIR": str(state.directory / "cache"),
    }


def loop_services(state: StackState, env: Mapping[str, str], logs: Path) -> list[ServiceSpec]:
    """The services; `env` is the environment of the command itself, `loop_environment` is added to it here."""
    whole = {**env, **loop_environment(state), **_for_python(env)}
    resident = {**whole, **ONE_THREAD}
    sync = _beating(state, "sync", ("sync",), whole, logs)
    return [
        _backend(state, whole, logs),
        replace(sync, depends_on=STORES),  # it waits for Label Studio itself
        replace(_worker(state, "refresh", ("refresh", "score"), resident, logs), niceness=5, awaited=False),
        replace(_worker(state, "features", ("features",), whole, logs), niceness=10, awaited=False),
        replace(_worker(state, "train", ("train", "tune"), whole, logs), niceness=10, awaited=False),
        _api(state, resident, logs),
        _dashboard(state, env, logs),
    ]


def _for_python(env: Mapping[str, str]) -> dict[str, str]:
    """Children run the very code of the command, installed or not, and reach the loopback address without a proxy."""
    code = str(Path(__file__).parents[1])
    exempt = [item for item in (env.get("NO_PROXY") or env.get("no_proxy", "")).split(",") if item]
    no_proxy = ",".join([*exempt, LOOPBACK, "localhost"])
    path = ":".join(part for part in (code, env.get("PYTHONPATH")) if part)
    return {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "NO_PROXY": no_proxy, "no_proxy": no_proxy}


def _worker(state: StackState, name: str, queues: tuple[str, ...], env: Mapping[str, str], logs: Path) -> ServiceSpec:
    return _beating(state, name, ("retrain_worker", *queues), env, logs)


def _beating(state: StackState, name: str, module: tuple[str, ...], env: Mapping[str, str], logs: Path) -> ServiceSpec:
    """A service without a port: it is ready once its heartbeat is seen in Redis."""
    heartbeat = ExpectedHeartbeat(state.redis_url, module)
    return ServiceSpec(
        name=name,
        argv=(sys.executable, "-m", *module),
        env=env,
        prepare=heartbeat.forget_earlier,
        ready=heartbeat.has_come,
        ready_timeout_s=120.0,
        log=logs / f"{name}.log",
        stop_grace_s=WORKER_GRACE_S,
        depends_on=STORES,
    )


class ExpectedHeartbeat:
    """Waits for the heartbeat of a process that is about to start, not for one that a dead process left behind."""

    def __init__(self, redis_url: str, module: tuple[str, ...]) -> None:
        self._redis_url = redis_url
        self._kind = "sync:" if module == ("sync",) else "worker:"
        self._queues = list(module[1:])
        self._earlier: frozenset[str] = frozenset()

    def forget_earlier(self) -> None:
        """What beats now does not count; by name, for clocks may differ. A Redis that is away knows of none."""
        with suppress(QueueError), connect(self._redis_url, timeout_s=TIMEOUT_S) as redis:
            self._earlier = frozenset(alive(redis))

    def has_come(self) -> bool:
        """Asks once; raises QueueError if Redis does not answer."""
        with connect(self._redis_url, timeout_s=TIMEOUT_S) as redis:
            return any(self.matches(name, facts) for name, facts in alive(redis).items())

    def matches(self, name: str, facts: Mapping[str, Any]) -> bool:
        """Whether this is the process we wait for."""
        ours = name.startswith(self._kind) and facts.get("queues", []) == self._queues
        return ours and name not in self._earlier


# or each of its threads keeps memory of its own, and large blocks are never given back
BACKEND_MEMORY = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "4000000"}


def _backend(state: StackState, env: Mapping[str, str], logs: Path) -> ServiceSpec:
    """One process, or two would serve different versions; threads share the model."""
    bind = f"{LOOPBACK}:{state.ports.backend}"
    options = {
        "--config": "python:ml_backend.serve",
        "--worker-class": "ml_backend.drain.BufferingWorker",
        "--workers": "1",
        "--bind": bind,
        "--graceful-timeout": "20",
        "--timeout": "120",
    }
    flat = [word for pair in options.items() for word in pair]
    return ServiceSpec(
        name="ml_backend",
        argv=(sys.executable, "-m", "gunicorn", *flat, "--no-control-socket", "ml_backend.app:create_app()"),
        env={**env, **BACKEND_MEMORY},
        ready=lambda: http_answers(f"{state.backend_url}/health"),
        ready_timeout_s=120.0,
        log=logs / "ml_backend.log",
        stop_grace_s=25.0,
        depends_on=STORES,
    )


def _api(state: StackState, env: Mapping[str, str], logs: Path) -> ServiceSpec:
    """The front door of the REST API. One process, or each would count a key's requests apart."""
    options = {
        "--config": "python:api.serve",
        "--worker-class": "ml_backend.drain.BufferingWorker",
        "--workers": "1",
        "--bind": f"{LOOPBACK}:{state.ports.api}",
        "--graceful-timeout": "20",
        "--timeout": "120",
    }
    flat = [word for pair in options.items() for word in pair]
    return ServiceSpec(
        name="api",
        argv=(sys.executable, "-m", "gunicorn", *flat, "--no-control-socket", "api.app:create_app()"),
        env={**env, **BACKEND_MEMORY},
        ready=lambda: http_answers(f"{state.api_url}/health"),
        ready_timeout_s=120.0,
        log=logs / "api.log",
        niceness=5,
        awaited=False,
        stop_grace_s=25.0,
        depends_on=STORES,
    )


def _dashboard(state: StackState, env: Mapping[str, str], logs: Path) -> ServiceSpec:
    """It gets what it shows and its own password, none of the others."""
    settings = {
        "LABELLOOP_REDIS_URL": state.redis_url,
        "LABELLOOP_DASHBOARD_URL": state.dashboard_url,
        "LABELLOOP_DASHBOARD_USER": state.secrets.dashboard_user,
        "LABELLOOP_DASHBOARD_PASSWORD": state.secrets.dashboard_password,
    }
    others = {name: value for name, value in env.items() if not name.startswith("LABELLOOP_")}
    options = ("--worker-class", "gthread", "--threads", "8", "--bind", f"{LOOPBACK}:{state.ports.dashboard}")
    return ServiceSpec(
        name="rq_dashboard",
        argv=(
            sys.executable,
            "-m",
            "gunicorn",
            *options,
            "--no-control-socket",
            "labelloop.web.dashboard:create_app()",
        ),
        env={**others, **_for_python(env), **settings},
        ready=lambda: http_listens(state.dashboard_url),
        log=logs / "rq_dashboard.log",
        niceness=5,
        awaited=False,
        depends_on=("valkey",),
        cwd=state.directory,  # gunicorn puts its working directory on sys.path
    )
