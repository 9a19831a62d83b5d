"""Ask for a fine-tune and follow it."""

from __future__ import annotations

import time

from rich.console import Console

from cli.deployment import Deployment
from labelloop.projects import ProjectRecord
from labelloop.queue import NUDGE_CHANNEL, RETRAIN, publish
from labelloop.requests import Request, RequestStore
from labelloop.runs import Run, RunStore

LOOK_S = 1.0


def ask(deployment: Deployment, record: ProjectRecord, *, by: str) -> Request:
    """Leave the wish in object storage, where a lost queue cannot forget it, and nudge the watcher."""
    request = RequestStore(deployment.within(record)).add(RETRAIN.name, by=by)
    publish(deployment.queue.redis, NUDGE_CHANNEL, {"action": "retrain", "project": record.key})
    return request


def wait_for(deployment: Deployment, record: ProjectRecord, request: Request, console: Console) -> Run:
    """Show progress until a run that began after the wish has ended for good."""
    from cli.up import reporting

    runs = RunStore(deployment.within(record))
    with reporting(console) as report:
        while True:
            ended = [r for r in runs.all() if r.kind == RETRAIN.name and r.started_at >= request.at]
            if ended and (ended[-1].done or sum(r.outcome == "failed" for r in ended) >= 3):
                return ended[-1]
            for job in deployment.queue.jobs():
                if job.kind == RETRAIN.name and job.project == record.key and job.status == "started":
                    report(job.stage or "starting", job.step, job.steps or 1)
            time.sleep(LOOK_S)
