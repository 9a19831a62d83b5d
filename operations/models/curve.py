"""The kept curve of a project in, or one made now; its forecast and the advice out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from labelloop.config.project import ProjectConfig, Stop
from labelloop.errors import NotFoundError
from labelloop.records.curve import KeptCurve
from labelloop.rules.stop_advice import Outlook, outlook
from labelloop.store.curve import kept_curve
from labelloop.store.projects import ProjectRecord
from operations.deployment import Deployment

Make = Callable[[Deployment, ProjectRecord], KeptCurve | None]


@dataclass(frozen=True, slots=True)
class CurvePage:
    """What `labelloop curve` shows."""

    title: str
    kept: KeptCurve
    outlook: Outlook

    def to_json(self) -> dict[str, Any]:
        """Plain values: points, forecasts, advice; without the draws."""
        forecast = self.outlook
        return {
            "at": self.kept.at, "live": self.kept.live, "snapshot": self.kept.snapshot,
            "random_labels": {"test": self.kept.test, "audit": self.kept.audit},
            "points": [asdict(p) | {"accuracy": p.accuracy, "judged": p.judged} for p in self.kept.points],
            "waiting": dict(self.kept.waiting), "images_left": self.kept.left,
            "now": asdict(forecast.now) if forecast.now else None, "ahead": [asdict(f) for f in forecast.ahead],
            "target": forecast.target, "labels_to_target": asdict(forecast.reach) if forecast.reach else None,
            "told": forecast.sentence, "advice": asdict(forecast.advice),
        }  # fmt: skip


def learning_curve(
    deployment: Deployment, record: ProjectRecord, make: Make, *, target: float | None = None, anew: bool = False
) -> CurvePage:
    """NotFoundError before the first version. ``make``: computes the curve where none is kept."""
    policy = record.config.stop
    if target is not None:
        policy = Stop.model_validate({**policy.model_dump(), "target": target})
    kept = None if anew else _kept(deployment, record)
    kept = kept or make(deployment, record)
    if kept is None:
        raise NotFoundError(f"{record.title} has no model yet, so no curve: it begins with the first version")
    return CurvePage(record.title, kept, outlook(kept, policy, quota=record.config.queue.quota))


def outlook_of(kept: KeptCurve, config: ProjectConfig) -> Outlook:
    """By the project's own policy."""
    return outlook(kept, config.stop, quota=config.queue.quota)


def _kept(deployment: Deployment, record: ProjectRecord) -> KeptCurve | None:
    try:
        return kept_curve(deployment.within(record))
    except NotFoundError:
        return None
