"""Images in; facts and features out, before anyone labels them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import structlog
from numpy.typing import NDArray

from labelloop.clock import now, stamp
from labelloop.errors import CorruptArtefactError, ImageUnreadableError
from labelloop.likeness.near import hash_of
from labelloop.likeness.windows import middle_hash
from labelloop.queue.progress import JobProgress
from labelloop.records.images import ImageFacts
from labelloop.records.versions import BackboneRecord
from labelloop.rules.split import group_of
from labelloop.store.features import FeatureStore
from retrain_worker.compact import compact
from retrain_worker.context import Context, ProjectContext
from retrain_worker.settle import settle

if TYPE_CHECKING:
    from labelloop.model.net import Backbone

NO_NUMBERS = "the network makes no finite numbers of it: look whether it is damaged, and replace or remove the file"
READERS = 8
BATCH = 32

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Readable:
    """One image that was read: its facts and its pixels (3, H, W) uint8, or only facts with a problem."""

    facts: ImageFacts
    pixels: NDArray[np.uint8] | None


def featurise(context: Context, project: ProjectContext, uris: Sequence[str], pool: int | None = None) -> int:
    """Record facts and features of these images; returns how many could be used. Idempotent: newest row wins.

    No images at all: the watcher has found weights damaged.
    ``pool``: how many images the project has. Splits are decided when enough of them are known (see `settle`).
    """
    if not uris:
        return _mend_weights(context, project)
    record = project.registry.current_backbone() or first_backbone(context, project)
    backbone = context.backbone(project, record)
    project.catalogue.update()
    used = featurise_under(context, project, backbone, _undecided(project, uris), JobProgress.of_job())
    settle(project, pool)
    compact(project.catalogue, project.features(record.id))
    return used


def _mend_weights(context: Context, project: ProjectContext) -> int:
    """Read past what this process has loaded already."""
    for record in (project.registry.current_backbone(), project.registry.initial_backbone()):
        if record and not record.snapshot:
            context.weights(project, record)
    return 0


def _undecided(project: ProjectContext, uris: Sequence[str]) -> list[str]:
    """Without images whose split was decided and is lost with a damaged shard of the catalogue.

    It is never decided again: what a model was trained on might judge it afterwards.
    """
    project.catalogue.heal()
    if not project.catalogue.lost:
        return list(uris)
    placed_once = {uri for name in project.feature_backbones() for uri in project.features(name).index.places}
    if (
        newest := project.snapshots.newest()
    ):  # labelled: it may have trained or judged, whatever is left of its features
        placed_once |= {task.uri for task in newest.tasks.values()}
    held = [u for u in uris if u in placed_once and u not in project.catalogue.images]
    if held:
        log.error("split lost, held until the catalogue is restored", action="featurise", count=len(held),
                  uris=held[:5], keys=project.catalogue.lost)  # fmt: skip
    return [u for u in uris if u not in set(held)]


def featurise_under(
    context: Context, project: ProjectContext, backbone: Backbone, uris: Sequence[str], progress: JobProgress
) -> int:
    """The same under a given backbone, in batches; one shard."""
    features = project.features(backbone.record.id)
    done: list[Readable] = []
    rows: list[NDArray[np.float32]] = []
    with ThreadPoolExecutor(READERS) as pool:
        reading = _begun(pool, project, backbone, uris[:BATCH])
        for start in range(0, len(uris), BATCH):
            progress.report(f"features of {len(uris)} images", start, len(uris))
            batch = [future.result() for future in reading]
            # while these are computed
            reading = _begun(pool, project, backbone, uris[start + BATCH : start + 2 * BATCH])
            pixels = [r.pixels for r in batch if r.pixels is not None]
            if pixels:
                batch, numbers = _numbers(project, backbone, batch, backbone.features(np.stack(pixels)))
                rows.append(numbers)
            done += batch
    _record(project, features, done, rows)
    return sum(r.pixels is not None for r in done)


def _begun(
    pool: ThreadPoolExecutor, project: ProjectContext, backbone: Backbone, uris: Sequence[str]
) -> list[Future[Readable]]:
    return [pool.submit(read, project, backbone, uri) for uri in uris]


def read(project: ProjectContext, backbone: Backbone, uri: str) -> Readable:
    """One image; an unreadable one gets a problem instead of pixels, and stops nobody else."""
    before = project.catalogue.images.get(uri, ImageFacts(uri, ""))
    try:
        data, etag = project.images.read(uri)
    except ImageUnreadableError as error:  # what was known of it stays, its split above all
        return _unreadable(replace(before, etag="", problem=str(error)))
    own = group_of(data)
    facts = replace(before, etag=etag, problem=None)
    if before.sha256 != own:
        facts = replace(facts.overwritten(own, now()) if before.sha256 else ImageFacts(uri, etag, own), etag=etag)
    try:
        pixels = backbone.decode(data)
        if project.record.config.buckets.near_duplicates and not facts.middle and not facts.group:
            thumb = project.thumbs.keep(uri, own, data)
            facts = replace(facts, phash=facts.phash or hash_of(thumb), middle=middle_hash(thumb))
        return Readable(facts, pixels)
    except ImageUnreadableError as error:
        return _unreadable(replace(facts, problem=str(error)))


def first_backbone(context: Context, project: ProjectContext) -> BackboneRecord:
    """Build the configured network once and keep it; a worker that comes second uses the first one's."""
    from labelloop.model import net

    spec = project.record.config.backbone
    backbone = net.build(spec, context.settings.weights_dirs, offline=context.settings.offline)
    project.registry.add_backbone(backbone.record, net.dump(backbone))
    log.info("first backbone", action="backbone", backbone=backbone.record.id, source=backbone.record.provenance)
    return project.registry.set_initial_backbone(backbone.record)


