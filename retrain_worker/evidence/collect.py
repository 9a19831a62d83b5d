"""Label sets and features in, a fitted head and everything the gate looks at out.

The arms of a refresh are label sets under one recipe: the same folds, strength and features; only the labels
differ. So the difference says what the new labels did, and not how lucky a fit was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import NotEnoughLabelsError
from labelloop.model.classifier import Classifier, load_classifier
from labelloop.records.arrays import Floats
from labelloop.records.evidence import Comparison, Contradiction, Evaluation, LossComparison, Recognised
from labelloop.records.images import Example, Split
from labelloop.rules.schema import AS_GIVEN, LabelRules
from labelloop.rules.trigger import labels_each
from retrain_worker.evidence.answers import PairedAnswers, best_renaming, pre_labels, recalls, surprise
from retrain_worker.evidence.clusters import clusters_of, share_interval
from retrain_worker.evidence.contradiction import contradiction
from retrain_worker.heads.calibration import Sureness, calibration, expected_calibration_error
from retrain_worker.heads.logistic import Bools, codes, log_loss
from retrain_worker.heads.recipe import FittedHead, HeadRecipe, Lesson, fit

Rows = Callable[[Sequence[str]], Floats]  # uris -> (n, features)
Strings = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class LabelSets:
    """What each arm may learn from; all splits, collapsed to one label per task."""

    grown: Sequence[Example]
    champion: Sequence[Example] | None = None  # None: there is no champion
    reference: Sequence[Example] | None = None  # None: there is none, or it is the champion


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the arms share."""

    class_min: int = 1  # labels that a class needs to enter the head
    head: HeadRecipe = field(default_factory=HeadRecipe)
    backbone_saw: Collection[str] = field(default_factory=frozenset)  # groups it was fine-tuned on
    rules: LabelRules = AS_GIVEN  # how the classes of the champion's head are called now
    pool: Floats | None = None  # (p, features): a sample of train images that nobody has labelled
    batch: int = 10  # new labels after which a refresh comes
    choosable: Sequence[str] = ()  # classes


