"""A version, the pool and the audit labels in; labels for the rest out, kept apart from what people said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labelloop.clock import now, stamp
from labelloop.code import code_version
from labelloop.errors import CorruptObjectError, LabelloopError, NotFoundError
from labelloop.model.classifier import Classifier
from labelloop.objects.damage import Damage
from labelloop.objects.storage import ObjectStore
from labelloop.records.json import digest
from labelloop.records.snapshots import Snapshot
from labelloop.records.versions import Version
from labelloop.rules.auto_label.audit import AuditGroup, Ground, ground_of, groups_of
from labelloop.rules.auto_label.rule import Audit, AutoLabelDecision, Bools, PoolAnswers, Promise, decide
from labelloop.rules.schema import LabelRules, Names
from labelloop.store.auto_labels import NAME, AutoLabel, AutoLabelStore, KeptPart, Manifest, lines_of
from labelloop.store.catalogue import Catalogue
from labelloop.store.deleted import read_deleted
from labelloop.store.features import FeatureStore
from labelloop.store.projects import ProjectRecord
from labelloop.store.snapshots import SnapshotStore
from operations.aside import target_of
from operations.data.export import replace_file
from operations.deployment import Deployment
from operations.reporting import Report

CHUNK = 8192  # rows of features held at a time
BINS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)  # lower edges, of sureness


@dataclass(frozen=True, slots=True)
class AutoLabelRequest:
    """What a person wants."""

    promise: Promise
    version: str | None  # None: the champion
    by: str


@dataclass(frozen=True, slots=True)
class Row:
    """One class, or one range of sureness: images of the pool, and how the audit images of the same kind turned out."""

    name: str
    pool: int
    labelled: int
    audit: int
    right: int


@dataclass(frozen=True, slots=True)
class AutoLabelled:
    """What was decided, what it was decided from, and the labels."""

    manifest: Manifest
    ground: Ground
    by_class: tuple[Row, ...]  # audit: at or above the threshold
    by_sureness: tuple[Row, ...]  # audit: all
    labels: tuple[AutoLabel, ...]
    unread: str = ""  # what could not be read, and what follows from it

    @property
    def refused(self) -> tuple[str, ...]:
        """Why, for each part that is."""
        return tuple(part.why for part in self.manifest.parts if part.why)


def propose(deployment: Deployment, record: ProjectRecord, request: AutoLabelRequest, report: Report) -> AutoLabelled:
    """Decide by the audit labels of the newest snapshot; writes nothing."""
    version = deployment.version(record, request.version)
    model = _Model.of(deployment, record, version)
    snapshot = _snapshot(deployment, record)
    store = deployment.within(record)
    deleted, unread = _deleted(store)
    ground = _ground(record, Catalogue(store), snapshot, model.features, deleted)
    pool = model.answers(ground.rest, lambda done, of: report("what the model says", done, of))
    sample = model.answers(ground.sample, lambda done, of: report("of the audit images", done, of))
    names = np.array(model.names.labels, dtype=np.str_)
    predicted = names[sample.classes]
    wrong = np.array([g.label != label for g, label in zip(ground.sample, predicted, strict=True)], dtype=np.bool_)
    predictions = _Predictions(Audit(sample, wrong, ground.images), pool, model.names.labels)
    decision = decide(predictions.audit, pool, request.promise)
    labels = _labels(ground, predictions, decision, NAME + version.name)
    look = 1 + AutoLabelStore(store).looks()
    manifest = Manifest(
        id=stamp(), version=version.name, snapshot=snapshot.id, made_at=now(), by=request.by, code=code_version(),
        precision=request.promise.precision, confidence=request.promise.confidence, per_class=request.promise.per_class,
        look=look, images=len(ground.rest), labelled=decision.labelled, audit=len(ground.sample),
        drawn_from=ground.images, parts=tuple(_kept_parts(decision, predictions.names)),
        classes=dict(sorted(Counter(label.label for label in labels).items())), lines=len(labels),
        sha256=digest(lines_of(labels)),
    )  # fmt: skip
    return AutoLabelled(
        manifest, ground, predictions.by_class(decision), predictions.by_sureness(decision), labels, unread
    )


def keep(deployment: Deployment, record: ProjectRecord, proposal: AutoLabelled) -> None:
    """In the project's store."""
    AutoLabelStore(deployment.within(record)).add(proposal.manifest, lines_of(proposal.labels))


def write_out(proposal: AutoLabelled, path: Path) -> Path:
    """The same lines as a file, and the manifest beside it; returns the manifest's path."""
    about = target_of(path, "labels.jsonl").with_suffix(".manifest.json")
    replace_file(about, lambda stream: json.dump(proposal.manifest.to_json(), stream, ensure_ascii=False, indent=1))
    replace_file(path, lambda stream: stream.write(lines_of(proposal.labels).decode()))
    return about


