"""The same picture is proven through an edit; a changed one never is, however small the change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from labelloop.likeness.proof import IDENTITY, Kinship, kinship, likeness
from labelloop.likeness.windows import NEAR, WINDOWS, WindowIndex, middle_hash, thumb_of, window_words
from labelloop.records.arrays import Floats
from tests.unit.likeness.test_near import jpeg, photograph, png, scene

Edit = Callable[[Image.Image], Image.Image]
EDITS: dict[str, Edit] = {
    "half the size": lambda i: i.resize((i.width // 2, i.height // 2), Image.Resampling.LANCZOS),
    "darker": lambda i: ImageEnhance.Brightness(i).enhance(0.8),
    "gray": lambda i: i.convert("L").convert("RGB"),
    "blurred": lambda i: i.filter(ImageFilter.GaussianBlur(1)),
    "shifted by 2 %": lambda i: i.transform(i.size, Image.Transform.AFFINE, (1, 0, 6, 0, 1, 4)),
    "shifted by 5 %": lambda i: i.transform(i.size, Image.Transform.AFFINE, (1, 0, 16, 0, 1, -6)),
    "turned by 1°": lambda i: i.rotate(1, Image.Resampling.BICUBIC),
    "turned by 3°": lambda i: i.rotate(-3, Image.Resampling.BICUBIC),
    "cropped by 3 %": lambda i: i.crop((3, 2, i.width - 7, i.height - 5)),
    "cropped by 8 %": lambda i: i.crop((8, 5, i.width - 18, i.height - 12)),
    "border of 4 %": lambda i: ImageOps.expand(i, i.width // 25),
}


def pair(one: Image.Image, other: Image.Image) -> Kinship:
    """As the index would have it looked at."""
    thumbs = [thumb_of(png(image)) for image in (one, other)]
    index = WindowIndex()
    index.add([("other", middle_hash(thumbs[1]))])
    hits = index.near(window_words(thumbs[0]))
    if not hits:
        return Kinship.STRANGER
    a, b = (thumb.astype(np.float32) for thumb in thumbs)
    return kinship(a, b, (hits[0].window.guess, IDENTITY), mirror=hits[0].window.mirrored)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_picture_is_proven_to_be_the_same_from_either_side(edit: Edit) -> None:
    whole = photograph()
    assert pair(whole, edit(whole)) is Kinship.SAME
    assert pair(edit(whole), whole) is Kinship.SAME


def test_a_mirror_image_is_known_as_one() -> None:
    whole = photograph()
    assert pair(whole, ImageOps.mirror(whole)) is Kinship.MIRRORED


def test_other_pictures_are_strangers() -> None:
    images = [photograph(), *(scene(seed) for seed in range(6))]
    kinships = {pair(a, b) for i, a in enumerate(images) for b in images[:i]}
    assert kinships == {Kinship.STRANGER}


def frame(seed: int, *, side: int = 0, contrast: float = 40, noise: float = 4) -> Floats:
    """What a fixed camera takes: noise, another exposure, perhaps a defect of so many pixels."""
    rng = np.random.default_rng(seed)
    picture: NDArray[np.float64] = np.asarray(photograph(), dtype=np.float64)
    if side:
        y, x = rng.integers(30, 170 - side), rng.integers(30, 280 - side)
        part = picture[y : y + side, x : x + side]
        part += np.where(part.mean() > 127, -contrast, contrast)
    picture = picture * rng.uniform(0.96, 1.04) + rng.normal(0, noise, picture.shape)
    return thumb_of(jpeg(Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)), 90)).astype(np.float32)


def test_a_frame_with_a_defect_is_never_proven_to_be_one_without() -> None:
    for seed in range(12):
        for side in (14, 20, 30):
            for contrast in (30.0, 60.0):
                one, other = frame(seed), frame(100 + seed, side=side, contrast=contrast)
                assert kinship(one, other) is Kinship.SCENE
                assert kinship(other, one) is Kinship.SCENE


def test_quiet_frames_of_a_camera_are_the_same_scene_at_least() -> None:
    assert kinship(frame(1), frame(2)) is Kinship.SAME  # only many frames tell that these are no copies


def test_what_the_index_finds_is_what_comparing_all_finds() -> None:
    thumbs = [thumb_of(png(scene(seed))) for seed in range(40)]
    index = WindowIndex()
    index.add((str(i), middle_hash(thumb)) for i, thumb in enumerate(thumbs))
    index.add((str(i), middle_hash(thumb)) for i, thumb in enumerate(thumbs))  # known already
    assert len(index) == 40
    for i, thumb in enumerate(thumbs):
        words = window_words(thumb)
        assert words.shape == (len(WINDOWS), 4)
        hits = index.near(words)
        assert hits[0].uri == str(i)
        assert hits[0].bits <= 4
        assert all(hit.bits <= NEAR for hit in hits)


def test_pictures_that_share_nothing_measurable_are_not_proven() -> None:
    blank = np.full((128, 128, 3), 200, dtype=np.float32)
    assert kinship(blank, blank + 1) is Kinship.STRANGER
    assert likeness(blank, np.zeros_like(blank)) is None
