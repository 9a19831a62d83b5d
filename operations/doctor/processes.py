"""Our own processes, by their heartbeats: enough of them, one watcher that leads, all of one code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from labelloop.code import code_version
from labelloop.config.settings import Settings
from labelloop.objects.damage import Damaged
from labelloop.queue.jobs import KINDS
from labelloop.records.api_keys import ApiKey
from labelloop.rules.api_keys import state
from labelloop.store.api_keys import ApiKeyStore
from labelloop.store.projects import INDEX, ProjectRecord
from operations.doctor import queue, storage
from operations.doctor.checks import DoctorCheck
from operations.doctor.finding import Finding, fine, warn, wrong
from operations.doctor.project import area_of
from operations.doctor.scene import Scene

AREA = "processes"
Living = Mapping[str, Mapping[str, Any]]


def checks(scene: Scene) -> list[DoctorCheck]:
    """All that are in Redis."""
    needs = (queue.REACHED,)
    names = dict.fromkeys(kind.queue for kind in KINDS.values())
    return [
        DoctorCheck(AREA, "watcher", lambda: watcher(scene.alive()), needs),
        DoctorCheck(AREA, "whose watcher", lambda: whose(scene.alive(), scene.settings), needs),
        *[DoctorCheck(AREA, f"worker for {name}", partial(_worker, scene, name), needs) for name in names],
        DoctorCheck(AREA, "backend process", lambda: backend(scene.alive()), needs),
        DoctorCheck(AREA, "API process", lambda: _api(scene), (*needs, storage.REACHED)),
        DoctorCheck(AREA, "code", lambda: code(scene.alive()), needs),
        DoctorCheck(AREA, "other Label Studios", lambda: servers(_indexed(scene), scene.settings), (storage.REACHED,)),
    ]


def of_project(scene: Scene, record: ProjectRecord) -> list[DoctorCheck]:
    """Who looks after one project."""
    area, needs = area_of(record), (queue.REACHED, storage.REACHED)
    return [
        DoctorCheck(area, "watched", lambda: watched(scene.watched(record)), needs),
        DoctorCheck(
            area, "version that serves", lambda: serving(scene.alive(), record.key, _live(scene, record)), needs
        ),
    ]


def watcher(living: Living) -> Finding:
    """Exactly one leads; others stand by."""
    watchers = {name: facts for name, facts in living.items() if name.startswith("sync:")}
    leaders = [name for name, facts in watchers.items() if facts.get("leads")]
    if not watchers:
        return wrong("watcher", "none is running: labels are not picked up", "start it: python -m sync")
    if len(leaders) > 1:
        return wrong("watcher", f"{len(leaders)} lead at once: {', '.join(leaders)}", "they do not share one Redis, or "
                     "it was emptied a moment ago; if it stays so, stop all but one")  # fmt: skip
    if not leaders:
        return warn("watcher", f"{len(watchers)} stand by, none leads", "wait ten seconds: a lease runs out; then look "
                    "at its log")  # fmt: skip
    standby = len(watchers) - 1
    return fine("watcher", f"{leaders[0]} leads" + (f", {standby} stand by" if standby else ""))


def whose(living: Living, settings: Settings) -> Finding:
    """Two deployments on one Redis share one lease: the second never leads."""
    owners = {(str(f["server"]), str(f.get("studio"))) for n, f in living.items()
              if n.startswith("sync:") and "server" in f}  # fmt: skip
    ours = (settings.studio_server, settings.studio_url)
    if owners <= {ours}:
        return fine("whose watcher", f"of Label Studio {settings.studio_server!r}")
    names = ", ".join(f"{server!r} at {url}" for server, url in sorted(owners))
    return wrong("whose watcher", f"watchers belong to {names}; we are {ours[0]!r} at {ours[1]}", "give every "
                 "deployment a Redis database of its own (the /0 in LABELLOOP_REDIS_URL), or correct "
                 "LABELLOOP_STUDIO_URL and LABELLOOP_STUDIO_SERVER")  # fmt: skip


def worker(living: Living, name: str) -> Finding:
    """The workers that take this queue's jobs."""
    what = f"worker for {name}"
    workers = [n for n, facts in living.items() if n.startswith("worker:") and name in facts.get("queues", ())]
    if workers:
        return fine(what, f"{len(workers)} running")
    return wrong(what, "none is running", f"start one: python -m retrain_worker {name}")


def backend(living: Living) -> Finding:
    """It answers without Redis, too; then it hears of a deploy a second later."""
    if any(name.startswith("backend:") for name in living):
        return fine("backend process", "heartbeat OK")
    return warn("backend process", "no heartbeat: new versions are noticed by polling "
                                   "only", "check that the backend runs and reaches Redis")  # fmt: skip


