"""Frozen records that travel between rooms, and their JSON form."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any


class Bucket(StrEnum):
    """What an image's label may be used for; decided once, at first sight."""

    TRAIN = "train"  # fits models; the only bucket the model chooses from
    TEST = "test"  # judges models
    AUDIT = "audit"  # only reports, stop advice and auto-label bounds
    QUARANTINE = "quarantine"  # near images of two groups, which may stand on both sides: neither trains nor judges


MOST_EARLIER = 20  # a camera may write its newest picture to one place for ever
JUDGING = frozenset({Bucket.TEST, Bucket.AUDIT})


@dataclass(frozen=True, slots=True)
class Seen:
    """The prediction in front of the person, or (``blind``) the one kept from them."""

    version: str
    label: str | None
    blind: bool = False
    probability: float | None = None  # what the model gave its label, in [0, 1]; None: not known
    chosen: bool = False  # blind by chance although the model chose it, and not one of the random quota


@dataclass(frozen=True, slots=True)
class Annotation:
    """One person's answer to one task, as Label Studio holds it. Times are UTC ISO 8601."""

    id: int
    created_at: str
    updated_at: str
    label: str | None  # None: skipped, or nothing chosen
    cancelled: bool = False
    ground_truth: bool = False
    completed_by: int | None = None
    lead_time_s: float | None = None
    seen: Seen | None = None
    seed: bool = False  # revealed at set-up, not given by a person
    problem: str | None = None  # why the result could not be read, e.g. a class that the label config lacks
    changed_by: int | None = None  # who changed it last, where that was somebody else
    given: str | None = None  # the class of ``completed_by``, where somebody else has changed it since
    bulk: bool = False  # made by Label Studio from a prediction, without anybody who looked
    of: str | None = None  # the image that it was given for, where its task has come to show another one
    outdated: str | None = None  # when other bytes were found in place of those that were labelled


@dataclass(frozen=True, slots=True)
class Task:
    """One image in Label Studio with all annotations it has now."""

    id: int
    uri: str
    updated_at: str
    annotations: tuple[Annotation, ...] = ()
    majority: bool = False  # see `counted`; set by `labelloop.schema`, never kept

    @property
    def counted(self) -> Annotation | None:
        """The annotation that counts: a ground truth, else the newest that is neither skipped nor empty.

        With ``majority`` the newest of the class that most people chose; of equally many the class chosen last.
        """
        answers = [a for a in self.annotations if a.label is not None and not a.cancelled]
        answers = [a for a in answers if a.ground_truth] or answers
        if self.majority and answers:
            votes = Counter(_votes(answers))
            answers = [a for a in answers if votes[a.label] == max(votes.values())]
        return max(answers, key=_by_age, default=None)

    @property
    def label(self) -> str | None:
        """The class that counts."""
        counted = self.counted
        return counted.label if counted else None

    @property
    def skipped(self) -> bool:
        """True where people answered, but only by skipping."""
        return self.label is None and any(a.cancelled for a in self.annotations)


def _votes(answers: Iterable[Annotation]) -> Iterable[str | None]:
    """One class of each person, the last one; an answer of nobody known stands for itself."""
    last: dict[object, str | None] = {}
    for answer in sorted(answers, key=_by_age):
        last[("answer", answer.id) if answer.completed_by is None else answer.completed_by] = answer.label
    return last.values()


def _by_age(answer: Annotation) -> tuple[str, int]:
    return answer.updated_at, answer.id


@dataclass(frozen=True, slots=True)
class Bytes:
    """What a file held until other bytes were found in it."""

    sha256: str  # empty: not remembered any more
    until: str  # UTC ISO 8601


class Related:
    """What an image has in common with others."""

    __slots__ = ()
    group: str
    twin: str
    bucket: Bucket

    @property
    def twins(self) -> str:
        """Images of one picture. Its labels count once, and may contradict each other."""
        return self.twin or self.group

    @property
    def unit(self) -> str:
        """What counts once: a picture where it trains, a group of related ones where it judges."""
        return self.group if self.bucket in JUDGING else self.twins


@dataclass(frozen=True, slots=True)
class ImageFacts(Related):
    """What is known of one image's bytes; recorded once by `featurise`."""

    uri: str
    etag: str
    sha256: str = ""  # of the bytes; empty where they could not be read
    group: str = ""  # related images, which stand in one bucket; empty: not decided yet
    bucket: Bucket = Bucket.TRAIN
    problem: str | None = None  # why the image cannot be used
    phash: str = ""  # perceptual hash; empty: not looked at
    earlier: tuple[Bytes, ...] = ()  # what stood there before, oldest first; empty: the file was never overwritten
    middle: str = ""  # hash of the middle, by which relatives are sought; empty: not looked at
    twin: str = ""  # images proven to be one picture: the content hash of the first; empty in old records: the group

    @property
    def undecided(self) -> bool:
        """Read, and not in a bucket yet."""
        return bool(self.sha256) and not self.group

    def changed_after(self, moment: str) -> str | None:
        """When the bytes of that moment (UTC ISO 8601) were first missed; None where they stand there now.

        Of a file whose oldest bytes are not remembered any more, all old answers are of other bytes.
        """
        then = next((past for past in self.earlier if moment < past.until), None)
        return then.until if then and then.sha256 != self.sha256 else None

    def overwritten(self, sha256: str, moment: str) -> ImageFacts:
        """The same file with other bytes, found at that moment. What it is used for stays."""
        past = (*self.earlier, Bytes(self.sha256, moment))
        kept = (
            past if len(past) <= MOST_EARLIER else (replace(past[-MOST_EARLIER], sha256=""), *past[1 - MOST_EARLIER :])
        )
        return ImageFacts(self.uri, self.etag, sha256, bucket=self.bucket, earlier=kept)