def _numbers(
    project: ProjectContext, backbone: Backbone, batch: Sequence[Readable], rows: NDArray[np.float32]
) -> tuple[list[Readable], NDArray[np.float32]]:
    """Without images that the network makes no finite numbers of: a single such row would end every later sum.

    CorruptArtefactError where the network that serves can read them: then this one is at fault.
    """
    good = [bool(np.isfinite(row).all()) for row in rows]
    if all(good):
        return list(batch), rows
    serving = project.registry.current_backbone()
    if serving is not None and serving.id != backbone.record.id:
        raise CorruptArtefactError(
            f"backbone {backbone.record.id} makes no finite numbers of {good.count(False)} of {len(good)} images: "
            "its fine-tune has diverged; lower retrain.learning_rate"
        )
    finite = iter(good)
    return [r if r.pixels is None or next(finite) else _unreadable(replace(r.facts, problem=NO_NUMBERS))
            for r in batch], rows[good]  # fmt: skip


def _record(
    project: ProjectContext, features: FeatureStore, done: Sequence[Readable], rows: Sequence[NDArray[np.float32]]
) -> None:
    shard = stamp()
    usable = [r.facts for r in done if r.pixels is not None]
    if usable:
        features.add(shard, [f.uri for f in usable], [f.etag for f in usable], np.concatenate(rows))
    project.catalogue.update()  # another process may have been first to find other bytes
    images = project.catalogue.images
    done = [replace(r, facts=_first_found(r.facts, images.get(r.facts.uri))) for r in done]
    changed = [r.facts for r in done if images.get(r.facts.uri) != r.facts]
    if changed:
        project.catalogue.add(changed, shard)


def _first_found(facts: ImageFacts, kept: ImageFacts | None) -> ImageFacts:
    """When other bytes came is recorded once: by the worker that read them first."""
    if kept is None or not facts.earlier or kept.sha256 != facts.sha256:
        return facts
    return replace(facts, earlier=kept.earlier, group=kept.group, bucket=kept.bucket, twin=kept.twin)


def _unreadable(facts: ImageFacts) -> Readable:
    log.warning("image unreadable", action="featurise", uri=facts.uri, reason=facts.problem)
    return Readable(facts, None)