def api(living: Living, keys: Sequence[ApiKey], damaged: Sequence[Damaged]) -> Finding:
    """Programs that have a key expect an answer."""
    what, running = "API process", sum(name.startswith("api:") for name in living)
    if damaged:
        return warn(what, f"{damaged[0].key} cannot be read: {damaged[0].reason}", damaged[0].remedy)
    valid = [key for key in keys if state(key, datetime.now(UTC)) == "valid"]
    if running or not valid:
        return fine(
            what, f"heartbeat OK, {len(valid)} valid keys" if running else "none is running, and nobody has a key"
        )
    return wrong(what, f"none is running, and {len(valid)} keys were given out", "start it (docker-compose.yml has the "
                 "command), or revoke the keys: labelloop keys revoke")  # fmt: skip


def code(living: Living) -> Finding:
    """Two builds side by side work by chance."""
    builds = Counter(str(facts.get("code", "unknown")) for facts in living.values())
    if set(builds) <= {code_version()}:
        return fine("code", code_version())
    if len(builds) == 1:
        return warn("code", f"the services run {next(iter(builds))}, this command {code_version()}", "use the command "
                    "of the services' release, or restart them")  # fmt: skip
    named = "; ".join(f"{version}: {', '.join(_with(living, version))}" for version in sorted(builds))
    return warn("code", f"processes run different code: {named}", "restart the old ones")


def servers(indexed: Mapping[str, str], settings: Settings) -> Finding:
    """``indexed``: project key -> Label Studio server."""
    others = Counter(server for server in indexed.values() if server != settings.studio_server)
    if not others:
        return fine("other Label Studios", f"none; all {len(indexed)} projects are of {settings.studio_server!r}")
    names = ", ".join(f"{n} of {server!r}" for server, n in sorted(others.items()))
    return warn("other Label Studios", f"the bucket also holds projects: {names}", "fine where each has its own "
                "watcher; otherwise LABELLOOP_STUDIO_SERVER is not what it was")  # fmt: skip


def watched(facts: Mapping[str, Any]) -> Finding:
    """The watcher's own word."""
    if not facts:
        return wrong("watched", "no watcher checks it", "check that sync runs and has listed the project")
    if problem := facts.get("problem"):
        return wrong("watched", str(problem), "fix what it names; the watcher retries by itself")
    waiting = (facts.get("plan") or {}).get("waiting")
    return fine("watched", f"waiting: {waiting}" if waiting else "last check OK")


def serving(living: Living, key: str, live: str | None) -> Finding:
    """Every backend process serves the champion."""
    what = "version that serves"
    backends = {name: facts["projects"][key] for name, facts in living.items()
                if name.startswith("backend:") and key in (facts.get("projects") or {})}  # fmt: skip
    refused = {f"{r['version']}: {r['reason']}" for facts in backends.values() for r in facts.get("refused", ())}
    behind = {name: facts.get("version") for name, facts in backends.items() if facts.get("version") != live}
    if behind and live and not any(behind.values()) and not refused:
        return warn(what, f"{', '.join(behind)} is still loading {live}", "wait a moment; the first load takes longest")
    if behind and live:
        serves = ", ".join(f"{name} serves {version or 'nothing'}" for name, version in behind.items())
        why = f" (refused: {'; '.join(sorted(refused))})" if refused else ""
        return wrong(what, f"{serves}; champion is {live}{why}", "a backend follows within seconds; if it stays so, "
                     "look at its log, or go back with `labelloop rollback`")  # fmt: skip
    if not backends:
        return fine(what, "no backend has loaded the project yet: its first request does")
    return fine(what, f"{live or 'no model yet'}, in {len(backends)} process{'es' if len(backends) > 1 else ''}")


def _api(scene: Scene) -> Finding:
    store = ApiKeyStore(scene.deployment.store)
    return api(scene.alive(), store.all(), store.damage.all())


def _worker(scene: Scene, name: str) -> Finding:
    return worker(scene.alive(), name)


def _with(living: Living, version: str) -> list[str]:
    return [name for name, facts in living.items() if str(facts.get("code", "unknown")) == version]


def _live(scene: Scene, record: ProjectRecord) -> str | None:
    live = scene.live(record)
    return live.version if live else None


def _indexed(scene: Scene) -> Mapping[str, str]:
    keys = [info.key.removeprefix(INDEX).removesuffix(".json") for info in scene.deployment.store.list(INDEX)]
    return {key: key.partition("-")[0] for key in keys}
