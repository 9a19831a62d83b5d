"""Images in S3: workers say what is on them, shard by shard; the command only queues, watches and gathers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from labelloop.clock import now
from labelloop.errors import LabelloopError, NotFoundError
from labelloop.objects.damage import UNREADABLE
from labelloop.queue.jobs import PREDICT, job_id
from labelloop.records.batches import Batch, Guess
from labelloop.records.json import canonical, digest
from labelloop.store.batches import BatchStore
from labelloop.store.projects import ProjectRecord
from operations.batch.asked import Asked
from operations.deployment import Deployment
from operations.reporting import Report

SHARD = 200  # images: seconds of a worker, so that new images and labels need not wait for long
AHEAD = 4  # shards in the queue: the rest follows, and who stops the command stops the batch
LOOK_S = 0.5
TRIES = 3  # of a shard


def begin(
    deployment: Deployment, record: ProjectRecord, asked: Asked, version: str | None, top: int, *, by: str
) -> Batch:  # fmt: skip
    """A new batch, or the same one where it was stopped before its end: with the version it began with."""
    store = BatchStore(deployment.within(record))
    name = digest(canonical([asked.place, version, top]))[:16]
    try:
        return store.get(name)
    except (NotFoundError, *UNREADABLE):
        shards = [asked.images[i : i + SHARD] for i in range(0, len(asked.images), SHARD)]
        chosen = deployment.version(record, version).name
        batch = Batch(name, asked.place, chosen, top, len(asked.images), len(shards), now(), by)
        store.add(batch, shards)
        return batch


def follow(deployment: Deployment, record: ProjectRecord, batch: Batch, report: Report) -> None:
    """Until every shard is done; LabelloopError where one cannot be."""
    store, tries = BatchStore(deployment.within(record)), Counter[int]()
    while len(done := store.done(batch.id)) < batch.shards:
        states = {j.id: j for j in deployment.queue.jobs() if j.kind == PREDICT.name}
        active = set(deployment.queue.active(PREDICT, record.key))
        missing = [n for n in range(batch.shards) if n not in done]
        for number in missing[:AHEAD]:
            job = _job(record, batch, number)
            if job in active:
                continue
            if tries[number] >= TRIES:
                state = states.get(job)
                raise LabelloopError(f"images {number * SHARD + 1} to {(number + 1) * SHARD} failed {TRIES} times: "
                                     f"{state.error if state else 'no worker finished them'}")  # fmt: skip
            payload = {"project": record.key, "batch": batch.id, "shard": number}
            tries[number] += deployment.queue.enqueue(PREDICT, job, payload)
        waits = not any(states[job].status == "started" for job in active if job in states)
        doing = "wait for a worker of the queue features" if waits and not done else f"images, by {batch.version}"
        report(doing, min(len(done) * SHARD, batch.count), batch.count)
        time.sleep(LOOK_S)
    report(f"images, by {batch.version}", batch.count, batch.count)


def gathered(deployment: Deployment, record: ProjectRecord, batch: Batch) -> Iterator[Guess]:
    """What was said of each image, in the order of the listing."""
    store = BatchStore(deployment.within(record))
    for number in range(batch.shards):
        yield from store.said(batch.id, number)


def end(deployment: Deployment, record: ProjectRecord, batch: Batch) -> None:
    """It is written where it was wanted."""
    BatchStore(deployment.within(record)).drop(batch.id)


def _job(record: ProjectRecord, batch: Batch, number: int) -> str:
    return job_id(PREDICT, record.key, batch.id, number)
