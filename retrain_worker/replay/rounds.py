"""A history and ways to choose in, curves of every seed out; all ways see the same draws, heads and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from retrain_worker.replay.arm import ArmCurve, Chooser, mean_curve, run_arm
from retrain_worker.replay.comparison import Saving, compare
from retrain_worker.replay.history import ReplayHistory, draw
from retrain_worker.replay.student import Student

RANDOM = "random"
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """How much is replayed."""

    seeds: int = 10
    most: int = 600  # labels
    with_pool: bool = True  # whether the head learns from unlabelled images, too
    first: int = 0  # of the seeds


@dataclass(frozen=True, slots=True)
class Replayed:
    """Curves by strategy, one of each seed in turn."""

    history: str
    classes: int
    curves: Mapping[str, Sequence[ArmCurve]]

    def savings(self) -> list[Saving]:
        """Every strategy against random, the largest area first."""
        savings = [compare(curves, self.curves[RANDOM], name) for name, curves in self.curves.items()]
        return sorted(savings, key=lambda saving: -saving.area)

    def means(self) -> Mapping[str, ArmCurve]:
        """Mean curves over the seeds."""
        return {name: mean_curve(curves) for name, curves in self.curves.items()}


def replay(history: ReplayHistory, choosers: Mapping[str, Chooser], plan: ReplayPlan, report: Report) -> Replayed:
    """Run every strategy on every seed. ``choosers`` holds `random`, against which the others are compared."""
    curves: dict[str, list[ArmCurve]] = {name: [] for name in choosers}
    for number in range(plan.seeds):
        seed = plan.first + number
        drawn = draw(history, seed)
        fresh = Student.of(drawn, len(history.classes), with_pool=plan.with_pool)
        for place, (name, chooser) in enumerate(choosers.items()):
            report("replay", number * len(choosers) + place, plan.seeds * len(choosers))
            curves[name].append(run_arm(drawn, replace(fresh), chooser, most=plan.most, seed=seed))
    return Replayed(history.name, len(history.classes), curves)
