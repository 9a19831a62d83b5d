"""Queue a range test of learning rates and wait for its curve."""

from __future__ import annotations

import time

from labelloop.clock import stamp
from labelloop.errors import LabelloopError, NotFoundError
from labelloop.queue.jobs import LR_FIND, job_id
from labelloop.store.lr_curves import LrCurve, kept
from labelloop.store.projects import ProjectRecord
from operations.deployment import Deployment
from operations.reporting import Report

LOOK_S = 0.5
LOST = 4  # looks in a row that do not see the job: between two registries it is in neither for a moment


def ask(deployment: Deployment, record: ProjectRecord, *, by: str) -> str:
    """Queue one; returns the job's id."""
    name = stamp()
    job = job_id(LR_FIND, record.key, name)
    deployment.queue.enqueue(LR_FIND, job, {"project": record.key, "name": name, "by": by})
    return job


def wait_for(deployment: Deployment, record: ProjectRecord, job: str, report: Report) -> LrCurve:
    """The curve; LabelloopError says why there is none."""
    store, name = deployment.within(record), job.rpartition("_")[2]
    missing = 0
    while missing < LOST:
        try:
            return kept(store, name)
        except NotFoundError:
            pass
        state = next((j for j in deployment.queue.jobs() if j.id == job), None)
        missing = 0 if state else missing + 1
        if state and state.status == "failed":
            reason = state.error.strip().splitlines() or ["it gave no reason"]
            raise LabelloopError(f"the range test failed: {reason[-1]}")
        if state:
            report(state.stage or "wait for a worker of the queue tune", state.step, state.steps or 1)
        time.sleep(LOOK_S)
    raise LabelloopError("the queue has lost the range test: was Redis emptied? Run it again")
