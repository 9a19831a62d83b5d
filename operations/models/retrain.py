"""Ask for a fine-tune and follow it."""

from __future__ import annotations

import time
from collections.abc import Callable

from labelloop.errors import LabelloopError
from labelloop.queue.channels import NUDGE_CHANNEL, publish
from labelloop.queue.heartbeat import alive
from labelloop.queue.jobs import RETRAIN
from labelloop.records.runs import Run
from labelloop.store.projects import ProjectRecord
from labelloop.store.requests import Request, RequestStore
from labelloop.store.runs import RunStore
from operations.deployment import Deployment
from operations.reporting import Report

LOOK_S = 1.0


def ask(deployment: Deployment, record: ProjectRecord, *, by: str) -> Request:
    """Leave the wish in object storage, where a lost queue cannot forget it, and nudge the watcher."""
    request = RequestStore(deployment.within(record)).add(RETRAIN.name, by=by)
    publish(deployment.queue.redis, NUDGE_CHANNEL, {"action": "retrain", "project": record.key})
    return request


def ask_once(deployment: Deployment, record: ProjectRecord, *, by: str) -> tuple[Request, bool]:
    """The open wish for a retrain, or a new one, and whether it is new: a program may ask as often as it likes."""
    wishes = RequestStore(deployment.within(record)).open()
    before = next((wish for wish in wishes if wish.what == RETRAIN.name), None)
    return (before, False) if before else (ask(deployment, record, by=by), True)


def wait_for(
    deployment: Deployment, record: ProjectRecord, request: Request, report: Report, say: Callable[[str], None]
) -> Run:
    """Report progress until a run that began after the wish has ended for good. ``say``: why nothing runs yet."""
    runs = RunStore(deployment.within(record))
    explained: set[str] = set()
    while True:
        ended = [r for r in runs.all() if r.kind == RETRAIN.name and request.id in r.answers]
        if ended and (ended[-1].done or sum(r.outcome == "failed" for r in ended) >= 3):
            return ended[-1]
        for reason in _waits(deployment, record) - explained:
            explained.add(reason)
            say(f"waiting: {reason}")
        for job in deployment.queue.jobs():
            if job.kind == RETRAIN.name and job.project == record.key and job.status == "started":
                report(job.stage or "starting", job.step, job.steps or 1)
        time.sleep(LOOK_S)


def _waits(deployment: Deployment, record: ProjectRecord) -> set[str]:
    """Why nothing runs yet; LabelloopError where nobody would ever start it."""
    watchers = {n: f for n, f in alive(deployment.queue.redis).items() if n.startswith("sync:")}
    if not watchers:
        raise LabelloopError("no watcher is running, nothing will start: start sync (`python -m sync`)")
    plans = (((facts.get("projects") or {}).get(record.key) or {}).get("plan") or {} for facts in watchers.values())
    return {plan["waiting"] for plan in plans if plan.get("waiting")}
