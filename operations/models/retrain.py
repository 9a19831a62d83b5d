"""Ask for a fine-tune and follow it."""

from __future__ import annotations

import time

from rich.console import Console

from labelloop.errors import LabelloopError
from labelloop.queue.channels import NUDGE_CHANNEL, publish
from labelloop.queue.heartbeat import alive
from labelloop.queue.jobs import RETRAIN
from labelloop.records.runs import Run
from labelloop.store.projects import ProjectRecord
from labelloop.store.requests import Request, RequestStore
from labelloop.store.runs import RunStore
from operations.deployment import Deployment

LOOK_S = 1.0


def ask(deployment: Deployment, record: ProjectRecord, *, by: str) -> Request:
    """Leave the wish in object storage, where a lost queue cannot forget it, and nudge the watcher."""
    request = RequestStore(deployment.within(record)).add(RETRAIN.name, by=by)
    publish(deployment.queue.redis, NUDGE_CHANNEL, {"action": "retrain", "project": record.key})
    return request


def wait_for(deployment: Deployment, record: ProjectRecord, request: Request, console: Console) -> Run:
    """Show progress until a run that began after the wish has ended for good."""
    from cli.terminal.reporting import reporting

    runs = RunStore(deployment.within(record))
    told: set[str] = set()
    with reporting(console) as report:
        while True:
            ended = [r for r in runs.all() if r.kind == RETRAIN.name and request.id in r.answers]
            if ended and (ended[-1].done or sum(r.outcome == "failed" for r in ended) >= 3):
                return ended[-1]
            _explain(deployment, record, console, told)
            for job in deployment.queue.jobs():
                if job.kind == RETRAIN.name and job.project == record.key and job.status == "started":
                    report(job.stage or "starting", job.step, job.steps or 1)
            time.sleep(LOOK_S)


def _explain(deployment: Deployment, record: ProjectRecord, console: Console, told: set[str]) -> None:
    """Why nothing runs yet, each reason once; LabelloopError where nobody would ever start it."""
    watchers = {n: f for n, f in alive(deployment.queue.redis).items() if n.startswith("sync:")}
    if not watchers:
        raise LabelloopError("no watcher is running, nothing will start: start sync (`python -m sync`)")
    for facts in watchers.values():
        plan = ((facts.get("projects") or {}).get(record.key) or {}).get("plan") or {}
        waiting = plan.get("waiting")
        if waiting and waiting not in told:
            told.add(waiting)
            console.print(f"waiting: {waiting}", style="yellow")
