"""Every image is disturbed, alike in every order, before the backbone's own steps; and how costs are timed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from labelloop.decoding.square import Pixels
from retrain_worker.report.answers import AT_ONCE, as_seen, look, plain
from retrain_worker.report.inputs import Arm
from retrain_worker.report.latency import ENOUGH_S, LEAST, serving
from retrain_worker.report.measures import Ints
from retrain_worker.report.robustness import BLUR, DISTURBANCES, NOISE, Disturbance, disturb, robustness
from tests.unit.worlds.report import CLASSES, head_of, inputs, load, pixels, png, uri_of

URIS = tuple(uri_of(n % 3, n) for n in range(12))


@pytest.fixture(scope="module")
def images() -> Pixels:
    backbone = pixels(image_size=32)
    return np.stack([backbone.decode(load(uri)) for uri in URIS])


@pytest.mark.parametrize("what", DISTURBANCES, ids=str)
def test_every_image_is_disturbed_and_none_in_place(images: Pixels, what: Disturbance) -> None:
    before = images.copy()
    copies = disturb(images, URIS, what, seed=0)
    assert (copies.shape, copies.dtype) == (images.shape, np.uint8)
    changed = (copies != images).mean(axis=(1, 2, 3))
    assert changed.min() > 0.5, "every image, and most of each"
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("what", DISTURBANCES, ids=str)
def test_neither_order_nor_company_matters(images: Pixels, what: Disturbance) -> None:
    copies = disturb(images, URIS, what, seed=0)
    order = np.random.default_rng(0).permutation(len(URIS))
    np.testing.assert_array_equal(disturb(images[order], [URIS[k] for k in order], what, seed=0), copies[order])
    np.testing.assert_array_equal(disturb(images[3:4], URIS[3:4], what, seed=0), copies[3:4])


def test_noise_has_the_strength_that_is_asked_for_and_depends_on_seed_and_image() -> None:
    gray = np.full((2, 3, 64, 64), 128, dtype=np.uint8)
    for severity in (8.0, 32.0):
        noise = disturb(gray, ("a", "b"), Disturbance(NOISE, severity), seed=0).astype(float) - 128
        assert noise.std() == pytest.approx(severity, rel=0.05)
        assert abs(noise.mean()) < severity / 20
        assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05
    again = disturb(gray, ("a", "b"), Disturbance(NOISE, 32.0), seed=1).astype(float) - 128
    assert not np.array_equal(noise, again)


def test_blur_spreads_a_point_by_its_standard_deviation() -> None:
    point = np.zeros((1, 3, 65, 65), dtype=np.uint8)
    point[:, :, 28:37, 28:37] = 255
    place = np.arange(65) - 32
    for severity in (2.0, 4.0):
        rows = disturb(point, ("a",), Disturbance(BLUR, severity), seed=0)[0, 0].sum(axis=1, dtype=float)
        variance = (rows * place**2).sum() / rows.sum()
        assert np.sqrt(variance - (9**2 - 1) / 12) == pytest.approx(severity, rel=0.05)


def test_costs_of_a_disturbance_are_counted() -> None:
    def said(answers: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.eye(3, dtype=np.float32)[answers]

    truth: Ints = np.array([0, 1, 2, 2])
    what = Disturbance(NOISE, 8.0)
    (row,) = robustness(said([0, 1, 2, 1]), {what: said([0, 2, 2, 0])}, truth)
    assert (row.kind, row.severity, row.clean.value, row.accuracy.value) == ("noise", 8.0, 0.75, 0.5)
    assert (row.drop, row.changed) == (0.25, 0.5)
    assert robustness(said([]), {what: said([])}, np.empty(0, dtype=np.int64)) == ()


def test_the_clean_copy_is_what_serves_and_steps_come_after_the_disturbance() -> None:
    steps = [{"do": "blur", "kernel": 3}, {"do": "mask", "low": [0, 0, 40], "high": [179, 255, 255]}, {"do": "hsv"}]
    backbone = pixels(image_size=24, steps=steps)
    data = png(2, 5)
    square = plain(data, backbone)
    np.testing.assert_array_equal(as_seen(square[None], backbone)[0], backbone.decode(data))
    assert not np.array_equal(square, backbone.decode(data))
    given = inputs(backbone, champion=None)
    answers = look(given, CLASSES).arms[0]
    what = DISTURBANCES[2]
    squares = np.stack([plain(load(uri), backbone) for uri in given.uris])
    features = backbone.features(as_seen(disturb(squares, given.uris, what, given.seed), backbone))
    np.testing.assert_allclose(answers.disturbed[what], given.challenger.head.probabilities(features), atol=1e-5)


def test_each_image_is_read_once_for_all_arms_and_copies_and_in_small_batches() -> None:
    reads: Counter[str] = Counter()
    seen: list[tuple[int, int]] = []

    def counted(uri: str) -> bytes:
        reads[uri] += 1
        return load(uri)

    first, second = pixels(), pixels(image_size=16)
    uris = (*(uri_of(n % 3, n) for n in range(AT_ONCE + 5)), uri_of(9, 1))
    labels = tuple(CLASSES[n % 3] for n in range(AT_ONCE + 6))
    champion = Arm("v1", head_of(second, range(4)), second)
    given = inputs(
        first, champion=champion, uris=uris, labels=labels, load=counted,
        progress=lambda _, done, total: seen.append((done, total)),
    )  # fmt: skip
    looked = look(given, CLASSES)
    assert set(reads.values()) == {1}
    assert set(reads) == set(uris)
    assert seen == [(0, len(uris)), (AT_ONCE, len(uris)), (len(uris), len(uris))]
    assert list(looked.problems) == [uris[-1]]
    assert looked.readable.tolist() == [True] * (len(uris) - 1) + [False]
    for arm in looked.arms:
        assert arm.clean is not None
        assert arm.clean.shape == (len(uris) - 1, 3)
        assert set(arm.disturbed) == set(DISTURBANCES)


def test_costs_are_timed_by_the_clock_that_is_given() -> None:
    backbone = pixels()
    head = head_of(backbone, range(4))
    now = iter(np.cumsum([0, 0.004] * 200).tolist())  # 0, 4, 4, 8, ... ms: each answer takes four
    found = serving(backbone, head, lambda: float(next(now)))
    assert [(t.images, t.repeats) for t in found.timings] == [(1, 30), (32, 8)]
    assert [t.median_ms for t in found.timings] == [pytest.approx(4.0)] * 2
    assert found.parameters == sum(p.numel() for p in backbone.module.parameters()) > 0
    assert found.weight_bytes == 4 * found.parameters
    assert found.head_bytes == len(head.dump())


def test_a_slow_network_is_not_timed_for_long() -> None:
    backbone = pixels()
    now = iter(np.cumsum([0, ENOUGH_S / 2] * 200).tolist())
    found = serving(backbone, head_of(backbone, range(4)), lambda: float(next(now)))
    assert [t.repeats for t in found.timings] == [LEAST, LEAST]