@dataclass(frozen=True, slots=True)
class _Model:
    """A version with the classes that it names now."""

    head: Classifier
    names: Names
    features: FeatureStore

    @classmethod
    def of(cls, deployment: Deployment, record: ProjectRecord, version: Version) -> _Model:
        head = deployment.registry(record).head(version)
        names = LabelRules.of(record.config).names(head.labels)
        lost = [name for name in names.labels if name not in record.schema.classes]
        if lost or not names.labels:
            raise LabelloopError(
                f"{version.name} predicts classes that are no longer in the label config "
                f"({', '.join(lost) or 'all'}): decide "
                "with `labelloop schema` what they count as"
            )
        cache = deployment.settings.cache_dir / record.key
        features = FeatureStore(deployment.within(record), version.backbone, cache)
        features.update()
        return cls(head, names, features)

    def answers(self, groups: Sequence[AuditGroup], report: Callable[[int, int], None]) -> PoolAnswers:
        """For the images that stand for the groups; chunk by chunk."""
        uris = [group.uri for group in groups]
        classes = np.zeros(len(uris), dtype=np.int64)
        sureness = np.zeros(len(uris), dtype=np.float32)
        for start in range(0, len(uris), CHUNK):
            here = slice(start, start + CHUNK)
            features = self.features.rows(uris[here])
            rows = self.names.of(self.head.probabilities(features))
            classes[here], sureness[here] = rows.argmax(axis=1), rows.max(axis=1) * (1 - self.head.unseen(features))
            report(min(start + CHUNK, len(uris)), len(uris))
        return PoolAnswers(classes, sureness)


@dataclass(frozen=True, slots=True)
class _Predictions:
    audit: Audit
    pool: PoolAnswers
    names: tuple[str, ...]

    def by_class(self, decision: AutoLabelDecision) -> tuple[Row, ...]:
        """By the class that the model names."""
        checked = self.audit.answers
        sure = decision.accepts(checked)
        return tuple(
            self._row(name, decision, self.pool.classes == k, (checked.classes == k) & sure)
            for k, name in enumerate(self.names)
        )

    def by_sureness(self, decision: AutoLabelDecision) -> tuple[Row, ...]:
        """The surest first."""
        ranges = list(zip(BINS, (*BINS[1:], float("inf")), strict=True))
        return tuple(
            self._row(f"{low:g} to {min(high, 1):g}", decision, _between(self.pool, low, high),
                      _between(self.audit.answers, low, high))
            for low, high in reversed(ranges)
        )  # fmt: skip

    def _row(self, name: str, decision: AutoLabelDecision, pool: Bools, audit: Bools) -> Row:
        labelled = int((pool & decision.accepts(self.pool)).sum())
        return Row(name, int(pool.sum()), labelled, int(audit.sum()), int((audit & ~self.audit.wrong).sum()))


def _between(answers: PoolAnswers, low: float, high: float) -> Bools:
    return np.asarray((answers.sureness >= low) & (answers.sureness < high), dtype=np.bool_)


def _snapshot(deployment: Deployment, record: ProjectRecord) -> Snapshot:
    """The newest, with classes as they count now."""
    snapshots = SnapshotStore(deployment.within(record))
    latest = snapshots.latest()
    if latest is None:
        raise NotFoundError("no audit labels: nothing is labelled yet, or sync is not running")
    return LabelRules.of(record.config).read(snapshots.load(latest.snapshot))


def _ground(
    record: ProjectRecord, catalogue: Catalogue, snapshot: Snapshot, features: FeatureStore, deleted: set[str]
) -> Ground:
    catalogue.update()
    usable = features.index.places.keys() - deleted
    return ground_of(groups_of(catalogue.images.values(), snapshot.tasks.values(), usable), record.config.seed)


def _deleted(store: ObjectStore) -> tuple[set[str], str]:
    """Images whose tasks people removed; and what to say where these are not known."""
    try:
        return read_deleted(store, Damage()), ""
    except CorruptObjectError as error:
        return set(), f"images of removed tasks may be among them: {error}"


def _labels(
    ground: Ground, predictions: _Predictions, decision: AutoLabelDecision, source: str
) -> tuple[AutoLabel, ...]:
    """A line for each image, copies too."""
    chosen = np.flatnonzero(decision.accepts(predictions.pool))
    pairs = (
        (ground.rest[i], predictions.names[predictions.pool.classes[i]], float(predictions.pool.sureness[i]))
        for i in chosen
    )
    return tuple(
        AutoLabel(uri, label, round(sure, 6), group.bucket.value, group.id, source)
        for group, label, sure in pairs
        for uri in group.uris
    )


def _kept_parts(decision: AutoLabelDecision, names: Sequence[str]) -> list[KeptPart]:
    return [
        KeptPart(
            tuple(names[k] for k in part.classes), part.images, part.labelled, part.threshold, part.bound, part.audit,
            part.wrong, "" if part.threshold is not None else decision.why(part), part.further,
        )
        for part in decision.parts
    ]  # fmt: skip
