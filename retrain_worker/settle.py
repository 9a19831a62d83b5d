"""Undecided images in; split, group and twin out. Once, and by one worker at a time.

A split is decided when the first 500 images are known, or all there are: whether two of them are copies or frames of
one camera only shows among many.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

import structlog
from threadpoolctl import threadpool_limits

from labelloop.clock import stamp
from labelloop.likeness.groups import Pictures, Rules, can_place, place
from labelloop.likeness.relatives import Relative, crowd_cap
from labelloop.likeness.windows import middle_hash
from labelloop.records.given import NOTHING_SAID, Given, Said
from labelloop.records.images import ImageFacts, Split
from retrain_worker.context import ProjectContext

SOON_DONE = 64  # images
KEPT_AT_ONCE = 1024  # hashes

log = structlog.get_logger()


def settle(project: ProjectContext, pool: int | None = None) -> int:
    """Decide what can be decided; returns of how many images. ``pool``: how many there are, None: decide now.

    Many pairs are looked at before the lease is taken. With one thread: the matrices are small, and on a busy machine
    several threads wait for each other ten times as long as one takes.
    """
    with threadpool_limits(limits=1):
        return _settle(project, pool)


def _settle(project: ProjectContext, pool: int | None) -> int:
    project.catalogue.update()
    if project.record.config.buckets.fields:
        project.task_groups.update()
    many = len(_undecided(project))
    if not many or not _can_place(project, pool):
        return 0
    _look(project)
    looks: Pictures = project.relatives() if project.record.config.buckets.near_duplicates else _Unseen()
    if many > SOON_DONE:
        _place(project, looks)  # the lease must not run out meanwhile
    with project.registry.lease("split"):
        project.catalogue.update()
        before = {f.uri for f in project.catalogue.images.values() if f.group}
        settled = _place(project, looks)
        if settled:
            project.catalogue.add(settled, stamp())
    project.catalogue.update()
    _part(project, settled, before, looks)
    for facts in settled:
        if facts.bucket is Split.QUARANTINE:
            log.warning("the same picture is in two splits: neither trains nor judges", action="quarantine",
                        uri=facts.uri)  # fmt: skip
    if settled:
        log.info("splits decided", action="settle", images=len(settled), pictures=len({f.twins for f in settled}),
                 groups=len({f.group for f in settled}))  # fmt: skip
    return len(settled)


def _look(project: ProjectContext) -> None:
    """Take the hash of images that are decided again, and of those that an older release has read."""
    config, images = project.record.config.buckets, project.catalogue.images
    unseen = [f for f in _undecided(project) if not f.middle] if config.near_duplicates else []
    for start in range(0, len(unseen), KEPT_AT_ONCE):  # a job that runs out of time has not looked in vain
        thumbs = ((facts, project.thumbs.of(facts.uri)) for facts in unseen[start : start + KEPT_AT_ONCE])
        looked = [replace(facts, middle=middle_hash(thumb)) for facts, thumb in thumbs if thumb is not None]
        if looked:
            project.catalogue.add(looked, stamp())
            project.catalogue.update()
        project.windows.add((uri, images[uri].middle) for uri in [f.uri for f in looked])


class _Unseen:
    """Where only the same bytes are the same picture."""

    def of(self, uri: str, placed: Container[str], cap: int) -> list[Relative]:
        return []

    def is_same(self, uri: str, other: str) -> bool:
        return uri == other


def _undecided(project: ProjectContext) -> list[ImageFacts]:
    """Without images that no task is known of yet, where a field of the task says where they stand."""
    return [f for f in project.catalogue.images.values() if f.undecided and _said(project, f.uri) is not None]


def _said(project: ProjectContext, uri: str) -> Said | None:
    """None: it is not known yet what their tasks say."""
    fields = project.record.config.buckets.fields
    return project.task_groups.of(uri, fields) if fields else NOTHING_SAID


def _can_place(project: ProjectContext, pool: int | None) -> bool:
    images = project.catalogue.images.values()
    return any(f.group for f in images) or can_place(len(images), pool)


def _place(project: ProjectContext, looks: Pictures) -> list[ImageFacts]:
    project.look_again()
    images = project.catalogue.images
    new = _undecided(project)
    project.windows.add((f.uri, f.middle) for f in new)  # also what could not be read before
    config = project.record.config.buckets
    folder = project.record.image_uri

    def given(facts: ImageFacts) -> Given:
        return config.given(facts.uri, folder, _said(project, facts.uri) or NOTHING_SAID)

    rules = Rules(config.shares(), crowd_cap(len(images)), given, bool(config.test_set))
    return place(new, images.values(), looks, rules, project.catalogue.splits) if new else []


def _part(project: ProjectContext, settled: Sequence[ImageFacts], before: Container[str], looks: Pictures) -> None:
    """Past a lease that ran out two workers may have placed one picture: the one that sees the other's yields.

    Each writes before it looks, so at least one of them does. It may be both.
    """
    ours = {f.uri for f in settled}
    project.look_again()
    rest = (f for f in project.catalogue.images.values() if f.group and f.uri not in ours)
    others = {f.uri: f for f in rest if f.uri not in before}
    cap = crowd_cap(len(project.catalogue.images))
    yielding = []
    for facts in settled if others else ():
        near = [others[r.uri] for r in looks.of(facts.uri, others, cap)]
        if any(other.bucket not in {facts.bucket, Split.QUARANTINE} for other in near):
            yielding.append(replace(facts, bucket=Split.QUARANTINE))
    if yielding:
        project.catalogue.add(yielding, stamp())
