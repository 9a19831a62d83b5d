"""The same picture in another form stands in the same group; what looks like two groups is in none."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from labelloop.clock import stamp
from labelloop.errors import ImageUnreadableError
from labelloop.likeness.near import BITS, NEAR, NearIndex, perceptual_hash
from labelloop.records.images import ImageFacts, Split
from labelloop.records.tasks import Annotation, Task
from labelloop.rules.split import group_of, split_of
from operations.data.duplicates import groups_of
from retrain_worker.featurise import featurise
from tests.unit.worlds.learning import AT, LearningWorld, digits


def bits(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def scene(seed: int, size: int = 240) -> Image.Image:
    """Soft blobs of colour, as a photograph has them."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    return small.resize((size * 4 // 3, size), Image.Resampling.BICUBIC)


def photograph() -> Image.Image:
    """A picture with fine structure, as a camera takes it."""
    return Image.fromarray(load_sample_image("china.jpg")).resize((320, 214), Image.Resampling.LANCZOS)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def jpeg(image: Image.Image, quality: int = 40) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        jpeg,
        lambda i: png(i.resize((i.width // 2, i.height // 2))),
        lambda i: png(ImageEnhance.Brightness(i).enhance(0.8)),
        lambda i: jpeg(i.resize((i.width * 2, i.height * 2)), 90),
    ],
)
def test_another_form_of_the_same_picture_is_near(change: Callable[[Image.Image], bytes]) -> None:
    for seed in range(20):
        image = scene(seed)
        assert bits(perceptual_hash(png(image)), perceptual_hash(change(image))) <= NEAR


def test_other_pictures_are_far() -> None:
    hashes = [perceptual_hash(png(scene(seed))) for seed in range(60)]
    digit_hashes = [perceptual_hash(data) for data, _ in digits()[:200]]
    for some in (hashes, digit_hashes):
        apart = [bits(a, b) for i, a in enumerate(some) for b in some[:i]]
        assert min(apart) > NEAR
        assert 0.3 * BITS < np.median(apart) < 0.7 * BITS


def test_an_image_that_cannot_be_read_is_no_surprise() -> None:
    with pytest.raises(ImageUnreadableError):
        perceptual_hash(b"no image")


def test_the_index_finds_what_comparing_all_finds() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (1500, 32), dtype=np.uint8)
    index = NearIndex()
    index.add((row.tobytes().hex(), f"g{i}") for i, row in enumerate(base))
    for i in (0, 700, 1499):
        for flipped in (NEAR, NEAR + 1):
            row = base[i].copy()
            for bit in rng.choice(BITS, flipped, replace=False):
                row[bit // 8] ^= 1 << (bit % 8)
            assert index.near(row.tobytes().hex()) == ((f"g{i}",) if flipped <= NEAR else ())


@pytest.fixture
def world(tmp_path: Path) -> LearningWorld:
    config = {"backbone": {"name": "pixels", "options": {"projection": 8}}, "buckets": {"test": 0.3, "audit": 0.05}}
    return LearningWorld(tmp_path, images=40, config=config)


def facts(world: LearningWorld, images: dict[str, bytes]) -> list[ImageFacts]:
    by_uri = {f"s3://images/{name}": data for name, data in images.items()}
    world.images.kept |= by_uri
    featurise(world.context, world.project, list(by_uri))
    world.project.catalogue.update()
    return [world.project.catalogue.images[uri] for uri in by_uri]


def test_a_near_duplicate_shares_group_and_bucket_whenever_it_comes(world: LearningWorld) -> None:
    first, other = facts(world, {"a.png": png(scene(1)), "b.png": png(scene(2))})
    assert (first.group, first.bucket) == (
        group_of(png(scene(1))),
        split_of(first.group, world.config.buckets.shares()),
    )
    assert other.group != first.group
    same, twin = facts(world, {"a.jpg": jpeg(scene(1)), "a2.jpg": jpeg(scene(1), 30)})
    assert {(same.group, same.bucket), (twin.group, twin.bucket)} == {(first.group, first.bucket)}


def test_an_image_between_two_buckets_neither_trains_nor_judges(world: LearningWorld) -> None:
    """An older release has placed two forms of one picture apart."""
    forms = {"one.png": png(photograph()), "other.jpg": jpeg(photograph(), 60)}
    for (name, data), bucket in zip(forms.items(), (Split.TRAIN, Split.TEST), strict=True):
        uri, own = f"s3://images/{name}", group_of(data)
        world.images.kept[uri] = data
        world.project.catalogue.add([ImageFacts(uri, "etag", own, own, bucket, phash=perceptual_hash(data))], stamp())
    (bridge,) = facts(world, {"bridge.jpg": jpeg(photograph(), 80)})
    assert bridge.bucket is Split.QUARANTINE
    assert bridge.group == bridge.sha256


def test_shifted_turned_cropped_and_bordered_forms_share_a_bucket_and_count_once(world: LearningWorld) -> None:
    whole = photograph()
    wide, high = whole.size
    forms = {
        "whole.png": png(whole),
        "shifted.png": png(whole.transform(whole.size, Image.Transform.AFFINE, (1, 0, 7, 0, 1, 4))),
        "turned.png": png(whole.rotate(2, Image.Resampling.BICUBIC)),
        "cropped.jpg": jpeg(whole.crop((8, 8, wide - 8, high - 8)), 80),
        "bordered.png": png(ImageOps.expand(whole, 14)),
    }
    shapes = facts(world, forms)
    assert len({f.group for f in shapes}) == len({f.twins for f in shapes}) == 1
    (mirrored,) = facts(world, {"mirrored.png": png(ImageOps.mirror(whole))})
    assert mirrored.group == shapes[0].group  # one bucket, and yet a picture of its own
    assert mirrored.twins != shapes[0].twins


@pytest.mark.parametrize("name", ["0" * 64, "f" * 64])
def test_two_workers_at_the_same_time_leave_no_pair_on_both_sides(world: LearningWorld, name: str) -> None:
    """The other one has looked before ours was there, whoever comes first by name."""
    rival = ImageFacts("s3://images/rival.png", "e", name, name, Split.TEST, phash=perceptual_hash(png(scene(5))))
    data = jpeg(scene(5), 50)
    world.images.kept[rival.uri] = png(scene(5))
    add = world.project.catalogue.add

    def and_the_other_worker(images: list[ImageFacts], shard: str) -> None:
        if not all(f.group for f in images):
            add(images, shard)
            return
        world.project.catalogue.add = add  # type: ignore[method-assign]
        add([rival], f"{shard}-rival")
        add(images, f"{shard}-ours")

    world.project.catalogue.add = and_the_other_worker  # type: ignore[method-assign, assignment]
    (image,) = facts(world, {"b.jpg": data})
    assert image.bucket is Split.QUARANTINE


def test_without_near_duplicates_only_the_same_bytes_are_the_same(tmp_path: Path) -> None:
    config = {"buckets": {"near_duplicates": False}, "backbone": {"name": "pixels", "options": {"projection": 8}}}
    world = LearningWorld(tmp_path, images=20, config=config)
    first, same, copy = facts(world, {"a.png": png(scene(1)), "a.jpg": jpeg(scene(1)), "b.png": png(scene(1))})
    assert first.group != same.group
    assert first.group == copy.group
    assert first.phash == ""


def test_groups_are_listed_with_what_becomes_of_them() -> None:
    def facts(name: str, group: str, bucket: Split = Split.TRAIN) -> ImageFacts:
        return ImageFacts(name, "e", name, group, bucket)

    def task(number: int, uri: str, label: str) -> Task:
        return Task(number, uri, AT, (Annotation(number, AT, AT, label),))

    images = [facts("a", "a"), facts("b", "a"), facts("c", "c"), facts("d", "c"), facts("e", "e")]
    images += [facts("f", "f", Split.QUARANTINE), ImageFacts("g", "e", problem="broken")]
    groups = groups_of(images, [task(1, "c", "cat"), task(2, "d", "dog"), task(3, "a", "cat")])
    assert [[m.uri for m in g.members] for g in groups] == [["c", "d"], ["f"], ["a", "b"]]
    assert [g.contradicts for g in groups] == [True, False, False]
    assert "not learned" in groups[0].why
    assert "neither trains nor judges" in groups[1].why
    assert [(m.label, m.same_bytes) for m in groups[2].members] == [("cat", True), (None, False)]
