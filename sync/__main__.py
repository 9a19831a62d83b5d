"""`python -m sync`: the watcher as a process."""

from __future__ import annotations

import os
import signal
import socket
from types import FrameType

from labelloop.config.settings import Settings, load_settings
from labelloop.images.reader import listing_of
from labelloop.logs import configure_logs
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store
from labelloop.queue.connection import redis_client
from labelloop.queue.jobs import JobQueue
from labelloop.store.projects import ProjectStore
from labelloop.studio.client import Studio
from labelloop.web.exposition import expose
from sync.images.fetch import make_fetcher
from sync.metrics import SyncMetrics
from sync.project import Deps
from sync.watchdog import Watchdog
from sync.watcher import Watcher, make_watcher


def build(settings: Settings, metrics: SyncMetrics) -> Watcher:
    """The watcher with everything it needs; opens connections when it runs, not before."""
    watchdog = Watchdog()

    def asked_studio(call: str, seconds: float, status: int) -> None:
        watchdog.alive()
        metrics.asked_studio(call, seconds, status)

    s3 = s3_client(settings)
    s3.meta.events.register("after-call.s3", lambda **_: watchdog.alive())
    store = S3Store(s3, settings.state_bucket)
    queue = JobQueue(redis_client(settings, timeout_s=10))
    studio = Studio(
        settings.studio_url, settings.require_studio_token(), on_call=asked_studio,
        reread=lambda: settings.reread().require_studio_token(),
    )  # fmt: skip
    deps = Deps(
        studio=studio,
        store=store,
        projects=ProjectStore(store, settings.studio_server),
        queue=queue,
        list_images=lambda record: listing_of(s3, record),
        fetch=make_fetcher(settings, studio),
        patience=watchdog.alive,
    )
    name = f"{socket.gethostname()}:{os.getpid()}"
    facts = {"pid": os.getpid(), "server": settings.studio_server, "studio": settings.studio_url}
    return make_watcher(deps, name, metrics=metrics, facts=facts, watchdog=watchdog)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = load_settings()
    metrics = SyncMetrics()
    configure_logs(json=settings.log_json, service="sync", secrets=settings.secrets, on_event=metrics.heard)
    watcher = build(settings, metrics)
    metrics.exposed = expose(metrics.registry, settings)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        watcher.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    watcher.run()


if __name__ == "__main__":
    main()
