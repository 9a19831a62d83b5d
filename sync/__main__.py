"""`python -m sync`: the watcher as a process."""

from __future__ import annotations

import os
import signal
import socket
from types import FrameType

from labelloop.images import list_images, s3_client
from labelloop.logs import configure_logs
from labelloop.projects import ProjectStore
from labelloop.queue import JobQueue, connect
from labelloop.settings import Settings, load_settings
from labelloop.storage import S3Store
from labelloop.studio import Studio
from sync.project import Deps
from sync.watcher import Watcher, make_watcher


def build(settings: Settings) -> Watcher:
    """The watcher with everything it needs; opens connections when it runs, not before."""
    s3 = s3_client(settings)
    store = S3Store(s3, settings.state_bucket)
    queue = JobQueue(connect(settings.redis_url, timeout_s=10))
    deps = Deps(
        studio=Studio(settings.studio_url, settings.require_studio_token()),
        store=store,
        projects=ProjectStore(store, settings.studio_server),
        queue=queue,
        list_images=lambda uri: lambda: list_images(s3, uri),
    )
    name = f"{socket.gethostname()}:{os.getpid()}"
    return make_watcher(deps, name)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logs(json=settings.log_json)
    watcher = build(settings)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        watcher.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    watcher.run()


if __name__ == "__main__":
    main()
