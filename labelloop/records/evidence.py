"""What the gate looks at, and what it says: frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from labelloop.records.json import fields_of


@dataclass(frozen=True, slots=True)
class Paired:
    """Two arms judged on the same images. ``difference`` is challenger minus champion."""

    on: str  # what the images are, in words
    n: int
    champion: float
    challenger: float
    difference: float
    low: float  # 95 % interval of the difference
    high: float


@dataclass(frozen=True, slots=True)
class Comparison(Paired):
    """Accuracies, in [0, 1]."""

    changed: int  # images on which the two predictions differ


@dataclass(frozen=True, slots=True)
class LossComparison(Paired):
    """Mean log losses, in nats: less is better."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What the live head says of new labels that it has not learned: a test before the training. Losses in nats."""

    n: int  # new labels of classes that it knows
    loss: float  # mean log loss on them ...
    expected: float  # ... and what it would be on average, if the head's probabilities were right
    deviation: float  # of one from the other, in standard errors
    batches: float  # new labels, in batches of `refresh.after`
    tasks: tuple[int, ...] = ()  # whose labels contradict it most, the worst first


@dataclass(frozen=True, slots=True)
class Calibration:
    """Expected calibration errors of the heads that serve, on the same images; gaps in [0, 1]."""

    n: int
    challenger: float
    champion: float | None = None  # None: there is none
    chance: float = 1.0  # how much worse than the champion chance makes one that is as good, once in twenty


@dataclass(frozen=True, slots=True)
class ClassRecall:
    """How often one class is recognised, on the images that judge. Shares in [0, 1]."""

    name: str
    n: int  # labels of this class among them
    challenger: float
    high: float  # upper 95 % Wilson bound of it
    champion: float | None = None
    drop_high: float = 1.0  # upper bound of ``among`` minus champion, all classes together at 97.5 %
    among: float | None = None  # the challenger's, asked only for classes that the champion knows, too; None: the same


@dataclass(frozen=True, slots=True)
class Recognised:
    """How many train labels of a class the head names rightly out of fold. Of test and audit nothing is in it."""

    name: str
    n: int
    right: int


@dataclass(frozen=True, slots=True)
class Renaming:
    """What the model would have been right on if some of its class names stood for others."""

    accuracy: float
    names: tuple[str, ...]  # those that would have to change


@dataclass(frozen=True, slots=True)
class Artefact:
    """The artefact that would serve, loaded as the backend loads it and run on images from their bytes."""

    images: int
    difference: float  # largest one of a probability to what was evaluated, in [0, 1]
    ms: float  # of one image, the fastest of several
    champion_ms: float | None = None  # the same of the champion, measured in turn


@dataclass(frozen=True, slots=True)
class PreLabels:
    """What people would have been shown of train labels, each by a head that had not learned it."""

    right: int
    wrong: int
    hidden: int  # nothing was shown: a class without a label was likelier
    only: int  # of no account: the only labels of their class, which no head can name that has not learned them
    majority: float  # share of the largest class among the right and the wrong ones
    independent: float | None = None  # as many independent images say as much as the right and wrong ones; None: these


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything the gate looks at. Accuracies in [0, 1]; ``None`` where there is nothing to judge on."""

    kind: str  # refresh | retrain
    labels: int  # train labels the challenger learned from
    new_labels: int  # added or changed since the champion learned
    classes: tuple[str, ...]
    waiting: Mapping[str, int] = field(default_factory=dict)  # classes below the minimum -> labels they have
    accuracy: float | None = None  # out of fold, over train labels the backbone never saw
    accuracy_low: float | None = None  # 95 % Wilson bounds
    accuracy_high: float | None = None
    majority: float = 0.0  # share of the largest class among the same labels
    judged_on: int = 0
    ece: float | None = None  # expected calibration error, 10 bins
    log_loss: float | None = None
    test_n: int = 0
    test_accuracy: float | None = None  # on the test split: random, never anchored, never trained on
    test_high: float | None = None  # its upper 95 % Wilson bound
    comparison: Comparison | None = None  # with the champion; None for the first
    earlier: LossComparison | None = None  # of a refresh, with the champion: on the labels that both have learned
    contradiction: Contradiction | None = None  # of a refresh: its new labels under the champion's head
    reference: Comparison | None = None  # with the fixed reference version
    test_comparison: Comparison | None = None
    recalls: tuple[ClassRecall, ...] = ()
    recognised: tuple[Recognised, ...] = ()  # for the order of the queue; empty where an older release judged
    known_accuracy: float | None = None  # of the head that would serve, on the labels it learned from
    renaming: Renaming | None = None  # the best one, by the labels that it learned from
    artefact: Artefact | None = None  # where backbone or kind of head are others than the champion's
    robustness: Comparison | None = None  # with the champion, on test images with noise and blur
    conflicts: tuple[str, ...] = ()  # duplicate images with contradicting labels, left out
    calibration: Calibration | None = None  # on the test split
    head_changed: tuple[str, ...] = ()  # what the recipe of the head differs in from the champion's
    renamed: tuple[str, ...] = ()  # classes that people have renamed, merged, dropped or taken back since the champion
    missing: tuple[str, ...] = ()  # classes that people can choose and the head does not know
    shown: PreLabels | None = None  # None: nothing to judge on, or an older release judged


class Outcome(StrEnum):
    """What the gate says."""

    PROMOTE = "promote"
    HOLD = "hold"  # not now: nothing new, or too little evidence
    REJECT = "reject"  # evidence that it is worse


@dataclass(frozen=True, slots=True)
class Check:
    """What one rule of the gate found."""

    rule: str
    outcome: Outcome
    reason: str  # in words and numbers
    warns: bool = False  # objects to nothing, and is to be said with the reasons all the same


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer, with reasons a person can act on."""

    outcome: Outcome
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()  # every rule that had something to judge on
    awaits: bool = False  # held for nothing but a person's approval


_PARTS: Mapping[str, type] = {
    "comparison": Comparison, "reference": Comparison, "test_comparison": Comparison, "robustness": Comparison,
    "renaming": Renaming, "artefact": Artefact, "earlier": LossComparison, "calibration": Calibration,
    "contradiction": Contradiction, "shown": PreLabels,
}  # fmt: skip


def evaluation_from(data: Mapping[str, Any]) -> Evaluation:
    """The inverse of `to_dict` for an evaluation."""
    values = dict(fields_of(Evaluation, data))
    for name, record in _PARTS.items():
        if values.get(name):
            values[name] = record(**fields_of(record, values[name]))
    if values.get("renaming"):
        values["renaming"] = replace(values["renaming"], names=tuple(values["renaming"].names))
    if values.get("contradiction"):
        values["contradiction"] = replace(values["contradiction"], tasks=tuple(values["contradiction"].tasks))
    values["recalls"] = tuple(ClassRecall(**fields_of(ClassRecall, r)) for r in values.get("recalls", ()))
    values["recognised"] = tuple(Recognised(**fields_of(Recognised, r)) for r in values.get("recognised", ()))
    values["classes"] = tuple(values.get("classes", ()))
    for name in ("conflicts", "renamed", "head_changed", "missing"):
        values[name] = tuple(values.get(name, ()))
    return Evaluation(**values)
