"""Several oracle annotators at once, each under an account of their own, as a team in the label stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from labelloop.clock import stamp
from labelloop.studio.client import Studio
from operations.deployment import Deployment
from operations.simulation.accounts import join
from operations.simulation.oracle import Oracle, Submitted


@dataclass(frozen=True)
class Crew:
    """Its members ask for their next tasks at the same time."""

    members: Sequence[Oracle]

    @property
    def submitted(self) -> list[Submitted]:
        """Labels without those deleted again, in the order in which they were sent."""
        return sorted((s for m in self.members for s in m.submitted), key=lambda s: s.at)

    def step(self, most: int) -> list[Submitted]:
        """One answer each, of ``most`` members; fewer where tasks were skipped or none is left."""
        busy = self.members[:most]
        with ThreadPoolExecutor(len(busy)) as pool:
            return [s for s in pool.map(Oracle.step, busy) if s]

    @property
    def is_done(self) -> bool:
        """True where the queue is empty."""
        return self.members[0].is_done

    def settle(self) -> None:
        """Everybody corrects what they gave wrongly on purpose."""
        for member in self.members:
            member.settle()

    @property
    def twice(self) -> int:
        """Tasks that more than one of them has answered."""
        return sum(n > 1 for n in Counter(s.task for s in self.submitted).values())


def recruit(deployment: Deployment, people: int) -> list[Studio]:
    """Label Studio under as many accounts: the deployment's own for one person, else new ones by invitation."""
    if people == 1:
        return [deployment.studio]
    settings = deployment.settings
    token, now = settings.require_studio_token(), stamp()[4:15].lower()
    return [join(settings.studio_url, token, f"annotator{i}-{now}") for i in range(1, people + 1)]