@dataclass(frozen=True, slots=True)
class Side:
    """A head as it serves, with the features it was made for."""

    head: Classifier
    rows: Rows
    rules: LabelRules = AS_GIVEN

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes by the names of now, without those that were dropped."""
        return self.rules.names(self.head.labels).labels

    def probabilities(self, uris: Sequence[str]) -> Floats:
        """(n, labels) of the images, under the names of now."""
        names = self.rules.names(self.head.labels)
        if not (names.labels and uris):
            return np.zeros((len(uris), len(names.labels)), dtype=np.float32)
        return names.of(self.head.probabilities(self.rows(uris)))

    def answers(self, uris: Sequence[str]) -> Strings:
        """The class named for each image (n,), by the names of now; empty where all of them were dropped."""
        return _named(self.probabilities(uris), self.labels)


def _named(probabilities: Floats, classes: Sequence[str], among: Collection[str] | None = None) -> Strings:
    """The most probable class (n,), empty without classes; ``among``: of these, where there are any."""
    if not (len(classes) and len(probabilities)):
        return np.full(len(probabilities), "", dtype=np.str_)
    columns = [k for k, name in enumerate(classes) if among is None or name in among] or list(range(len(classes)))
    names = np.array([classes[k] for k in columns], dtype=np.str_)
    return np.asarray(names[probabilities[:, columns].argmax(axis=1)], dtype=np.str_)


def _sureness(probabilities: Floats, classes: Sequence[str], truth: Strings) -> Sureness:
    return Sureness(probabilities.max(axis=1, initial=0.0), _named(probabilities, classes) == truth)


@dataclass(frozen=True, slots=True)
class Learned:
    """A head and its evidence."""

    fitted: FittedHead
    evaluation: Evaluation


def refresh_evidence(sets: LabelSets, rows: Rows, *, champion: Classifier | None, recipe: Recipe) -> Learned:
    """Fit on the grown label set; compare with the champion's and the reference's, out of fold.

    NotEnoughLabelsError where fewer than two classes have ``recipe.class_min`` labels.
    """
    table = _table(sets, recipe)
    fitted, arms = _fit(table, rows, recipe)
    evaluation = replace(_common("refresh", table, fitted, rows), missing=_missing(table, recipe))
    evaluation = replace(
        evaluation,
        comparison=table.compare(fitted.oof, arms.get("champion")),
        earlier=table.surprised(fitted.oof, arms.get("champion")),
        reference=table.compare(fitted.oof, arms.get("reference")),
        renamed=_renamed(champion, sets.champion, recipe.class_min) if champion and sets.champion else (),
    )
    side = Side(champion, rows, recipe.rules) if champion else None
    if side and sets.champion is not None:
        against = _contradiction(sets.grown, sets.champion, side, batches=evaluation.new_labels / recipe.batch)
        evaluation = replace(evaluation, contradiction=against)
    unseen = table.answers(fitted.oof, arms.get("champion"))
    return Learned(
        fitted,
        with_test_split(evaluation, sets.grown, challenger=Side(fitted.head, rows), champion=side, unseen=unseen),
    )


def _contradiction(
    grown: Sequence[Example], learned: Sequence[Example], champion: Side, *, batches: float
) -> Contradiction | None:
    """What the champion that serves says of labels that it never learned, of classes that it knows.

    An answer that somebody has changed is left out: the champion learned the earlier one, and contradicts for that.
    """
    units = {e.unit for e in learned}
    classes = champion.labels
    new = [e for unit, e in sorted(_train(grown)[0].items()) if unit not in units and e.label in classes]
    probabilities = champion.probabilities([e.uri for e in new])
    return contradiction(
        probabilities, codes([e.label for e in new], classes), [e.task_id for e in new], batches=batches
    )


def _renamed(champion: Classifier, labels: Sequence[Example], class_min: int) -> tuple[str, ...]:
    """Classes of the head that its own labels have no more, and the other way round: people decided otherwise."""
    left = set(champion.labels) - {e.label for e in labels}
    agreed, _ = _train(labels)
    joined = set(entering([e.label for e in agreed.values()], class_min)[0]) - set(champion.labels)
    return tuple(sorted(left | joined))


def retrain_evidence(sets: LabelSets, rows: Rows, *, champion: Side | None, recipe: Recipe) -> Learned:
    """Fit on the new backbone's features (``rows``); the test split compares with the champion on its own.

    Out-of-fold figures cover only labels that the new backbone never saw (``recipe.backbone_saw``); those of them that
    the champion has not learned either are compared, too.
    """
    table = _table(sets, recipe)
    fitted, _ = _fit(replace(table, arms={}), rows, recipe)
    evaluation = replace(_common("retrain", table, fitted, rows), missing=_missing(table, recipe))
    later = _later(table, fitted, sets.champion, champion)
    if len(later.truth):
        evaluation = replace(evaluation, comparison=later.compared("labels given since, that neither had learned"))
    return Learned(
        fitted,
        with_test_split(evaluation, sets.grown, challenger=Side(fitted.head, rows), champion=champion, unseen=later),
    )


def _later(
    table: _Table, fitted: FittedHead, learned: Sequence[Example] | None, champion: Side | None
) -> PairedAnswers:
    """Test, then train: what came after the fine-tune had begun and the champion has not learned either.

    The challenger answers out of fold. People saw these images because the champion was unsure of them.
    """
    if champion is None or learned is None:
        return PairedAnswers.none()
    units = _train(learned)[0]
    rows = [i for i, unit in enumerate(table.units) if table.judged[i] and unit not in units]
    truth = np.array([table.labels[i] for i in rows], dtype=np.str_)
    probabilities = fitted.oof[rows]
    return PairedAnswers(
        truth, _named(probabilities, table.classes), champion.answers([table.uris[i] for i in rows]),
        _named(probabilities, table.classes, champion.labels), np.array([table.groups[i] for i in rows], dtype=np.str_),
    )  # fmt: skip


def one_per_unit(examples: Sequence[Example]) -> tuple[dict[str, Example], tuple[str, ...]]:
    """Unit -> one example, and the uris of one picture whose labels contradict each other (left out).

    A unit is a picture where it trains; where it judges, a group of related pictures speaks once.
    """
    kept, conflicts = one_per_picture(examples)
    agreed: dict[str, Example] = {}
    for example in kept:
        agreed.setdefault(example.unit, example)
    return agreed, conflicts


def one_per_picture(examples: Sequence[Example]) -> tuple[list[Example], tuple[str, ...]]:
    """The same, but every picture of a group that judges: for figures that know its group."""
    pictures: dict[tuple[str, str], list[Example]] = {}
    for example in sorted(examples, key=lambda e: (e.uri, e.task_id)):
        pictures.setdefault((example.unit, example.twins), []).append(example)
    kept: list[Example] = []
    conflicts: list[str] = []
    for same in pictures.values():
        if len({e.label for e in same}) > 1:
            conflicts += [e.uri for e in same]
        else:
            kept.append(same[0])
    return kept, tuple(conflicts)


def entering(labels: Collection[str], class_min: int) -> tuple[tuple[str, ...], dict[str, int]]:
    """Classes with enough labels, sorted, and those below the minimum with what they have."""
    counts = Counter(labels)
    enough = tuple(sorted(name for name, n in counts.items() if n >= class_min))
    return enough, {name: n for name, n in sorted(counts.items()) if n < class_min}


@dataclass(frozen=True, slots=True)
class _Table:
    """One row per picture of the train split that any arm knows."""

    units: tuple[str, ...]
    groups: tuple[str, ...]  # related pictures share a fold
    uris: tuple[str, ...]
    labels: tuple[str | None, ...]  # the grown set's: what is learned, and the truth
    judged: Bools  # has a label of a class in the head, and the backbone never saw it
    unseen: Bools
    classes: tuple[str, ...]
    waiting: Mapping[str, int]
    changes: int  # added, changed or withdrawn since the champion
    conflicts: tuple[str, ...]
    arms: Mapping[str, tuple[str | None, ...]]  # champion, reference -> their labels
    weights: Floats | None  # how much each row counts in the fits; None: all alike

    @property
    def arm_classes(self) -> tuple[str, ...]:
        """Columns of what an arm says: those of the head first, then what only an arm knows."""
        labels = {label for arm in self.arms.values() for label in arm if label is not None}
        return self.classes + tuple(sorted(labels - set(self.classes)))

    @property
    def champion_classes(self) -> set[str]:
        """What the champion has learned from; nothing where there is none."""
        return {label for label in self.arms.get("champion", ()) if label is not None}

    def compare(self, challenger: Floats, arm: Floats | None) -> Comparison | None:
        """Both out of fold on the judged rows; None where there is no such arm."""
        return self.answers(challenger, arm).compared("train labels, out of fold")

    def answers(self, challenger: Floats, arm: Floats | None) -> PairedAnswers:
        """Of both on the judged rows, out of fold."""
        truth = np.array([label or "" for label in self.labels], dtype=np.str_)
        judged = self.judged
        ours = _named(challenger[judged], self.classes)
        groups = np.array(self.groups, dtype=np.str_)[judged]
        if arm is None:
            return PairedAnswers(truth[judged], ours, None, groups=groups)
        common = _named(challenger[judged], self.classes, self.champion_classes)
        return PairedAnswers(truth[judged], ours, _named(arm[judged], self.arm_classes), common, groups)

    def surprised(self, challenger: Floats, champion: Floats | None) -> LossComparison | None:
        """Both out of fold on the judged rows whose label the champion has learned, too, among the classes of both.

        A class that has just entered takes its share of the sureness about the others: nothing is wrong with that.
        """
        if champion is None:
            return None
        both = self.judged & np.array([a == b for a, b in zip(self.labels, self.arms["champion"], strict=True)])
        classes = tuple(name for name in self.classes if name in self.champion_classes)
        columns = [self.classes.index(name) for name in classes]  # the same in both: an arm's begin with the head's
        truth = codes([label for label, judged in zip(self.labels, both, strict=True) if judged], classes)
        ours, before = (p[both][:, columns] for p in (challenger, champion))
        clusters = clusters_of(np.array(self.groups, dtype=np.str_)[both])
        return surprise(truth, champion=before, challenger=ours, on="labels that both have learned", clusters=clusters)


def _table(sets: LabelSets, recipe: Recipe) -> _Table:
    grown, conflicts = _train(sets.grown)
    champion = _train(sets.champion)[0] if sets.champion is not None else None
    reference = _train(sets.reference)[0] if sets.reference is not None else None
    if reference == champion:
        reference = None  # a second arm with the same labels says nothing more
    examples = {**(reference or {}), **(champion or {}), **grown}
    units = tuple(sorted(examples))
    groups = tuple(examples[unit].group for unit in units)
    classes, waiting = entering([e.label for e in grown.values()], recipe.class_min)
    if len(classes) < 2:
        have = ", ".join(f"{name} {n}" for name, n in sorted(Counter(e.label for e in grown.values()).items()))
        raise NotEnoughLabelsError(f"needs two classes with {labels_each(recipe.class_min)}: {have or 'none'}")
    labels = _column(grown, units, recipe.class_min)
    unseen = np.array([g not in recipe.backbone_saw for g in groups], dtype=np.bool_)
    named = {"champion": champion, "reference": reference}
    return _Table(
        units=units, groups=groups, uris=tuple(examples[u].uri for u in units), labels=labels,
        judged=unseen & np.array([label is not None for label in labels], dtype=np.bool_), unseen=unseen,
        classes=classes, waiting=waiting, changes=_changes(champion or {}, grown), conflicts=conflicts,
        arms={k: _column(v, units, recipe.class_min) for k, v in named.items() if v is not None},
        weights=None if all(e.weight == 1.0 for e in grown.values())
        else np.array([examples[u].weight for u in units], dtype=np.float32),
    )  # fmt: skip


def _train(examples: Sequence[Example]) -> tuple[dict[str, Example], tuple[str, ...]]:
    return one_per_unit([e for e in examples if e.bucket is Split.TRAIN])


def _column(examples: Mapping[str, Example], units: Sequence[str], class_min: int) -> tuple[str | None, ...]:
    """An arm's label of every row; None where it has none or the class does not enter its head."""
    classes, _ = entering([e.label for e in examples.values()], class_min)
    return tuple(examples[u].label if u in examples and examples[u].label in classes else None for u in units)


