"""How the backend ends under gunicorn (``--worker-class=ml_backend.drain.DrainingWorker``): not ready, then closed.

Whoever hands us requests, a load balancer or Kubernetes, needs a moment to see that we are leaving. Requests that come
in that moment are answered like any other; without it they would meet a closed port.
"""

from __future__ import annotations

import threading
from types import FrameType
from typing import Any

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from ml_backend.app import EXTENSION

DRAIN_S = 5.0  # longer than two missed checks of the gateway (deploy/compose/haproxy.cfg) or of Kubernetes


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """Gunicorn's threads, which on SIGTERM go on accepting for a while. A second SIGTERM ends the while."""

    drain_s = DRAIN_S
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
