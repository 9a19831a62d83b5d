"""A version's images in, their features under its backbone out: kept, or recomputed where they were tidied away.

Nothing is written: what nobody keeps any more is computed from the pixels for this one time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from labelloop.records.arrays import Floats
from labelloop.records.versions import BackboneRecord
from retrain_worker.context import Context, ProjectContext
from retrain_worker.featurise import BATCH, READERS, read


@dataclass(frozen=True, slots=True)
class Rows:
    """Features of those images that could be had."""

    places: dict[str, int]  # uri -> row
    features: Floats  # (n, dimension)

    def of(self, uris: Sequence[str]) -> Floats:
        """(len(uris), dimension), in that order; KeyError for an image that could not be had."""
        return self.features[[self.places[uri] for uri in uris]]


def rows_under(context: Context, project: ProjectContext, backbone: str, uris: Sequence[str]) -> Rows:
    """Images that have no features and cannot be read are left out. NotFoundError where the backbone is gone."""
    record, kept = project.registry.backbone(backbone), project.features(backbone)
    there = [uri for uri in uris if uri in kept]
    parts: list[Floats] = [np.zeros((0, record.dimension), dtype=np.float32)]
    if there:
        parts.append(kept.rows(there))
    for uri, row in _recomputed(context, project, record, [uri for uri in uris if uri not in kept]):
        there.append(uri)
        parts.append(row[None])
    return Rows({uri: i for i, uri in enumerate(there)}, np.concatenate(parts))


def _recomputed(
    context: Context, project: ProjectContext, record: BackboneRecord, uris: Sequence[str]
) -> Iterator[tuple[str, Floats]]:
    """As a worker does it: the same pixels through the same network."""
    if not uris:
        return
    backbone = context.backbone(project, record)
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(uris), BATCH):
            batch = pool.map(lambda uri: read(project, backbone, uri), uris[start : start + BATCH])
            images = [(r.facts.uri, r.pixels) for r in batch if r.pixels is not None]
            if images:
                rows = backbone.features(np.stack([pixels for _, pixels in images]))
                yield from zip([uri for uri, _ in images], rows, strict=True)