def _changes(before: Mapping[str, Example], after: Mapping[str, Example]) -> int:
    labels = {u: e.label for u, e in before.items()}
    return sum(labels.get(u) != (after[u].label if u in after else None) for u in labels.keys() | after.keys())


def _fit(table: _Table, rows: Rows, recipe: Recipe) -> tuple[FittedHead, dict[str, Floats]]:
    """The challenger's head, and what each arm says out of fold of every row (n, arm classes)."""
    lesson = Lesson(
        rows=rows(table.uris), groups=table.groups, labels=table.labels, classes=table.classes,
        trusted=None if table.unseen.all() else table.unseen, arms=list(table.arms.values()),
        arm_classes=table.arm_classes, weights=table.weights, pool=recipe.pool,
        missing=len(_missing(table, recipe)),
    )  # fmt: skip
    fitted, arms = fit(lesson, recipe.head)
    return fitted, dict(zip(table.arms, arms, strict=True))


def _missing(table: _Table, recipe: Recipe) -> tuple[str, ...]:
    return tuple(name for name in recipe.choosable if name not in table.classes)


def _common(kind: str, table: _Table, fitted: FittedHead, rows: Rows) -> Evaluation:
    """What both kinds report."""
    learned = sum(label is not None for label in table.labels)
    evaluation = Evaluation(kind, learned, table.changes, table.classes, dict(table.waiting), conflicts=table.conflicts)
    evaluation = _with_known(evaluation, table, fitted.head, rows)
    truth = codes(table.labels, table.classes)[table.judged]
    if not len(truth):
        return evaluation
    probabilities = fitted.oof[table.judged]
    correct = probabilities.argmax(axis=1) == truth
    right = int(correct.sum())
    groups = np.array(table.groups, dtype=np.str_)[table.judged]
    low, high = share_interval(correct, clusters_of(groups))
    counts = [np.bincount(part, minlength=len(table.classes)).tolist() for part in (truth, truth[correct])]
    return replace(
        evaluation, accuracy=right / len(truth), accuracy_low=low, accuracy_high=high,
        majority=float(np.bincount(truth).max() / len(truth)), judged_on=len(truth),
        ece=expected_calibration_error(probabilities, truth), log_loss=log_loss(probabilities, truth),
        recognised=tuple(Recognised(*row) for row in zip(table.classes, *counts, strict=True)),
        shown=pre_labels(
            probabilities, None if fitted.unseen is None else fitted.unseen[table.judged], truth, groups
        ),
    )  # fmt: skip


