"""One shard of a batch: kept features where the bytes are the same, the network for the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from labelloop.decoding.square import Pixels
from labelloop.errors import ImageUnreadableError
from labelloop.model.net import Backbone
from labelloop.queue.progress import JobProgress
from labelloop.records.arrays import Floats
from labelloop.records.batches import Guess
from labelloop.store.batches import BatchStore, Image
from labelloop.store.features import FeatureStore
from retrain_worker.context import Context, ProjectContext
from retrain_worker.guesses import guesses

READERS = 8
AT_ONCE = 64  # images whose pixels are held
NONE = np.empty((0, 0), dtype=np.float32)  # rows of no image


def predict(context: Context, project: ProjectContext, name: str, shard: int) -> int:
    """Say what the batch's version says of each image, and keep it; returns how many could be read."""
    store = BatchStore(project.store)
    batch, images = store.get(name), store.images(name, shard)
    version = project.registry.version(batch.version)
    head, record = project.registry.head(version), project.registry.backbone(version.backbone)
    names = project.rules.names(head.labels)
    features = project.features(record.id)
    kept = [i for i in images if _is_kept(features, i)]
    said = {g.file: g for g in guesses(head, names, [u for u, _ in kept], _rows(features, kept), batch.top)}
    rest = [i for i in images if i[0] not in said]
    if rest:
        backbone, progress = context.backbone(project, record), JobProgress.of_job()
        for start in range(0, len(rest), AT_ONCE):
            progress.report(f"batch {name[:8]}", start, len(rest))
            readable, rows, problems = _computed(project, backbone, [u for u, _ in rest[start : start + AT_ONCE]])
            said |= {g.file: g for g in (*guesses(head, names, readable, rows, batch.top), *problems)}
    store.keep(name, shard, [said[uri] for uri, _ in images])
    return sum(not guess.problem for guess in said.values())


def _is_kept(features: FeatureStore, image: Image) -> bool:
    uri, etag = image
    place = features.index.places.get(uri)
    return place is not None and bool(etag) and place.etag == etag


def _rows(features: FeatureStore, kept: Sequence[Image]) -> Floats:
    return features.rows([uri for uri, _ in kept]) if kept else NONE


def _computed(
    project: ProjectContext, backbone: Backbone, uris: Sequence[str]
) -> tuple[list[str], Floats, Iterator[Guess]]:
    """Those that could be read, (their number, dimension), and why the others could not."""
    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip(uris, pool.map(partial(_pixels, project, backbone), uris), strict=True))
    readable = {uri: pixels for uri, pixels in found.items() if not isinstance(pixels, str)}
    rows = backbone.features(np.stack(list(readable.values()))) if readable else NONE
    return list(readable), rows, (Guess(uri, problem=why) for uri, why in found.items() if isinstance(why, str))


def _pixels(project: ProjectContext, backbone: Backbone, uri: str) -> Pixels | str:
    try:
        return backbone.decode(project.images.read(uri)[0])
    except ImageUnreadableError as error:
        return str(error)
