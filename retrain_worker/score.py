"""The pool's kept features and one head in, the queue's order out: one matrix product, no backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from labelloop.errors import ConflictError
from labelloop.model.classifier import Classifier
from labelloop.queue.progress import JobProgress
from labelloop.records.arrays import Floats
from labelloop.records.images import ImageFacts
from labelloop.records.tasks import Task
from labelloop.records.versions import COLD_START
from labelloop.rules.acquisition import QueuePlan, UnlabelledPool, choose, plan_queue
from labelloop.rules.schema import LabelRules
from labelloop.store.features import FeatureStore
from retrain_worker.context import Context, ProjectContext
from retrain_worker.evidence.examples import examples_of
from retrain_worker.evidence.history import labelled_of, quota_of, situation_of

AHEAD = 3  # windows planned at once: the watcher pushes the next one as the first runs out
CHUNK = 8192  # rows per product


def score(context: Context, project: ProjectContext, version: str) -> int:
    """Order what nobody has answered yet and keep the order; returns its length."""
    progress = JobProgress.of_job()
    progress.report("order the queue")
    features, head = _model(project, version)
    project.catalogue.update()
    latest = project.snapshots.latest()
    snapshot = project.snapshot(latest.snapshot) if latest else None
    answered = snapshot.tasks if snapshot else {}
    examples = examples_of(snapshot, project.catalogue, features) if snapshot else []
    pool = _pool(features, _open_images(project, features, answered), head, project.rules)
    pool = replace(pool, labelled=labelled_of(examples, features, pool.labels))
    config = project.record.config
    chosen = choose(config.queue.policy, situation_of(examples, features, head, project))
    plan = QueuePlan(
        chosen.strategy, window=config.queue.window * AHEAD, batch=config.refresh.after, seed=config.seed,
        blind=config.queue.blind,
    )  # fmt: skip
    places = plan_queue(pool, quota=quota_of(config, answered, project), plan=plan)
    name, newest = snapshot.id if snapshot else None, project.scores.newest(version)
    placed = _placed(project, features)
    order = (name, placed, chosen.why, tuple(places))
    kept = newest and (newest.snapshot, newest.pool, newest.policy, newest.places)
    if kept != order:  # else somebody has kept it meanwhile: this worker was believed dead
        project.scores.add(version, snapshot=name, pool=placed, policy=chosen.why, places=places)
    return len(places)


def _model(project: ProjectContext, version: str) -> tuple[FeatureStore, Classifier | None]:
    if version == COLD_START:
        backbone = project.registry.initial_backbone()
        if backbone is None:
            raise ConflictError("no image has features yet: the order comes when the first ones are there")
        return project.features(backbone.id), None
    record = project.registry.version(version)
    return project.features(record.backbone), project.registry.head(record)


def _open_images(project: ProjectContext, features: FeatureStore, answered: Mapping[int, Task]) -> list[ImageFacts]:
    """Images that may be shown: not answered, and no duplicate of one that is."""
    images = project.catalogue.images
    taken = {images[t.uri].unit for t in answered.values() if t.uri in images}
    facts_in_order = (
        images.get(uri) for uri in features.index.ordered()
    )  # in the order that `plan_queue` would sort them into
    return [
        facts for facts in facts_in_order if facts and facts.group and not facts.problem and facts.unit not in taken
    ]


def _placed(project: ProjectContext, features: FeatureStore) -> int:
    """Images with features whose split is decided."""
    images = project.catalogue.images
    waiting = sum(not f.group and f.problem is None and f.uri in features for f in images.values())
    return len(features) - waiting


def _pool(
    features: FeatureStore, facts: Sequence[ImageFacts], head: Classifier | None, rules: LabelRules
) -> UnlabelledPool:
    uris = [f.uri for f in facts]

    def read(rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Floats:
        return features.rows([uris[i] for i in rows])

    labels, probabilities, unseen = _answers(features, uris, head, rules) if head else ((), None, None)
    return UnlabelledPool(
        uris=uris, groups=[f.unit for f in facts], splits=[f.bucket for f in facts], read=read,
        labels=labels, probabilities=probabilities, unseen=unseen,
    )  # fmt: skip


def _answers(
    features: FeatureStore, uris: Sequence[str], head: Classifier, rules: LabelRules
) -> tuple[tuple[str, ...], Floats | None, Floats | None]:
    """The classes as they are called now, and what the head says; nothing where all of its classes were dropped."""
    names = rules.names(head.labels)
    if not names.labels:
        return (), None, None
    probabilities = np.zeros((len(uris), len(head.labels)), dtype=np.float32)
    unseen = np.zeros(len(uris), dtype=np.float32)
    for start in range(0, len(uris), CHUNK):
        here = slice(start, start + CHUNK)
        rows = features.rows(uris[here])
        probabilities[here], unseen[here] = head.probabilities(rows), head.unseen(rows)
    return names.labels, names.of(probabilities), unseen
