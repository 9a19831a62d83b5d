"""Ask the running watcher to read everything and freeze; without one, do it here under its lease."""

from __future__ import annotations

import json
import secrets
import time

from labelloop.errors import LabelloopError
from labelloop.images.reader import listing_of
from labelloop.queue.channels import NUDGE_CHANNEL, publish
from labelloop.queue.heartbeat import alive
from labelloop.queue.leases import HeldLease
from labelloop.store.projects import ProjectRecord
from operations.deployment import Deployment
from sync.project import Deps, ProjectWatch
from sync.watcher import DRAINED_CHANNEL

TIMEOUT_S = 600.0


def drain(deployment: Deployment, record: ProjectRecord) -> tuple[str, int]:
    """(snapshot id, annotations in it) at quiescence; LabelloopError where the watcher does not answer."""
    if any(name.startswith("sync:") for name in alive(deployment.queue.redis)):
        return _ask(deployment, record)
    lease = HeldLease(deployment.queue.redis, "watcher", ttl_s=60)
    if not lease.hold():
        raise LabelloopError("another watcher holds the lease but shows no life: try again in ten seconds")
    try:
        s3 = deployment.s3
        deps = Deps(
            deployment.studio, deployment.store, deployment.projects, deployment.queue,
            lambda record: listing_of(s3, record),
        )  # fmt: skip
        latest = ProjectWatch(record, deps).drain()
        return latest.snapshot, latest.annotations
    finally:
        lease.release()


def _ask(deployment: Deployment, record: ProjectRecord) -> tuple[str, int]:
    name = secrets.token_hex(6)
    channel = deployment.queue.redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    channel.subscribe(f"{DRAINED_CHANNEL}{name}")
    publish(deployment.queue.redis, NUDGE_CHANNEL, {"action": "drain", "project": record.key, "id": name})
    began = time.monotonic()
    while time.monotonic() - began < TIMEOUT_S:
        message = channel.get_message(timeout=1)
        if message:
            answer = json.loads(message["data"])
            if "error" in answer:
                raise LabelloopError(f"the watcher could not drain: {answer['error']}")
            return str(answer["snapshot"]), int(answer["annotations"])
    raise LabelloopError(f"the watcher did not finish draining within {TIMEOUT_S / 60:.0f} minutes; see its log")
