"""An annotator who knows the truth and works through Label Studio's own API as a person does."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from labelloop.clock import now
from labelloop.labels.results import LabelSchema
from labelloop.records.tasks import Seen
from labelloop.studio.client import NextTask, Studio


@dataclass(frozen=True, slots=True)
class Rates:
    """How often the annotator does something else than submitting the truth, in [0, 1]."""

    skip: float = 0.0
    change: float = 0.0  # submit a wrong class, correct it later
    delete: float = 0.0  # take back a label given before


@dataclass(frozen=True, slots=True)
class Submitted:
    """One label as it was given."""

    at: str  # UTC, when the submit was sent
    task: int
    annotation: int
    label: str
    seen: Seen | None


@dataclass
class Oracle:
    """Answers `next` until it is stopped. Deterministic for a seed and an order of tasks."""

    studio: Studio
    project: int
    schema: LabelSchema
    truth: Mapping[str, str]  # uri -> class
    rates: Rates
    seed: int = 0
    submitted: list[Submitted] = field(default_factory=list)  # without those deleted again
    _wrong: list[Submitted] = field(default_factory=list)
    _truths: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._opened = time.monotonic()

    def step(self) -> Submitted | None:
        """Answer the next task; None where there is none, or where it was skipped."""
        self._opened = time.monotonic()
        task = self.studio.next_task(self.project, self.schema)
        if task is None:
            return None
        if self._random.random() < self.rates.skip:
            self.studio.annotate(task.id, [], lead_time_s=self._lead_time(), skip=True)
            return None
        submitted = self._submit(task)
        self._second_thoughts()
        return submitted

    @property
    def is_done(self) -> bool:
        """True where the queue is empty."""
        return self.studio.next_task(self.project, self.schema) is None

    def settle(self) -> None:
        """Correct what was given wrongly on purpose and not corrected yet."""
        for wrong in self._wrong:
            self.studio.change_annotation(wrong.annotation, self.schema.result(self.truth_of(wrong)))
        self._wrong.clear()

    def truth_of(self, submitted: Submitted) -> str:
        """The class that should have been given."""
        return self._truths[submitted.task]

    def _submit(self, task: NextTask) -> Submitted:
        truth = self.truth[task.uri]
        self._truths[task.id] = truth
        wrong = self._random.random() < self.rates.change
        label = self._random.choice([c for c in self.schema.classes if c != truth]) if wrong else truth
        at = now()
        annotation = self.studio.annotate(
            task.id, self.schema.result(label), lead_time_s=self._lead_time(), prediction=task.prediction_id
        )
        submitted = Submitted(at, task.id, annotation, label, task.prediction)
        self.submitted.append(submitted)
        if wrong:
            self._wrong.append(submitted)
        return submitted

    def _second_thoughts(self) -> None:
        if len(self._wrong) > 1:
            wrong = self._wrong.pop(0)
            self.studio.change_annotation(wrong.annotation, self.schema.result(self.truth_of(wrong)))
        if self.submitted and self._random.random() < self.rates.delete:
            taken_back = self.submitted.pop(self._random.randrange(len(self.submitted)))
            self._wrong = [w for w in self._wrong if w.annotation != taken_back.annotation]
            self.studio.delete_annotation(taken_back.annotation)

    def _lead_time(self) -> float:
        """As the page counts it: from it, the watcher knows which version was in front of the annotator."""
        return round(time.monotonic() - self._opened, 3)