def _with_known(evaluation: Evaluation, table: _Table, head: Classifier, rows: Rows) -> Evaluation:
    """What the head that would serve says of its own training labels, as it was written down and read again."""
    served = load_classifier(head.dump(), head.labels)
    learned = [i for i, label in enumerate(table.labels) if label is not None]
    truth = codes([table.labels[i] for i in learned], served.labels)
    answers = served.probabilities(rows([table.uris[i] for i in learned])).argmax(axis=1)
    accuracy = float((answers == truth).mean())
    return replace(evaluation, known_accuracy=accuracy, renaming=best_renaming(truth, answers, served.labels))


def with_test_split(
    evaluation: Evaluation,
    examples: Sequence[Example],
    *,
    challenger: Side,
    champion: Side | None,
    unseen: PairedAnswers,
) -> Evaluation:
    """Add what the heads that serve say of the test split; a class that a head lacks counts as wrong.

    ``unseen``: answers on train labels that judge, too; with the test split they give the recalls.
    A group speaks once, with the mean of its pictures: groups were drawn into the split, not pictures.
    """
    kept, _ = one_per_picture([e for e in examples if e.bucket is Split.TEST])
    uris, groups = [e.uri for e in kept], np.array([e.group for e in kept], dtype=np.str_)
    truth = np.array([e.label for e in kept], dtype=np.str_)
    first = np.sort(np.unique(groups, return_index=True)[1])  # one picture of each group, where no formula knows groups
    ours, theirs = challenger.probabilities(uris), champion.probabilities(uris) if champion else None
    once = np.ones(len(truth), dtype=np.bool_)
    answers, before = PairedAnswers(truth, _named(ours, challenger.labels), None, None, groups, once), None
    sureness = _sureness(ours[first], challenger.labels, truth[first])
    if champion and theirs is not None:
        common = _named(ours, challenger.labels, champion.labels)
        answers = replace(answers, theirs=_named(theirs, champion.labels), among=common)
        before = _sureness(theirs[first], champion.labels, truth[first])
    evaluation = replace(
        evaluation, test_comparison=answers.compared("labels of the random test split"),
        recalls=recalls(unseen.and_of(answers)), calibration=calibration(sureness, before),
    )  # fmt: skip
    if not len(truth):
        return evaluation
    right, clusters = answers.ours == truth, answers.clusters()
    high = share_interval(right, clusters)[1]
    return replace(evaluation, test_n=clusters.units, test_accuracy=clusters.mean(right), test_high=high)
