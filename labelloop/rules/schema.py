"""Classes as people gave them and as heads learned them in, the classes that are learned now out. Pure.

Snapshots keep what Label Studio says; the project's `label_map` says what a class counts as. What learns or compares
reads labels and heads through it, also those of old versions, so that all speak of the same classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from labelloop.config.project import ProjectConfig
from labelloop.records.arrays import Floats
from labelloop.records.snapshots import Snapshot
from labelloop.records.tasks import Annotation, QueuePlace, Seen, Task

OUTDATED = (
    "the image's file was overwritten after the answer. Open the task and look. Still right: press the key of the "
    "class twice, then Update. Wrong: choose the right one, then Update"
)
BULK = (
    "Label Studio made the answer from a prediction, and nobody looked: submit it as a person, or let such answers "
    "count (`answers.from_predictions`)"
)


@dataclass(frozen=True, slots=True)
class Names:
    """A head's classes under the names that they have now."""

    labels: tuple[str, ...]  # empty where every class was dropped
    sums: NDArray[np.float32]  # (head classes, labels): 1 where the one counts as the other

    def of(self, probabilities: Floats) -> Floats:
        """(n, head classes) to (n, labels): merged classes are summed, what was dropped is left out, rows sum to 1."""
        if self.sums.shape[0] == self.sums.shape[1]:  # none merged, none dropped: at most other names
            return probabilities
        rows = probabilities @ self.sums
        total = rows.sum(axis=1, keepdims=True)
        even = np.full_like(rows, 1 / max(len(self.labels), 1))
        return np.asarray(np.divide(rows, total, out=even, where=total > 0), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class LabelRules:
    """What each class and answer counts as. A function of the project's config alone: every run can be repeated."""

    label_map: Mapping[str, str | None] = field(default_factory=dict)  # None: does not count
    majority: bool = False  # among several answers to a task, instead of the newest
    bulk: bool = False  # answers that Label Studio made from predictions count, too

    @classmethod
    def of(cls, config: ProjectConfig) -> LabelRules:
        """The rules of a project."""
        answers = config.answers
        return cls(config.label_map, answers.resolve == "majority", answers.from_predictions)

    def resolve(self, label: str) -> str | None:
        """The class that it counts as, over several renames; itself where nobody decided anything."""
        name: str | None = label
        for _ in self.label_map:  # never longer, even if it went in a circle
            if name is None or name not in self.label_map:
                break
            name = self.label_map[name]
        return name

    def read(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with classes as they count. It keeps its id: the two together name what was learned from."""
        touched = {i: read for i, task in snapshot.tasks.items() if (read := self.task(task)) is not task}
        return replace(snapshot, tasks={**snapshot.tasks, **touched}) if touched else snapshot

    def task(self, task: Task) -> Task:
        """The task with classes as they count; an answer that does not count is there, without a label."""
        majority = self.majority and len(task.annotations) > 1
        if not majority and not any(self._is_touched(a) for a in task.annotations):
            return task
        return replace(task, annotations=tuple(map(self._annotation, task.annotations)), majority=majority)

    def choosable(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Those of Label Studio's classes that count as themselves: what a label can be."""
        return tuple(name for name in classes if self.resolve(name) == name)

    def names(self, labels: Sequence[str]) -> Names:
        """How a head's classes are called now."""
        resolved = [self.resolve(label) for label in labels]
        kept = tuple(dict.fromkeys(label for label in resolved if label is not None))
        sums = np.zeros((len(labels), len(kept)), dtype=np.float32)
        for row, label in enumerate(resolved):
            if label is not None:
                sums[row, kept.index(label)] = 1
        return Names(kept, sums)

    def shown(self, choice: QueuePlace, classes: Collection[str]) -> QueuePlace:
        """A place of an older order as it may be shown now: without a pre-label where ``classes`` lack its class."""
        label = self.resolve(choice.label) if choice.label is not None else None
        if label == choice.label and (label is None or label in classes):
            return choice
        if label is None or label not in classes:
            return replace(choice, label=None, probability=None)
        return replace(choice, label=label)

    def _is_touched(self, annotation: Annotation) -> bool:
        if annotation.outdated or annotation.bulk:
            return True
        predicted = annotation.seen.label if annotation.seen else None
        return any(name in self.label_map for name in (annotation.label, annotation.given, predicted))

    def _annotation(self, annotation: Annotation) -> Annotation:
        original = self.resolve(annotation.given) if annotation.given is not None else None
        annotation = replace(annotation, given=original)
        if annotation.label is None:
            return replace(annotation, seen=self._seen(annotation.seen))
        label, problem = self._counts_as(annotation, annotation.label)
        return replace(annotation, label=label, seen=self._seen(annotation.seen), problem=problem)

    def _counts_as(self, annotation: Annotation, name: str) -> tuple[str | None, str | None]:
        """(class, why it does not count)."""
        if annotation.outdated:
            return None, OUTDATED
        if annotation.bulk and not annotation.ground_truth and not self.bulk:
            return None, BULK
        label = self.resolve(name)
        return label, f"class {name!r} is dropped by label_map" if label is None else annotation.problem

    def _seen(self, seen: Seen | None) -> Seen | None:
        return replace(seen, label=self.resolve(seen.label)) if seen and seen.label is not None else seen


AS_GIVEN = LabelRules()  # every class is itself
