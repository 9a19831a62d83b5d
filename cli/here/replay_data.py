"""Class folders, or a project's own labels, in; a history with features out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from labelloop.config.project import ProjectConfig
from labelloop.config.settings import Settings
from labelloop.errors import ConflictError, NotEnoughLabelsError
from labelloop.likeness.near import NearIndex, perceptual_hash
from labelloop.records.images import JUDGING, Example, Split
from labelloop.records.json import canonical, digest
from labelloop.rules.schema import LabelRules
from labelloop.rules.split import group_of
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureStore, Floats
from labelloop.store.projects import ProjectRecord
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment
from operations.projects.imagefolder import LabelledFile, classes_of, require_labels, scan
from retrain_worker.evidence.collect import one_per_unit
from retrain_worker.evidence.examples import examples_of
from retrain_worker.replay.history import LEAST, LabelledImages, ReplayHistory

READERS = 8
BATCH = 32
Report = Callable[[str, int, int], None]


def history_of_folders(
    images: Path, test: Path | None, config: ProjectConfig, settings: Settings, *, keep: Path, report: Report
) -> ReplayHistory:
    """Features of all images, kept in ``keep`` for the next time. ``test``: judged on; else a quarter, by seed."""
    train = scan(images, "")
    require_labels(train, "replay")
    held = scan(test, "") if test else []
    require_labels(held, "replay's test folder")
    classes = tuple(classes_of([*train, *held]))
    features, groups = _featurised([*train, *held], config, settings, keep=keep, report=report)
    codes = np.array([classes.index(f.label or "") for f in (*train, *held)], dtype=np.int64)
    count = len(train)
    held_out = LabelledImages(features[count:], codes[count:], groups[count:]) if held else None
    shown = set(groups[count:])
    rows = [i for i in range(count) if groups[i] not in shown]  # what a test image shows, too, is not learned from
    return ReplayHistory(
        images.name, classes, LabelledImages(features[rows], codes[rows], [groups[i] for i in rows]), held_out
    )


def history_of_project(deployment: Deployment, record: ProjectRecord, cache: Path) -> ReplayHistory:
    """The labels that people gave so far, on the live backbone's features.

    With enough random ones (test, audit) these judge; else a quarter of all, by seed. What is in quarantine looks like
    images of both sides and has no part.
    """
    store = deployment.within(record)
    registry = deployment.registry(record)
    backbone = registry.current_backbone()
    latest = SnapshotStore(store).latest()
    if backbone is None or latest is None:
        raise ConflictError("nothing is labelled yet: replay your labels later, or class folders with --images")
    catalogue, features = Catalogue(store), FeatureStore(store, backbone.id, cache)
    catalogue.update()
    features.update()
    snapshot = LabelRules.of(record.config).read(SnapshotStore(store).load(latest.snapshot))
    usable = [e for e in examples_of(snapshot, catalogue, features) if e.bucket is not Split.QUARANTINE]
    examples = list(one_per_unit(usable)[0].values())
    classes = tuple(sorted({e.label for e in examples}))
    random = [e for e in examples if e.bucket in JUDGING]
    chosen = [e for e in examples if e.bucket is Split.TRAIN]
    if len(random) < LEAST:
        return ReplayHistory(record.config.name, classes, _labelled(examples, classes, features))
    return ReplayHistory(
        record.config.name, classes, _labelled(chosen, classes, features), _labelled(random, classes, features)
    )


def _labelled(examples: Sequence[Example], classes: tuple[str, ...], features: FeatureStore) -> LabelledImages:
    if not examples:
        raise NotEnoughLabelsError("no label is there to replay")
    codes = np.array([classes.index(e.label) for e in examples], dtype=np.int64)
    return LabelledImages(features.rows([e.uri for e in examples]), codes, [e.group for e in examples])


def _featurised(
    files: Sequence[LabelledFile], config: ProjectConfig, settings: Settings, *, keep: Path, report: Report
) -> tuple[Floats, list[str]]:
    """(n, features) and the duplicate group of each."""
    stamps = [[str(f.path.resolve()), f.path.stat().st_size, f.path.stat().st_mtime_ns] for f in files]
    name = digest(canonical([config.backbone.model_dump(mode="json"), stamps]))[:16]
    path = keep / f"{name}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            return np.asarray(kept["features"], dtype=np.float32), [str(g) for g in kept["groups"]]
    features, groups = _computed(files, config, settings, report)
    _keep(path, features, groups)
    return features, groups


def _keep(path: Path, features: Floats, groups: Sequence[str]) -> None:
    """Written aside and renamed: a run that is interrupted leaves no half of a file for the next one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.stem}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            np.savez(file, features=features, groups=np.array(groups))
        aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)


def _computed(
    files: Sequence[LabelledFile], config: ProjectConfig, settings: Settings, report: Report
) -> tuple[Floats, list[str]]:
    from labelloop.model import net  # torch: not needed where the features are kept

    backbone = net.build(config.backbone, settings.weights_dirs, offline=settings.offline)
    rows, groups, index = [], [], NearIndex()
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(files), BATCH):
            report("features", start, len(files))
            data = list(pool.map(lambda f: f.path.read_bytes(), files[start : start + BATCH]))
            rows.append(backbone.features(np.stack(list(pool.map(backbone.decode, data)))))
            for image, phash in zip(data, pool.map(perceptual_hash, data), strict=True):
                near = index.near(phash)
                groups.append(near[0] if near else group_of(image))
                index.add([(phash, groups[-1])])
    return np.concatenate(rows), groups