@dataclass(frozen=True, slots=True)
class Example(Related):
    """One labelled image, ready to fit or judge: label collapsed, bucket known, features present."""

    task_id: int
    uri: str
    group: str
    bucket: Bucket
    label: str
    weight: float = 1.0  # how much it counts where models learn
    twin: str = ""  # images proven to be one picture; empty: the group


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
    champion_ms: float | None = None  # the same of the live version, measured in turn


@dataclass(frozen=True, slots=True)
class PreLabels:
    """What people would have been shown of train labels, each by a head that had not learned it."""

    right: int
    wrong: int
    hidden: int  # nothing was shown: a class without a label was likelier
    only: int  # of no account: the only labels of their class, which no head can name that has not learned them
    majority: float  # share of the largest class among the right and the wrong ones


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything the gate looks at. Accuracies in [0, 1]; ``None`` where there is nothing to judge on."""

    kind: str  # refresh | retrain
    labels: int  # train labels the challenger learned from
    new_labels: int  # of which the champion has not seen (added or changed)
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
    test_accuracy: float | None = None  # on the test bucket: random, never anchored, never trained on
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
    calibration: Calibration | None = None  # on the test bucket
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


@dataclass(frozen=True, slots=True)
class Choice:
    """One place in the queue: which image, what the model says of it, and whether that is shown."""

    uri: str
    priority: float  # in [0, 1]; lowest is served first
    label: str | None
    probability: float | None
    blind: bool
    why: str  # quota | cold-start | uncertain | rest


def to_dict(record: Any) -> dict[str, Any]:
    """Dataclass to plain JSON types, leaving out what is None."""
    return {k: v for k, v in asdict(record).items() if v is not None}


_ALWAYS = frozenset({
    "id", "created_at", "updated_at", "label", "cancelled", "ground_truth", "completed_by", "lead_time_s", "seen",
    "seed", "problem",
})  # fmt: skip
_ALWAYS_SEEN = frozenset({"version", "label", "blind"})


def task_line(task: Task) -> dict[str, Any]:
    """A task as a snapshot holds it, whose id is its bytes.

    A field that is added to `Annotation` or `Seen` later stands there only where it says something: no snapshot changes
    its id.
    """
    found = to_dict(task)
    del found["majority"]
    for annotation in found["annotations"]:
        _leave_out(annotation, _later(Annotation, _ALWAYS))
        if annotation["seen"]:
            _leave_out(annotation["seen"], _later(Seen, _ALWAYS_SEEN))
    return found


def _leave_out(data: dict[str, Any], later: Iterable[tuple[str, Any]]) -> None:
    for name, default in later:
        if data[name] == default:
            del data[name]


@functools.cache
def _later(record: type, always: frozenset[str]) -> tuple[tuple[str, Any], ...]:
    return tuple((f.name, f.default) for f in fields(record) if f.name not in always)


def canonical(value: Any) -> bytes:
    """The one byte form that is hashed: sorted keys, no white space, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def fields_of(record: type, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those fields that ``record`` has: a newer release may have written more of them."""
    names = _names(record)
    return data if names.issuperset(data) else {name: value for name, value in data.items() if name in names}


@functools.cache
def _names(record: type) -> frozenset[str]:
    return frozenset(f.name for f in fields(record))


def annotation_from(data: Mapping[str, Any]) -> Annotation:
    """The inverse of `to_dict` for an annotation."""
    seen = data.get("seen")
    found = Seen(**{"label": None, **fields_of(Seen, seen)}) if seen else None
    return Annotation(**{"label": None, **fields_of(Annotation, data), "seen": found})


def task_from(data: Mapping[str, Any]) -> Task:
    """The inverse of `to_dict` for a task."""
    annotations = tuple(annotation_from(a) for a in data.get("annotations", ()))
    return Task(data["id"], data["uri"], data["updated_at"], annotations)


_PARTS: Mapping[str, type] = {
    "comparison": Comparison, "reference": Comparison, "test_comparison": Comparison, "robustness": Comparison,
    "renaming": Renaming, "artefact": Artefact, "earlier": LossComparison, "calibration": Calibration,
    "contradiction": Contradiction, "shown": PreLabels,
}  # fmt: skip


def verdict_from(data: Mapping[str, Any]) -> Verdict:
    """The inverse of `to_dict` for a verdict."""
    checks = (fields_of(Check, c) for c in data.get("checks", ()))
    found = tuple(Check(c["rule"], Outcome(c["outcome"]), c["reason"], bool(c.get("warns"))) for c in checks)
    return Verdict(Outcome(data["outcome"]), tuple(data["reasons"]), found, bool(data.get("awaits")))


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
