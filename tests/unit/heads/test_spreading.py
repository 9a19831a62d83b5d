import numpy as np
import pytest

from labelloop.records.arrays import Floats
from retrain_worker.heads.logistic import mass_of, rotate_with_pool
from retrain_worker.heads.recipe import HeadRecipe, Lesson, fit
from retrain_worker.heads.spreading import neighbourhood

RNG = np.random.default_rng(0)
CENTRES = 4 * np.eye(3, 12, dtype=np.float32)
TRUTH = np.arange(300) % 3
ROWS: Floats = (CENTRES[TRUTH] + RNG.normal(size=(300, 12))).astype(np.float32)
NEAR = neighbourhood(ROWS)


def hidden(*shown: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(1, shown) targets of the first rows."""
    return np.array([list(shown)], dtype=np.int64)


def test_what_is_alike_gets_the_same_guess() -> None:
    guess = NEAR.guess(hidden(0, 1, 2), 3)[0]
    assert guess.shape == (3, 300)
    assert (guess.argmax(axis=0) == TRUTH).mean() > 0.95
    assert (guess.sum(axis=0) <= 1 + 1e-5).all()


def test_a_class_with_more_labels_spreads_no_farther() -> None:
    """Of the first thirty rows all of class 0 have a label, and one of each other class."""
    targets = np.where(TRUTH[:30] == 0, 0, -1)
    targets[1:3] = 1, 2
    guess = NEAR.guess(targets[None], 3)[0]
    assert (guess.argmax(axis=0) == TRUTH).mean() > 0.9


def test_members_do_not_see_each_others_labels() -> None:
    both = NEAR.guess(np.array([[0, 1, 2], [0, 1, -1]]), 3)
    np.testing.assert_allclose(both[0], NEAR.guess(hidden(0, 1, 2), 3)[0], atol=1e-6)
    assert both[1, 2].max() == 0  # a class that is hidden is nobody's guess


def test_an_unlabelled_island_gets_no_guess() -> None:
    far = np.concatenate([ROWS, ROWS[:40] - 500])
    assert neighbourhood(far).guess(hidden(0, 1, 2), 3)[0][:, 300:].max() < 0.01


def test_labels_count_as_labels_and_all_guesses_together_as_told() -> None:
    rotated = rotate_with_pool(ROWS[:6], ROWS[6:], NEAR, 0.5)
    mass = mass_of(rotated, np.array([[0, 1, 2, 0, 1, -1]]), 3)[0]
    np.testing.assert_array_equal(mass[:, :5].argmax(axis=0), [0, 1, 2, 0, 1])
    assert mass[:, :5].sum() == 5
    assert mass[:, 5:].sum() <= 0.5 * 5
    assert mass[:, 5].sum() < 0.05  # whose label is hidden counts as a guess


def accuracy(pool: Floats | None, labelled: int = 9) -> tuple[float, dict[str, float]]:
    rng = np.random.default_rng(3)
    far = 40 * rng.normal(size=(12, 200)).astype(np.float32)  # many features of no meaning
    noise = rng.normal(size=(900, 200)).astype(np.float32)
    truth = np.arange(900) % 3
    rows = np.concatenate([4 * np.eye(3, 12, dtype=np.float32)[truth] + rng.normal(size=(900, 12)), noise], axis=1)
    rows = rows.astype(np.float32) + far[0, 0] * 0
    lesson = Lesson(
        rows[:labelled], [f"g{i}" for i in range(labelled)], [f"c{k}" for k in truth[:labelled]], ("c0", "c1", "c2"),
        pool=None if pool is None else rows[labelled:600],
    )  # fmt: skip
    found, _ = fit(lesson, HeadRecipe())
    said = found.head.probabilities(rows[600:]).argmax(axis=1)
    return float((said == truth[600:]).mean()), dict(found.recipe)


def test_the_pool_helps_where_labels_are_few() -> None:
    alone, recipe = accuracy(None)
    assert recipe["pool"] == 0
    together, recipe = accuracy(ROWS)
    assert recipe["pool"] == 1
    assert together > alone + 0.1


def test_a_pool_that_misleads_is_left_out() -> None:
    """The classes cut across the clusters: out of fold the guesses are wrong."""
    rng = np.random.default_rng(5)
    rows = np.concatenate([10 * np.eye(2, 4)[np.arange(400) % 2], np.zeros((400, 1))], axis=1)
    rows += 0.5 * rng.normal(size=rows.shape)
    rows[:, 4] = 3 * rng.choice([-1, 1], 400)
    labels = ["up" if up else "down" for up in rows[:60, 4] > 0]
    lesson = Lesson(rows[:60].astype(np.float32), [f"g{i}" for i in range(60)], labels, ("down", "up"),
                    pool=rows[60:].astype(np.float32))  # fmt: skip
    found, _ = fit(lesson, HeadRecipe())
    said = found.head.probabilities(rows[60:].astype(np.float32)).argmax(axis=1)
    assert float((said == (rows[60:, 4] > 0)).mean()) > 0.95


@pytest.mark.parametrize("pool", [np.zeros((0, 12), np.float32), ROWS[:1]])
def test_an_almost_empty_pool_is_borne(pool: Floats) -> None:
    lesson = Lesson(ROWS[:12], [f"g{i}" for i in range(12)], [f"c{k}" for k in TRUTH[:12]], ("c0", "c1", "c2"),
                    pool=pool)  # fmt: skip
    assert fit(lesson, HeadRecipe())[0].oof.shape == (12, 3)
