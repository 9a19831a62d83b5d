"""`python -m retrain_worker QUEUE...`: one worker process."""

from __future__ import annotations

import sys

from labelloop.config.settings import load_settings
from labelloop.errors import QueueError
from labelloop.logs import configure_logs
from labelloop.queue.connection import redis_client
from labelloop.queue.jobs import KINDS
from labelloop.web.exposition import expose
from retrain_worker import jobs
from retrain_worker.metrics import WorkerMetrics
from retrain_worker.worker import run_worker


def main() -> None:
    """Run until SIGTERM. Queues in order of precedence; all of them where none is named."""
    served = list(dict.fromkeys(kind.queue for kind in KINDS.values()))
    queues = sys.argv[1:] or served
    if unknown := set(queues) - set(served):
        raise SystemExit(f"unknown queue {', '.join(sorted(unknown))}; there are {', '.join(served)}")
    settings = load_settings()
    metrics = WorkerMetrics()
    configure_logs(json=settings.log_json, service="worker", secrets=settings.secrets, on_event=metrics.heard)
    expose(metrics.registry, settings)
    jobs.prepare(queues)
    try:
        run_worker(redis_client(settings, timeout_s=None), redis_client(settings), queues, metrics)
    except QueueError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
