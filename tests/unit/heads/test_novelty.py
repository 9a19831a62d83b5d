"""Classes that people can choose and nobody has labelled yet: how likely an image is of one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from labelloop.config.project import HeadSpec
from labelloop.errors import CorruptArtefactError
from labelloop.model.head import Head, Novelty, load_head, speaks
from labelloop.records.arrays import Floats
from labelloop.records.evidence import PreLabels, evaluation_from
from labelloop.records.images import Example, Split
from labelloop.records.json import to_dict
from labelloop.rules.acquisition import Query, strategy
from labelloop.rules.split import unit
from retrain_worker.evidence.collect import LabelSets, Learned, Recipe, refresh_evidence
from retrain_worker.heads.logistic import USUAL
from retrain_worker.heads.novelty import Classes, NoveltyTable, fit_novelty
from retrain_worker.heads.recipe import HeadRecipe, Lesson, fit_linear
from retrain_worker.replay.history import Draw, LabelledImages
from retrain_worker.replay.student import Student

CLASSES = tuple("abcdef")
SEEDS = range(8)


class Pictures:
    """Images of six classes in clusters; ``labelled`` of the first ``known`` classes have a label."""

    def __init__(self, seed: int, *, known: int, labelled: int, spread: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(len(CLASSES), 24)) * 1.5
        self.truth = rng.integers(0, len(CLASSES), 700)
        self.rows = (centres[self.truth] + spread * rng.normal(size=(700, 24)) + 3).astype(np.float32)
        some = np.flatnonzero(self.truth[:200] < known)
        first = [np.flatnonzero(self.truth == k)[0] for k in range(known)]
        self.labelled = np.array(list(dict.fromkeys([*first, *some]))[:labelled])
        self.pool, self.test = np.arange(200, 450), np.arange(450, 700)

    @property
    def examples(self) -> list[Example]:
        return [Example(int(i), f"{i}", f"g{i}", Split.TRAIN, CLASSES[self.truth[i]]) for i in self.labelled]

    def features(self, uris: Sequence[str]) -> Floats:
        return self.rows[[int(u) for u in uris]]

    def learned(self, *, known: Sequence[str] = CLASSES, pool: bool = True, class_min: int = 1) -> Learned:
        recipe = Recipe(class_min=class_min, choosable=known, pool=self.rows[self.pool] if pool else None)
        return refresh_evidence(LabelSets(self.examples), self.features, champion=None, recipe=recipe)


def head_of(learned: Learned) -> Head:
    assert isinstance(learned.fitted.head, Head)
    return learned.fitted.head


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("known", "labelled"), [(2, 4), (3, 8), (4, 10), (5, 20)])
def test_images_of_classes_without_a_label_get_hardly_a_pre_label_and_others_keep_theirs(
    seed: int, known: int, labelled: int
) -> None:
    world = Pictures(seed, known=known, labelled=labelled)
    head = head_of(world.learned())
    rows, truth = world.rows[world.test], world.truth[world.test]
    said = head.probabilities(rows)
    shown = speaks(said.max(axis=1), head.unseen(rows))
    right = said.argmax(axis=1) == truth
    assert shown[truth >= known].mean() < 0.35  # else all of them: wrong, each of them
    assert (shown & right).sum() > 0.6 * right.sum()
    assert (shown & right).sum() > (shown & ~right).sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_from_two_labels_of_two_classes_on_there_is_a_head(seed: int) -> None:
    world = Pictures(seed, known=2, labelled=2)
    learned = world.learned()
    assert learned.fitted.head.labels == ("a", "b")
    assert learned.evaluation.missing == tuple("cdef")


@pytest.mark.parametrize("pool", [True, False])
def test_where_every_class_has_a_label_there_is_no_other(pool: bool) -> None:
    world = Pictures(0, known=6, labelled=12)
    head = head_of(world.learned(pool=pool))
    assert head.novelty is None
    assert not head.unseen(world.rows).any()
    assert head_of(world.learned(known=())).novelty is None


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_alone_tell_it_too(seed: int) -> None:
    world = Pictures(seed, known=3, labelled=15)
    head = head_of(world.learned(pool=False))
    unseen = head.unseen(world.rows[world.test])
    of_others = world.truth[world.test] >= 3
    assert unseen[of_others].mean() > unseen[~of_others].mean() + 0.05


def test_a_class_that_waits_for_labels_is_one_that_the_head_does_not_know() -> None:
    """Projects of before hold back classes below three labels."""
    world = Pictures(0, known=3, labelled=18)
    rare = np.flatnonzero(world.truth == 3)[0]
    world.labelled = np.append(world.labelled, rare)
    learned = world.learned(known=CLASSES[:4], class_min=3)
    assert learned.evaluation.missing == ("d",)
    assert learned.evaluation.waiting == {"d": 1}
    assert head_of(learned).novelty is not None


def test_among_thousands_of_labels_a_class_that_nobody_ever_gives_costs_nothing() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1200, 4)).astype(np.float32) + np.repeat(np.eye(4, dtype=np.float32) * 4, 300, axis=0)
    labels = np.repeat(list("abcd"), 300).tolist()
    lessons = [
        Lesson(rows[some], [f"{i}" for i in some], [labels[i] for i in some], tuple("abcd"), missing=1)
        for some in (range(0, 1200, 40), range(1200))
    ]
    heads = [fit_linear(lesson, HeadRecipe()).head for lesson in lessons]
    assert [head.novelty is not None for head in heads] == [True, False]


def test_the_share_of_classes_without_a_label_falls_with_the_labels_and_grows_with_their_number() -> None:
    assert Classes(3, 3).share(0) == 0.5
    shares = [Classes(5, 1).share(n) for n in (0, 10, 100, 1000)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.01
    assert Classes(3, 3).share(20) > Classes(5, 1).share(20)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_the_rows_are_it_is_a_probability_that_falls_with_likeness(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(2, 30)), 2
    targets = np.concatenate([[0, 1], rng.integers(-1, classes, n)])
    rows = rng.normal(size=(len(targets), 6)).astype(np.float32) * np.float32(10 ** rng.uniform(-3, 3))
    rows[rng.random(len(rows)) < 0.3] = rows[0]  # the same picture, many times
    rows[rng.random(len(rows)) < 0.1] = 0
    pool = rows[rng.integers(0, len(rows), int(rng.integers(0, 60)))]
    novelty, oof = fit_novelty(NoveltyTable(rows, targets, pool), Classes(classes, 3), rng.integers(0, 5, len(rows)))
    line = novelty.of(np.linspace(-1, 1, 50, dtype=np.float32))
    for found in (novelty.probabilities(rows), oof, line):
        assert np.isfinite(found).all()
        assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(line) <= 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_out_of_fold_an_image_does_not_know_its_own_label(seed: int) -> None:
    """Another label of a row, of a class that has others, changes nothing of what is said of it."""
    rng = np.random.default_rng(seed)
    world = Pictures(seed, known=4, labelled=20)
    targets, rows = world.truth[world.labelled], world.rows[world.labelled]
    folds = rng.integers(0, 5, len(rows))
    classes, pool = Classes(4, 2), world.rows[world.pool]
    novelty, found = fit_novelty(NoveltyTable(rows, targets, pool), classes, folds)
    moved = rows.copy()
    mine = folds == folds[0]
    learned = ~mine & (targets >= 0)
    sums = np.array([_sum(novelty, rows, learned & (targets == k)) for k in range(4)])
    there = sums.any(axis=1)
    likeness = (_placed(novelty, moved[mine]) @ _unit(sums[there]).T).max(axis=1)
    gone = int((~there).sum())
    more = Classes(4 - gone, 2 + gone).odds(int(learned.sum())) - classes.odds(len(rows))
    again = replace(novelty, offset=novelty.offset + more).of(likeness)
    np.testing.assert_allclose(found[mine], again, atol=1e-5)


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _placed(novelty: Novelty, rows: Floats) -> Floats:
    return _unit(_unit(rows) - novelty.centre)


def _sum(novelty: Novelty, rows: Floats, some: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Floats:
    return np.asarray(_placed(novelty, rows)[some].sum(axis=0))


def test_dump_and_load_keep_it_and_an_older_release_reads_the_rest() -> None:
    world = Pictures(0, known=3, labelled=12)
    head = head_of(world.learned())
    again = load_head(head.dump(), head.labels)
    np.testing.assert_array_equal(again.unseen(world.rows), head.unseen(world.rows))
    np.testing.assert_array_equal(again.probabilities(world.rows), head.probabilities(world.rows))
    assert {"weight", "bias", "temperature"} <= load(head.dump()).keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("novelty.centre", None),
        ("novelty.means", None),
        ("novelty.centre", np.zeros(3, np.float32)),
        ("novelty.means", np.zeros((2, 24), np.float32)),
        ("novelty.odds", np.zeros(3, np.float32)),
        ("novelty.odds", np.array([np.nan, 0], np.float32)),
        ("novelty.odds", np.array([-1, 0], np.float32)),
        ("novelty.means", np.full((3, 24), np.inf, np.float32)),
    ],
)
def test_a_damaged_novelty_is_refused(name: str, value: Floats | None) -> None:
    head = head_of(Pictures(0, known=3, labelled=12).learned())
    tensors = {k: v for k, v in load(head.dump()).items() if k != name}
    with pytest.raises(CorruptArtefactError):
        load_head(save(tensors if value is None else {**tensors, name: value}), head.labels)


def test_pre_labels_out_of_fold_leave_out_what_nobody_could_know() -> None:
    """Every class with one label: nothing is right, nothing is wrong."""
    world = Pictures(0, known=6, labelled=6)
    found = world.learned().evaluation.shown
    assert found == PreLabels(0, 0, 0, 6, 0.0)
    grown = Pictures(0, known=6, labelled=40).learned().evaluation.shown
    assert grown is not None
    assert grown.right + grown.wrong + grown.hidden + grown.only == 40
    assert grown.right > 30
    assert grown.majority < 0.4


def test_an_evaluation_is_read_as_it_was_written() -> None:
    evaluation = Pictures(0, known=3, labelled=12).learned().evaluation
    again = evaluation_from(to_dict(evaluation))
    assert again.shown == evaluation.shown
    assert again.missing == ("d", "e", "f")
    older = {k: v for k, v in to_dict(evaluation).items() if k not in {"shown", "missing"}}
    assert (evaluation_from(older).shown, evaluation_from(older).missing) == (None, ())


def test_the_order_looks_for_classes_without_a_label() -> None:
    """One of six has none: half of the next twenty are of it; by doubt alone fewer."""
    found = [Pictures(seed, known=5, labelled=25) for seed in SEEDS]
    ours, theirs = (np.mean([_new_among(world, name) for world in found]) for name in ("new-classes", "margin"))
    assert ours > 10
    assert ours > theirs + 1


def _new_among(world: Pictures, name: str) -> int:
    head, rows = head_of(world.learned()), world.rows[world.test]
    query = Query(
        len(rows), lambda some: rows[some], head.probabilities(rows), world.rows[world.labelled],
        world.truth[world.labelled], batch=20, unseen=head.unseen(rows),
    )  # fmt: skip
    return int((world.truth[world.test][strategy(name).order(query, 20)] == 5).sum())


def test_where_every_class_has_a_label_the_strategy_goes_by_doubt() -> None:
    world = Pictures(0, known=6, labelled=30)
    head, rows = head_of(world.learned()), world.rows[world.test]
    query = Query(len(rows), lambda some: rows[some], head.probabilities(rows), rows[:5], np.arange(5), batch=10)
    orders = [strategy(name).order(query, 20).tolist() for name in ("new-classes", "uncertain-herding")]
    assert orders[0] == orders[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_replay_learns_what_a_refresh_learns(seed: int) -> None:
    """One head: the same labels and unlabelled images give the same probabilities, of classes without a label, too."""
    world = Pictures(seed, known=4, labelled=15)
    groups = [f"g{i}" for i in range(len(world.rows))]
    part = LabelledImages(world.rows, world.truth, groups)
    student = Student.of(Draw(part, part), len(CLASSES))
    student.learn(world.labelled, world.truth[world.labelled])
    rest = sorted(set(range(700)) - set(world.labelled.tolist()), key=lambda i: unit(f"pool:{groups[i]}"))
    recipe = Recipe(choosable=CLASSES, pool=world.rows[rest])
    head = head_of(refresh_evidence(LabelSets(world.examples), world.features, champion=None, recipe=recipe))
    np.testing.assert_allclose(student.probabilities(world.rows)[:, :4], head.probabilities(world.rows), atol=0.02)
    np.testing.assert_allclose(student.unseen(world.rows), head.unseen(world.rows), atol=0.01)


def test_an_ensemble_waits_until_every_class_has_a_label_or_there_are_fifty() -> None:
    spec = HeadSpec(kind="ensemble", budget_s=0.1)
    found = []
    for known, labelled in ((3, 20), (3, 60), (6, 40)):
        world = Pictures(0, known=known, labelled=labelled)
        recipe = Recipe(choosable=CLASSES, pool=world.rows[world.pool], head=HeadRecipe(spec))
        found.append(refresh_evidence(LabelSets(world.examples), world.features, champion=None, recipe=recipe).fitted)
    assert [fitted.recipe.get("head", "linear") for fitted in found] == ["linear", "ensemble", "ensemble"]
    assert found[0].head.unseen(world.rows).any()
    assert not found[1].head.unseen(world.rows).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_that_cannot_tell_do_not_choose_the_strength(seed: int) -> None:
    """One label a class: the usual strength and the pool, not the strongest, which names the largest class."""
    world = Pictures(seed, known=6, labelled=6)
    fitted = world.learned().fitted
    assert (fitted.recipe["strength"], fitted.recipe["pool"]) == (pytest.approx(USUAL), 1.0)
    said = fitted.head.probabilities(world.rows[world.test]).argmax(axis=1)
    assert (said == world.truth[world.test]).mean() > 0.7
