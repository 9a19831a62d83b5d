"""A project's answers so far in, what the order of its queue rests on out."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from labelloop.config.project import ProjectConfig
from labelloop.errors import NotFoundError
from labelloop.model.classifier import Classifier
from labelloop.objects.damage import UNREADABLE
from labelloop.queue.jobs import RETRAIN
from labelloop.records.arrays import Floats
from labelloop.records.images import JUDGING, Example, Split
from labelloop.records.tasks import Task
from labelloop.rules.acquisition import Doubts, LabelledRows, Quota, Situation, doubts_of
from labelloop.rules.auto_label.rule import Promise
from labelloop.rules.schema import LabelRules
from labelloop.rules.split import unit
from labelloop.rules.trigger import TrainingNeeds, decide
from labelloop.store.features import FeatureStore
from retrain_worker.context import ProjectContext
from retrain_worker.evidence.collect import one_per_unit
from retrain_worker.heads.recipe import POOL_MOST

LABELLED_MOST = 5000  # rows of labelled images that a strategy is shown


def labelled_of(examples: list[Example], features: FeatureStore, labels: tuple[str, ...]) -> LabelledRows:
    """The labelled train images, as a strategy sees them, or a sample by hash. ``labels``: the columns of the model."""
    examples_by_unit = one_per_unit([e for e in examples if e.bucket is Split.TRAIN])[0]
    if not examples_by_unit:
        return LabelledRows()
    kept = [
        examples_by_unit[u]
        for u in heapq.nsmallest(LABELLED_MOST, examples_by_unit, key=lambda u: unit(f"labelled:{u}"))
    ]
    column = {name: k for k, name in enumerate(labels)}
    codes = np.array([column.get(e.label, -1) for e in kept], dtype=np.int64)
    return LabelledRows(features.rows([e.uri for e in kept]), codes)


def unlabelled(project: ProjectContext, features: FeatureStore, labelled: Sequence[Example]) -> Floats | None:
    """Up to a thousand train images without a label, one of each picture, by hash; None where there are none.

    Of test and audit not even the features are learned from.
    """
    taken = {e.twins for e in labelled}
    open_images: dict[str, str] = {}
    for uri in features.index.ordered():
        facts = project.catalogue.images.get(uri)
        if facts and facts.bucket is Split.TRAIN and not facts.problem and facts.group and facts.twins not in taken:
            open_images.setdefault(facts.twins, uri)
    drawn = heapq.nsmallest(POOL_MOST, open_images, key=lambda twin: unit(f"pool:{twin}"))
    return features.rows([open_images[twin] for twin in sorted(drawn)]) if drawn else None


def situation_of(
    examples: list[Example], features: FeatureStore, head: Classifier | None, project: ProjectContext
) -> Situation:
    """Whether there is a model that knows any class of now, and how well its doubts tell right from wrong."""
    has_model = head is not None and bool(project.rules.names(head.labels).labels)
    classes = project.rules.choosable(project.record.schema.classes)
    missing = [name for name in classes if head and name not in project.rules.names(head.labels).labels]
    return Situation(has_model, _doubts(examples, features, head, project.rules), tuple(missing))


def _doubts(examples: list[Example], features: FeatureStore, head: Classifier | None, rules: LabelRules) -> Doubts:
    kept = list(one_per_unit([e for e in examples if e.bucket is Split.TEST])[0].values())
    names = rules.names(head.labels) if head else None
    if not (head and names and names.labels and kept):
        return Doubts(len(kept), 0)
    probabilities = names.of(head.probabilities(features.rows([e.uri for e in kept])))
    predicted = np.array(names.labels)[probabilities.argmax(axis=1)]
    return doubts_of(probabilities.max(axis=1), predicted == np.array([e.label for e in kept]))


def quota_of(config: ProjectConfig, answered: Mapping[int, Task], project: ProjectContext) -> Quota:
    """The random share: what people have labelled so far (seeds were given, not drawn), and what it is to show next.

    The gate wants test labels, a bound of `labelloop auto-label` audit labels: as many as it takes for any at all.
    """
    images = project.catalogue.images
    labelled = [t for t in answered.values() if t.label is not None and not all(a.seed for a in t.annotations)]
    splits = Counter(images[t.uri].bucket for t in labelled if t.uri in images)
    needed = {Split.TEST: config.gate.min_test_labels, Split.AUDIT: Promise().least}
    return Quota(
        share=config.queue.quota, labels=len(labelled), random=sum(splits[b] for b in JUDGING),
        most=max(config.queue.quota, config.queue.quota_most),
        lacking={split: n - splits[split] for split, n in needed.items() if n > splits[split]},
        ahead=_until_retrain(config, answered, project),
    )  # fmt: skip


def _until_retrain(config: ProjectConfig, answered: Mapping[int, Task], project: ProjectContext) -> int | None:
    """Train labels until the next one, as the planner counts them; None where none comes by itself."""
    if not config.retrain.automatic:
        return None
    images, saw = project.catalogue.images, _seen_by_backbone(project)
    labels = {t.uri: t.label for t in answered.values() if t.label is not None}
    train = [u for u in labels if u in images and images[u].bucket is Split.TRAIN and not images[u].problem]
    new = sum(saw.get(uri) != labels[uri] for uri in train)
    progress = TrainingNeeds(labels={}, changes=0, new_for_backbone=new, backbone_saw=len(saw))
    return decide(progress, config).until_retrain


def _seen_by_backbone(project: ProjectContext) -> Mapping[str, str]:
    """Labels of the last retrain that was judged, or that the backbone saw; none where they are gone."""
    judged = [r for r in project.runs.all() if r.kind == RETRAIN.name and r.done]
    backbone = project.registry.current_backbone()
    snapshot = judged[-1].snapshot if judged else backbone.snapshot if backbone else None
    try:
        return project.snapshot(snapshot).labels() if snapshot else {}
    except (*UNREADABLE, NotFoundError):  # damaged, or beyond retention: everything counts as new
        return {}
