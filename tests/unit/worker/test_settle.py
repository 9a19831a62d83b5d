"""A split is decided once enough images are known: frames of a camera are no copies, and doubt merges nothing."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

from labelloop.clock import stamp
from labelloop.likeness.groups import KNOWN_FIRST, can_place
from labelloop.likeness.relatives import crowd_cap
from labelloop.records.images import ImageFacts, Split
from labelloop.records.snapshots import Latest
from labelloop.records.tasks import Annotation, Task
from labelloop.records.versions import COLD_START
from labelloop.rules.revisions import Use, revisions
from labelloop.rules.split import group_of
from operations.data.regroup import released_of
from retrain_worker import settle as settle_module
from retrain_worker.featurise import featurise
from retrain_worker.refresh import refresh
from retrain_worker.score import score
from retrain_worker.settle import settle
from tests.unit.likeness.test_near import jpeg, photograph, png, scene
from tests.unit.worlds.learning import AT, LearningWorld

FRAMES, LABELLED = 160, 60


def frames(count: int) -> dict[str, tuple[bytes, str]]:
    """Uri -> (bytes, class) of one scene under a fixed camera; every other frame has a defect of 25 to 45 pixels."""
    rng, still = np.random.default_rng(3), np.asarray(photograph(), dtype=np.float64)
    taken = {}
    for i in range(count):
        picture, bad = still.copy(), i % 2 == 1
        if bad:
            side = int(rng.integers(25, 46))
            y, x = rng.integers(5, 205 - side), rng.integers(5, 310 - side)
            picture[y : y + side, x : x + side] = rng.integers(0, 60, 3)
        picture = picture * rng.uniform(0.97, 1.03) + rng.normal(0, 5, picture.shape)
        image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=92)
        taken[f"s3://images/frame-{i:03d}.jpg"] = (out.getvalue(), "defect" if bad else "good")
    return taken


def world_of(tmp_path: Path, **config: object) -> LearningWorld:
    spec = {"backbone": {"name": "pixels", "image_size": 32}, "buckets": {"test": 0.2, "audit": 0.05}, **config}
    return LearningWorld(tmp_path, images=0, config=spec, classes=("good", "defect"))


def take(world: LearningWorld, images: dict[str, bytes], pool: int | None = None) -> list[ImageFacts]:
    world.images.kept |= images
    featurise(world.context, world.project, list(images), pool)
    world.project.catalogue.update()
    return [world.project.catalogue.images[uri] for uri in images]


def test_a_fixed_camera_gets_a_model_from_sixty_labels(tmp_path: Path) -> None:
    world, taken = world_of(tmp_path), frames(FRAMES)
    placed = {f.uri: f for f in take(world, {uri: data for uri, (data, _) in taken.items()})}
    assert len({f.twins for f in placed.values()}) > 0.9 * FRAMES
    assert max(Counter(f.group for f in placed.values()).values()) <= 2 * crowd_cap(FRAMES)
    kinds = {f.twins: taken[f.uri][1] for f in placed.values()}
    assert all(kinds[f.twins] == taken[f.uri][1] for f in placed.values())  # no good frame is a defect's twin
    assert score(world.context, world.project, COLD_START) > 0.8 * FRAMES  # nobody's turn is lost
    world.truth = {uri: kind for uri, (_, kind) in taken.items()}
    judged = refresh(world.context, world.project, world.label(sorted(taken)[:LABELLED]))
    assert judged.verdict.outcome.value == "promote", judged.verdict
    assert world.live().evaluation.labels >= 0.6 * LABELLED
    stays = {placed[uri].group for uri in sorted(taken)[:LABELLED]}  # their labels have judged a model
    free = released_of(world.project.catalogue, world.project.registry, world.project.snapshots)
    assert {f.group for f in free} == {f.group for f in placed.values()} - stays


def test_copies_in_a_camera_pool_are_found_all_the_same(tmp_path: Path) -> None:
    world, taken = world_of(tmp_path), frames(40)
    images = {uri: data for uri, (data, _) in taken.items()}
    copies = {}
    for uri in list(images)[:10]:
        picture = Image.open(io.BytesIO(images[uri]))
        copies[uri.replace("frame", "copy")] = jpeg(picture, 60)
    placed = {f.uri: f for f in take(world, images | copies)}
    same = [placed[uri].twins == placed[uri.replace("copy", "frame")].twins for uri in copies]
    assert sum(same) >= 8
    assert len({f.twins for f in placed.values()}) >= 38


def test_nothing_is_decided_before_enough_is_known(tmp_path: Path) -> None:
    assert [can_place(known, pool) for known, pool in ((1, None), (64, 100), (100, 100), (499, 9000), (500, 9000))] == [
        True, False, True, False, True,
    ]  # fmt: skip
    assert KNOWN_FIRST == 500
    world = world_of(tmp_path)
    first = take(world, {f"s3://images/{i}.png": png(scene(i)) for i in range(5)}, pool=8)
    assert {f.group for f in first} == {""}
    with pytest.raises(AssertionError):
        assert score(world.context, world.project, COLD_START)  # nobody is shown an image without a bucket
    rest = take(world, {f"s3://images/{i}.png": png(scene(i)) for i in range(5, 8)}, pool=8)
    images = world.project.catalogue.images
    assert all(images[f.uri].group for f in first + rest)
    assert score(world.context, world.project, COLD_START) == 8
    assert all(f.group for f in take(world, {"s3://images/late.png": png(scene(9))}, pool=5000))  # from now on at once


def test_an_image_that_cannot_be_read_again_is_nobodys_relative(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    (first,) = take(world, {"s3://images/a.png": png(photograph())})
    world.images.kept["s3://images/a.png"] = b"gone"
    world.project.thumbs._kept.clear()
    (other,) = take(world, {"s3://images/b.jpg": jpeg(photograph(), 70)})
    assert other.twins != first.twins


def test_contradicting_twins_do_not_count_and_related_pictures_do(tmp_path: Path) -> None:
    world = world_of(tmp_path, buckets={"test": 0.0, "audit": 0.0})
    whole = photograph()
    forms = {
        "a.png": png(whole),
        "b.jpg": jpeg(whole, 60),
        "c.png": png(whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    }
    a, b, c = take(world, {f"s3://images/{name}": data for name, data in forms.items()})
    assert a.twins == b.twins != c.twins
    assert a.group == c.group
    given = {a.uri: "cat", b.uri: "dog", c.uri: "dog"}
    tasks = [Task(i, uri, AT, (Annotation(i, AT, AT, label),)) for i, (uri, label) in enumerate(given.items(), 1)]
    found = revisions(tasks, world.project.catalogue.images, set(given), {"cat", "dog"})
    assert [r.use for r in found] == [Use.CONFLICT, Use.CONFLICT, Use.TRAINED]


def test_records_of_before_read_as_they_were(tmp_path: Path) -> None:
    old = ImageFacts("s3://images/a.png", "e", "sha", "group", Split.TEST, phash="0" * 64)
    assert (old.twins, old.unit) == ("group", "group")
    assert replace(old, bucket=Split.TRAIN).unit == "group"
    world = world_of(tmp_path)
    world.project.snapshots.set_latest(Latest(world.freeze({}), 0, AT, AT))


def test_a_project_of_before_is_grouped_again_where_no_label_has_judged(tmp_path: Path) -> None:
    world, taken = world_of(tmp_path), frames(30)
    catalogue = world.project.catalogue
    world.images.kept |= {uri: data for uri, (data, _) in taken.items()}
    first = next(iter(taken))
    old = [ImageFacts(u, "etag", group_of(d), group_of(taken[first][0]), Split.TEST) for u, (d, _) in taken.items()]
    catalogue.add(old, stamp())
    catalogue.update()
    released = released_of(catalogue, world.project.registry, world.project.snapshots)
    assert len(released) == 30
    catalogue.add([replace(f, group="", twin="", middle="", bucket=Split.TRAIN) for f in released], stamp())
    assert settle(world.project) == 30
    featurise(world.context, world.project, sorted(taken))
    catalogue.update()
    assert len({f.twins for f in catalogue.images.values()}) >= 28
    assert {f.bucket for f in catalogue.images.values()} > {Split.TRAIN}


def test_pictures_are_compared_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several wait for each other on a busy machine: small matrices took ten times as long."""
    threads: list[int] = []

    def noted(*_: object) -> int:
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return 0

    monkeypatch.setattr(settle_module, "_settle", noted)
    with threadpool_limits(limits=2):
        settle_module.settle(None)  # type: ignore[arg-type]
    assert set(threads) == {1}
