"""`python -m retrain_worker QUEUE...`: one worker process."""

from __future__ import annotations

import sys

from labelloop.errors import QueueError
from labelloop.logs import configure_logs
from labelloop.queue import KINDS, connect
from labelloop.settings import load_settings
from retrain_worker import jobs
from retrain_worker.worker import run_worker


def main() -> None:
    """Run until SIGTERM. Queues in order of precedence; all of them where none is named."""
    known = [kind.queue for kind in KINDS.values()]
    queues = sys.argv[1:] or known
    if unknown := set(queues) - set(known):
        raise SystemExit(f"unknown queue {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    settings = load_settings()
    configure_logs(json=settings.log_json)
    jobs.prepare(queues)
    try:
        run_worker(connect(settings.redis_url, timeout_s=None), queues)
    except QueueError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
