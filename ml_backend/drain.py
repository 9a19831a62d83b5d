"""How gunicorn's process answers and ends (``--worker-class=ml_backend.drain.DrainingWorker``): not ready, then closed.

What hands us requests, a load balancer or Kubernetes, needs a moment to see that we are leaving. Requests that come in
that moment are answered like any other; without it they would meet a closed port.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from types import FrameType
from typing import Any

from gunicorn.workers.base import Worker  # type: ignore[import-untyped]

from ml_backend.app import DOOR, EXTENSION
from ml_backend.entrance.front import Fronts

DRAIN_S = 5.0  # longer than two missed checks of the gateway (deploy/compose/haproxy.cfg) or of Kubernetes
LINGER_S = 2.0  # a kept connection stays open as long: a request may be on its way already
CONNECTIONS = 1000
SPARE_FILES = 200  # for everything that is no connection
TURNS_S = 0.0002  # a thread that computes lets another one go on after that, so that the loop is never far behind


class BufferingWorker(Worker):  # type: ignore[misc]
    """Waitress's loop and threads under gunicorn. On SIGTERM it closes, and finishes what is under way."""

    linger_s = 0.0

    def run(self) -> None:
        """Answer until stopped, then finish."""
        sys.setswitchinterval(TURNS_S)
        fronts = Fronts(self.wsgi, [s.sock for s in self.sockets], self.wsgi.extensions[DOOR], connections())
        try:
            while self.alive and self.ppid == os.getppid():
                self._turn(fronts)
            fronts.stop_accepting()
            self._finish(fronts)
        finally:
            fronts.stop()

    def _finish(self, fronts: Fronts) -> None:
        begun = time.monotonic()
        while time.monotonic() - begun < (self.cfg.graceful_timeout if fronts.busy() else self.linger_s):
            self._turn(fronts)

    def _turn(self, fronts: Fronts) -> None:
        fronts.turn()
        self.notify()


class DrainingWorker(BufferingWorker):
    """The same behind a load balancer: on SIGTERM it goes on accepting for a while. A second SIGTERM ends the while."""

    drain_s = DRAIN_S
    linger_s = LINGER_S
    leaving = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: say so on /ready at once, stop accepting later; what is under way is finished after that."""
        if self.leaving or not announce(getattr(self, "wsgi", None)):
            super().handle_exit(sig, frame)
            return
        self.leaving = True
        later = threading.Timer(self.drain_s, super().handle_exit, (sig, frame))
        later.daemon = True
        later.start()


def announce(app: Any) -> bool:
    """Tell the app's backend that it is leaving; False where there is no app yet: nothing to be polite about."""
    if app is None or EXTENSION not in getattr(app, "extensions", {}):
        return False
    app.extensions[EXTENSION].leaving.set()
    return True


def connections() -> int:
    """How many this process can have open; as many files as the system lets it have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = CONNECTIONS + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return CONNECTIONS if soft == resource.RLIM_INFINITY else max(16, min(CONNECTIONS, soft - SPARE_FILES))
