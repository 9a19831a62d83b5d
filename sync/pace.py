"""How long to leave somebody else's server alone: in proportion to what asking it costs."""

from __future__ import annotations

GROWTH = 3.0


class Pace:
    """Of one kind of request. It may take ``share`` of the server's time, and comes every ``every_s`` seconds at most.

    One slow answer says little: the server may have been away, or others kept it busy. What counts as the cost grows
    threefold at most from one time to the next, and falls at once.
    """

    def __init__(self, every_s: float, share: float) -> None:
        self._least_s = self._cost_s = every_s * share
        self._share = share

    def rest_s(self, took_s: float) -> float:
        """Seconds until the next one, after one that took so long."""
        self._cost_s = max(self._least_s, min(took_s, GROWTH * self._cost_s))
        return self._cost_s / self._share
