"""Counts and policy in; refresh, retrain or nothing out, with the reason. Pure.

Level-triggered: everything is derived from the newest snapshot and the run records, nothing is remembered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from labelloop.config.project import ProjectConfig

FIRST = 5  # labels from one refresh to the next, until a version is live
ATTEMPTS = 3  # failed tries (`labelloop.rules.attempts.tries`) before a visible hold; `retry` resets the count
_LIFTS = {"refresh": "labels or the config", "retrain": "the config or the code"}


@dataclass(frozen=True, slots=True)
class TrainingNeeds:
    """What the newest snapshot, the run records and the registry say now."""

    labels: Mapping[str, int]  # every class of the project -> labels in the train split (0 included)
    changes: int  # labels added, changed or withdrawn since the last judged refresh; all before the first
    new_for_backbone: int = 0  # train labels that the live backbone was not fine-tuned on
    backbone_saw: int = 0  # train labels it was fine-tuned on
    judged: bool = False  # whether any refresh was judged yet
    live: bool = False  # whether a model is live
    failed_refreshes: int = 0  # of (newest snapshot, config), since a person last asked for a retry
    failed_retrains: int = 0  # of (config, code) since the last verdict, and since a person last asked
    since_refresh_s: float | None = None  # since the last refresh started; None: never
    retrain_asked: bool = False  # by a person, and not done yet
    mix: float = 0.0  # how far the classes' shares have moved since the last retrain: total variation, in [0, 1]
    new_images: int = 0  # with features, that were not there when the last retrain began
    recipe_changed: bool = False  # the last retrain followed another `backbone:` or `retrain:` config
    upgraded: bool = False  # ... or was done by other training code
    cron_due: bool = False  # one of its times has passed since the last retrain
    cron_next: str | None = None  # the next one, in words
    paused: str | None = None  # in words: a person has frozen learning
    undecided: tuple[str, ...] = ()  # in words: classes with labels that the label config lacks


@dataclass(frozen=True, slots=True)
class Action:
    """One job to queue."""

    kind: str  # refresh | retrain
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What should run now, and how far the next is."""

    actions: tuple[Action, ...]
    until_refresh: int  # labels; 0: due
    until_retrain: int
    waiting: str | None = None  # why something that is due, or nothing at all, can run
    again_in_s: float | None = None  # when to ask again though nothing may have changed
    watched: tuple[str, ...] = ()  # every trigger of a retrain, in words: how far it is


def moved(now: Mapping[str, int], before: Mapping[str, int]) -> float:
    """Total variation distance of the shares of classes, in [0, 1]; 0 where either holds nothing."""
    new, old = sum(now.values()), sum(before.values())
    if not (new and old):
        return 0.0
    return sum(abs(now.get(c, 0) / new - before.get(c, 0) / old) for c in now.keys() | before.keys()) / 2


def decide(progress: TrainingNeeds, config: ProjectConfig) -> Decision:
    """What the project needs now."""
    until_refresh = _until_refresh(progress, config)
    until_retrain = _until_retrain(progress, config)
    if progress.paused:
        return Decision((), until_refresh, until_retrain, progress.paused)
    if progress.undecided:
        return Decision((), until_refresh, until_retrain, _undecided(progress))
    refresh, refresh_waits, again = _refresh(progress, config, until_refresh)
    retrain, retrain_waits = _retrain(progress, config, until_retrain)
    waits = tuple(dict.fromkeys(w for w in (refresh_waits, retrain_waits) if w))
    actions = tuple(a for a in (refresh, retrain) if a)
    watched = _watched(progress, config, until_retrain)
    return Decision(actions, until_refresh, until_retrain, "; ".join(waits) or None, again, watched)


def _undecided(progress: TrainingNeeds) -> str:
    """Learning without these labels, or with them, would be our choice; it is a person's."""
    be = "is" if len(progress.undecided) == 1 else "are"
    return f"{', '.join(progress.undecided)} {be} no longer in the label config: decide with `labelloop schema`"


def _until_refresh(progress: TrainingNeeds, config: ProjectConfig) -> int:
    """Labels that are still missing, if the next ones fall where they help soonest."""
    after = _pace(progress, config)
    short = _shortfalls(progress, config)
    two_classes = sum(short[:2]) if len(short) > 1 else after
    if progress.judged or progress.live:
        return max(two_classes, after - progress.changes)
    labels = sum(progress.labels.values())
    if config.refresh.class_min == 1:  # one label each says nothing of how often a head is right
        return max(two_classes, after - labels)
    return max(two_classes, min(sum(short), after - labels))


def _pace(progress: TrainingNeeds, config: ProjectConfig) -> int:
    """Labels from one refresh to the next. The first version is looked for sooner: it may be ready at any label.

    Not where ``class_min`` holds classes back, as in projects of before: an upgrade must start no run.
    """
    if progress.live or config.refresh.class_min > 1:
        return config.refresh.after
    return min(config.refresh.after, FIRST)


def _shortfalls(progress: TrainingNeeds, config: ProjectConfig) -> list[int]:
    """Labels each class lacks to enter the head, smallest first."""
    return sorted(max(0, config.refresh.class_min - n) for n in progress.labels.values())


def _until_retrain(progress: TrainingNeeds, config: ProjectConfig) -> int:
    enough = max(config.retrain.after, math.ceil(config.retrain.growth * progress.backbone_saw))
    return max(0, enough - progress.new_for_backbone)


def _refresh(
    progress: TrainingNeeds, config: ProjectConfig, until: int
) -> tuple[Action | None, str | None, float | None]:
    """The refresh, or why not, or when."""
    if until:
        return None, _two_classes(progress, config), None
    blocked = _blocked("refresh", progress.failed_refreshes)
    if blocked:
        return None, blocked, None
    left = _throttled(progress, config)
    if left > 0:
        return None, None, left
    return Action("refresh", _why_refresh(progress)), None, None


def _throttled(progress: TrainingNeeds, config: ProjectConfig) -> float:
    """Seconds to wait. Leading edge: the first batch starts at once, the next one waits its turn."""
    if progress.since_refresh_s is None or progress.since_refresh_s < 0:  # a worker's clock is ahead of ours
        return 0.0
    return max(0.0, config.refresh.throttle_s - progress.since_refresh_s)


def _why_refresh(progress: TrainingNeeds) -> str:
    if not (progress.judged or progress.live):
        return f"first model: {sum(progress.labels.values())} labels"
    return f"{progress.changes} new or changed labels since the last refresh"


def _retrain(progress: TrainingNeeds, config: ProjectConfig, until: int) -> tuple[Action | None, str | None]:
    """The retrain, or why not."""
    due = _why_retrain(progress, config, until) if config.retrain.automatic and progress.live else None
    if not (due or progress.retrain_asked):
        return None, None
    blocked = _two_classes(progress, config) or _blocked("retrain", progress.failed_retrains)
    if blocked:
        return None, blocked
    if progress.retrain_asked:
        return Action("retrain", "requested by a person"), None
    return Action("retrain", due or ""), None


def _why_retrain(progress: TrainingNeeds, config: ProjectConfig, until: int) -> str | None:
    """The first trigger that has fired."""
    policy, new = config.retrain, progress.new_for_backbone
    moved_on = policy.mix is not None and progress.mix >= policy.mix and new >= config.refresh.after
    triggers = (
        (until == 0, f"{new} labels that the backbone was not trained on"),
        (moved_on, f"class shares moved by {progress.mix:.2f} since the last retrain"),
        (
            policy.images and progress.new_images >= policy.images and new,
            f"{progress.new_images} more images than at the last retrain, with {new} new labels",
        ),
        (
            policy.on_change and progress.recipe_changed,
            "config changed since the last retrain (`backbone:` or `retrain:`)",
        ),
        (
            policy.on_upgrade and progress.upgraded,
            "training code changed since the last retrain (another release of labelloop)",
        ),
        (
            policy.cron and progress.cron_due and new,
            f"scheduled (retrain.cron: {policy.cron}), with {new} new labels",
        ),
    )
    return next((why for fired, why in triggers if fired), None)


def _watched(progress: TrainingNeeds, config: ProjectConfig, until: int) -> tuple[str, ...]:
    """How far every trigger is that could cause a retrain."""
    policy = config.retrain
    if not policy.automatic:
        return ("only on request (retrain.automatic: false)",)
    triggers = [f"after {until} labels" if until else "enough new labels"]
    if policy.mix is not None:
        triggers.append(f"class shares moved by {progress.mix:.2f} of {policy.mix:.2f}")
    if policy.images:
        triggers.append(f"{progress.new_images} of {policy.images} new images")
    if policy.cron:
        triggers.append(f"at {progress.cron_next}")
    if policy.on_change:
        triggers.append("when `backbone:` or `retrain:` changes")
    if policy.on_upgrade:
        triggers.append("when the training code changes")
    return tuple(triggers)


def _two_classes(progress: TrainingNeeds, config: ProjectConfig) -> str | None:
    """Nothing can be fitted before two classes have enough labels."""
    enough = config.refresh.class_min
    if sum(n >= enough for n in progress.labels.values()) >= 2:
        return None
    have = ", ".join(f"{name} {n}" for name, n in sorted(progress.labels.items()) if n)
    return f"needs two classes with {labels_each(enough)}: {have or 'no labels yet'}"


def labels_each(n: int) -> str:
    """What a class needs to enter a head, in words."""
    return "a label each" if n == 1 else f"{n} labels each"


def _blocked(kind: str, failed: int) -> str | None:
    if failed >= ATTEMPTS:
        return f"{kind} failed {failed} times: on hold until {_LIFTS[kind]} change, or `labelloop queue retry`"
    return None
