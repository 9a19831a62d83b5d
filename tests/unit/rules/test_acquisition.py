import math
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from labelloop.config.project import Gate
from labelloop.config.project import Queue as QueueConfig
from labelloop.config.shares import SplitShares
from labelloop.config.training import Retrain
from labelloop.errors import SettingsError
from labelloop.records.arrays import Floats
from labelloop.records.images import Split
from labelloop.records.tasks import QueuePlace
from labelloop.rules.acquisition import (
    STRATEGIES,
    LabelledRows,
    Query,
    QueuePlan,
    Quota,
    UnlabelledPool,
    plan_queue,
    strategy,
)
from labelloop.rules.acquisition.coverage import covered_by, herd, radius_of
from labelloop.rules.acquisition.query import Ints, top
from labelloop.rules.acquisition.select import most_useful, spread_over_clusters
from labelloop.rules.acquisition.space import leading, space_of
from labelloop.rules.acquisition.uncertainty import margin
from labelloop.rules.split import shown_blind, split_of

RNG = np.random.default_rng(0)
N = 400
BLOBS = np.repeat(np.eye(8, 16, dtype=np.float32) * 20, N // 8, axis=0) + RNG.normal(size=(N, 16)).astype(np.float32)
PROBABILITIES = RNG.dirichlet(np.ones(3), N).astype(np.float32)
URIS = [f"s3://b/{i:04d}.jpg" for i in range(N)]
GROUPS = [f"g{i}" for i in range(N)]
BUCKETS = [split_of(g, SplitShares()) for g in GROUPS]


def read(rows: Ints) -> Floats:
    return BLOBS[rows]


POOL = UnlabelledPool(URIS, GROUPS, BUCKETS, read, ("a", "b", "c"), PROBABILITIES)
COLD = replace(POOL, probabilities=None)


def _part(kept: list[int], rows: Ints) -> Floats:
    return read(np.array(kept)[rows])


def queue(pool: UnlabelledPool = POOL, quota: Quota | None = None, **plan: float | str) -> tuple[QueuePlace, ...]:
    name = "herding" if pool.probabilities is None else "cluster-margin"
    return plan_queue(pool, quota=quota or Quota(), plan=QueuePlan(**{"strategy": name, **plan}))  # type: ignore[arg-type]


def asking(size: int = N, batch: int = 10) -> Query:
    labelled = np.arange(0, size, max(size // 7, 1))
    return Query(size, read, PROBABILITIES[:size], BLOBS[labelled], labelled % 3, batch, seed=1)


def test_utility_is_highest_where_nothing_is_known() -> None:
    rows = np.array([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [1, 0, 0]], np.float32)
    found = margin(rows)
    assert found.shape == (4,)
    assert (np.diff(found) < 0).all()
    np.testing.assert_allclose(margin(rows[:, ::-1]), found, rtol=1e-5)


def test_margin_of_one_class() -> None:
    assert margin(np.ones((3, 1), np.float32)).tolist() == [0, 0, 0]


def test_cluster_margin_is_diverse_and_starts_with_the_least_sure() -> None:
    utility = np.zeros(N, dtype=np.float32)
    utility[390:398] = np.linspace(0.9, 0.8, 8)  # one blob holds the most useful ...
    utility[:2] = 0.7  # ... and another the next
    query = Query(N, read, PROBABILITIES, batch=2)
    found = spread_over_clusters(utility, query)[:4].tolist()
    assert found[::2] == [390, 391]
    assert sorted(found[1::2]) == [0, 1]
    assert most_useful(utility, query)[:4].tolist() == [390, 391, 392, 393]


def test_the_most_useful_are_found_as_a_sort_finds_them() -> None:
    utility = np.round(RNG.random(1000), 2).astype(np.float32)  # with ties
    for count in (0, 1, 7, 500, 1000, 2000):
        np.testing.assert_array_equal(top(utility, count), np.argsort(-utility, kind="stable")[:count])


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_level_comes_by_lot_and_not_folder_by_folder(name: str) -> None:
    """Rows come by name. The front of a strategy is its own; behind it nothing tells the images apart."""
    even = np.full((N, 3), 1 / 3, dtype=np.float32)
    order = STRATEGIES[name].order(Query(N, read, even, batch=2, seed=1), N)
    tail = order[-100:]
    assert (np.diff(tail) == 1).mean() < 0.1
    assert len({int(i) // 50 for i in tail}) > 5
    other = STRATEGIES[name].order(Query(N, read, even, batch=2, seed=2), N)
    assert other.tolist() != order.tolist()


def test_cluster_margin_reads_only_a_shortlist() -> None:
    asked: list[int] = []

    def spy(rows: Ints) -> Floats:
        asked.extend(rows.tolist())
        return BLOBS[rows]

    strategy("cluster-margin").order(Query(N, spy, PROBABILITIES, batch=10), N)
    assert len(asked) == 50


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_orders_the_whole_pool(name: str) -> None:
    found = STRATEGIES[name]
    order = found.order(asking(), N)
    assert found.cost.startswith("O(")
    assert sorted(order.tolist()) == list(range(N))
    np.testing.assert_array_equal(order, found.order(asking(), N))
    np.testing.assert_array_equal(order[:30], found.order(asking(), 30))


@pytest.mark.parametrize("size", [0, 1, 2])
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_bears_an_almost_empty_pool(name: str, size: int) -> None:
    empty = Query(size, read, PROBABILITIES[:size], batch=10)
    assert sorted(STRATEGIES[name].order(empty, 10).tolist()) == list(range(size))


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_bears_images_that_are_all_alike(name: str) -> None:
    same, even = np.ones((30, 4), dtype=np.float32), np.full((30, 3), 1 / 3, dtype=np.float32)
    query = Query(30, lambda rows: same[rows], even, same[:2], np.array([0, 1]), batch=5)
    assert sorted(STRATEGIES[name].order(query, 30).tolist()) == list(range(30))


@pytest.mark.parametrize("name", [n for n, row in STRATEGIES.items() if not row.needs_model])
def test_what_needs_no_model_asks_for_none(name: str) -> None:
    assert len(STRATEGIES[name].order(Query(N, read), 20)) == 20


def test_an_unknown_strategy_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match="auto, cluster-margin"):
        strategy("best")


@pytest.mark.parametrize(("name", "first"), [("herding", 8)])
def test_what_covers_takes_one_of_each_blob_first(name: str, first: int) -> None:
    order = STRATEGIES[name].order(Query(N, read, batch=8), first)
    assert {int(i) // 50 for i in order} == set(range(8))


@pytest.mark.parametrize("name", ["herding", "uncertain-herding"])
def test_what_is_labelled_already_is_covered(name: str) -> None:
    """Seven of eight blobs have a label."""
    labelled = np.arange(0, 350, 50)
    open_rows = np.setdiff1d(np.arange(N), labelled)
    even = np.full((len(open_rows), 3), 1 / 3, dtype=np.float32)
    query = Query(
        len(open_rows), lambda rows: BLOBS[open_rows[rows]], even, BLOBS[labelled], np.zeros(7, np.int64), batch=1
    )
    assert open_rows[STRATEGIES[name].order(query, 1)[0]] >= 350


def test_herding_is_the_greedy_choice() -> None:
    """Against the same choice with every gain computed anew each time."""
    rows = space_of(BLOBS).of(BLOBS)
    weight, radius = RNG.random(N).astype(np.float32), radius_of(rows)
    found = herd(rows[:60], rows, np.zeros(N, np.float32), weight, count=12, radius=radius)
    apart = ((rows[:60, None] - rows[None]) ** 2).sum(-1)
    likeness, covered, slow = np.exp(-apart / radius**2), np.zeros(N), []
    for _ in range(12):
        slow.append(int((np.maximum(likeness - covered, 0) @ weight).argmax()))
        covered = np.maximum(covered, likeness[slow[-1]])
    assert found.tolist() == slow


@pytest.mark.parametrize("broken", ["candidates", "crowd"])
def test_herding_ends_also_where_rows_are_no_numbers(broken: str) -> None:
    rows = {"candidates": BLOBS[:30].copy(), "crowd": BLOBS[30:60].copy()}
    rows[broken][3] = np.nan
    none, even = np.zeros(30, np.float32), np.ones(30, np.float32)
    found = herd(rows["candidates"], rows["crowd"], none, even, count=10, radius=5.0)
    assert 3 not in found.tolist()
    assert len(set(found.tolist())) == len(found)


def test_uncertain_herding_prefers_the_unsure() -> None:
    sure = np.full((N, 3), [0.98, 0.01, 0.01], dtype=np.float32)
    sure[200:250] = 1 / 3
    order = strategy("uncertain-herding").order(Query(N, read, sure, batch=2), 1)
    assert 200 <= int(order[0]) < 250


def test_the_leading_components_are_those_of_the_whole_decomposition() -> None:
    centred = BLOBS - BLOBS.mean(axis=0)
    _, _, exact = np.linalg.svd(centred, full_matrices=False)
    ours = leading(centred, 5)
    np.testing.assert_allclose(ours.T @ ours, np.eye(5), atol=1e-4)
    np.testing.assert_allclose(np.abs(np.linalg.det(exact[:5] @ ours)), 1, atol=1e-2)


def test_covered_is_one_at_a_label_and_falls_with_distance() -> None:
    rows = np.array([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]], dtype=np.float32)
    found = covered_by(rows, rows[:1], 1.0)
    assert found[0] == 1
    assert found[0] > found[1] > found[2] > 0
    assert covered_by(rows, rows[:0], 1.0).tolist() == [0, 0, 0]


def test_only_train_images_are_chosen_and_only_others_drawn() -> None:
    bucket = dict(zip(URIS, BUCKETS, strict=True))
    for place in queue(window=40):
        assert place.blind is (place.why == "quota") is (bucket[place.uri] is not Split.TRAIN)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("stop", [1, 3, 7, 10])
def test_the_quota_holds_over_any_restart(share: float, stop: int) -> None:
    """Each time after `stop` labels a new model plans the queue anew."""
    given: list[QueuePlace] = []
    left = set(URIS)
    for _ in range(0, 100, stop):
        rows = [i for i in range(N) if URIS[i] in left]
        pool = UnlabelledPool(
            [URIS[i] for i in rows], [GROUPS[i] for i in rows], [BUCKETS[i] for i in rows],
            partial(_part, rows), POOL.labels, PROBABILITIES[rows],
        )  # fmt: skip
        random = sum(c.blind for c in given)
        given += queue(pool, Quota(share, len(given), random), window=20)[:stop]
        left -= {c.uri for c in given}
        assert sum(c.blind for c in given) == math.floor(share * len(given) + 1e-9)
    assert not given[0].blind


def test_the_quota_rises_while_the_next_verdict_lacks_labels() -> None:
    plain = Quota(0.1, labels=100, random=10)
    wanting = replace(plain, most=0.25, lacking={Split.TEST: 20}, ahead=100)
    assert (plain.now, wanting.now) == (0.1, 0.2)  # 25 random ones, of which 20 are of the test bucket
    assert replace(wanting, lacking={Split.TEST: 90}).now == 0.25
    assert replace(wanting, ahead=0).now == 0.25
    assert replace(wanting, ahead=None).now == 0.1
    assert sum(c.blind for c in queue(quota=plain, window=40)) == 4
    assert sum(c.blind for c in queue(quota=wanting, window=40)) == 8


def test_of_the_random_images_every_fifth_is_of_the_bucket_that_lacks_less() -> None:
    bucket = dict(zip(URIS, BUCKETS, strict=True))
    for first, other in ((Split.TEST, Split.AUDIT), (Split.AUDIT, Split.TEST)):
        quota = Quota(0.1, labels=100, random=10, most=0.25, lacking={first: 20}, ahead=10)
        found = [bucket[c.uri] for c in queue(quota=quota, window=40) if c.blind]
        assert found == 2 * [*4 * [first], other]
    short = Quota(0.1, labels=100, random=10, most=0.25, lacking={Split.TEST: 1, Split.AUDIT: 5}, ahead=10)
    found = [bucket[c.uri] for c in queue(quota=short, window=12) if c.blind]
    assert found == [Split.TEST, Split.AUDIT, Split.AUDIT]


def test_what_a_bucket_has_no_images_for_is_not_waited_for() -> None:
    none_left = replace(POOL, splits=[Split.TRAIN if b is Split.TEST else b for b in BUCKETS])
    quota = Quota(0.1, labels=100, random=10, most=0.25, lacking={Split.TEST: 40}, ahead=100)
    assert sum(c.blind for c in queue(none_left, quota, window=40)) == 4
    assert sum(c.blind for c in queue(quota=quota, window=40)) == 10


def test_who_is_behind_catches_up_without_a_page_of_nothing_but_random_images() -> None:
    found = [c.blind for c in queue(quota=Quota(0.1, labels=200, random=0), window=20)]
    assert found == [False, True] * 10
    assert all(c.blind for c in queue(quota=Quota(1.0, labels=200, random=20), window=20))


def test_who_has_more_than_most_goes_on_at_the_plain_share() -> None:
    quota = Quota(0.1, labels=600, random=400, most=0.25, lacking={Split.AUDIT: 20}, ahead=100)
    assert sum(c.blind for c in queue(quota=quota, window=40)) == 4


def life(orders: int, after: int) -> list[tuple[int, int, int]]:
    """(train, test, audit) labels after each order of a new project, which is worked off as far as ``after`` labels.

    A retrain is judged, and held, after every 200 train labels.
    """
    groups = [f"g{i}" for i in range(3000)]
    bucket = {group: split_of(group, SplitShares()) for group in groups}
    given: list[str] = []
    found = []
    for _ in range(orders):
        have = Counter(bucket[g] for g in given)
        random = have[Split.TEST] + have[Split.AUDIT]
        wanted = {Split.TEST: 50 - have[Split.TEST], Split.AUDIT: 59 - have[Split.AUDIT]}
        lacking = {b: n for b, n in wanted.items() if n > 0}
        policy = QueueConfig()
        quota = Quota(policy.quota, len(given), random, policy.quota_most, lacking, ahead=200 - have[Split.TRAIN] % 200)
        left = sorted(set(groups) - set(given))
        pool = UnlabelledPool(left, left, [bucket[g] for g in left], lambda rows: np.zeros((len(rows), 2), np.float32))
        given += [c.uri for c in plan_queue(pool, quota=quota, plan=QueuePlan("random", window=40))[:after]]
        have = Counter(bucket[g] for g in given)
        found.append((have[Split.TRAIN], have[Split.TEST], have[Split.AUDIT]))
    return found


@pytest.mark.parametrize("after", [10, 37])
def test_the_next_verdict_has_its_evidence_however_often_the_queue_is_ordered_anew(after: int) -> None:
    found = life(700 // after, after)
    _, test, audit = next(have for have in found if have[0] >= Retrain().after)
    assert test >= Gate().min_test_labels
    assert audit >= 10
    _, test, audit = next(have for have in found if have[0] >= 2 * Retrain().after)
    assert test >= 50
    assert audit >= 58  # what a bound needs
    for train, test, audit in found:
        labels = train + test + audit
        assert math.floor(QueueConfig().quota * labels) <= test + audit <= QueueConfig().quota_most * labels
    before, last = found[-1 - 100 // after], found[-1]
    assert 0.08 < (sum(last[1:]) - sum(before[1:])) / (sum(last) - sum(before)) < 0.12  # then every tenth again


def test_what_is_labelled_reaches_the_strategy() -> None:
    """All but one blob have a label: herding begins with the other one."""
    pool = replace(COLD, splits=[Split.TRAIN] * N, labelled=LabelledRows(BLOBS[:350:50], np.zeros(7, np.int64)))
    assert URIS.index(queue(pool)[0].uri) >= 350


def hidden(share: float) -> set[str]:
    return {u for u, g, b in zip(URIS, GROUPS, BUCKETS, strict=True) if b is Split.TRAIN and shown_blind(g, share)}


def test_a_share_of_the_chosen_images_is_blind_and_nothing_else_changes() -> None:
    plain, found = queue(window=N), queue(window=N, blind=0.2)
    assert {c.uri for c in found if c.blind and c.why != "quota"} == hidden(0.2)
    assert [c.uri for c in found][1:] == [c.uri for c in plain][1:]
    assert [(c.label, c.why) for c in found] == [(c.label, c.why) for c in plain]  # what is hidden stays known


def test_the_quota_does_not_count_what_is_blind_by_chance() -> None:
    found = queue(quota=Quota(0.1, 50, 5), window=100, blind=0.5)
    assert sum(c.why == "quota" for c in found) == 10
    assert 30 < sum(c.blind for c in found if c.why != "quota") < 60


def test_the_first_page_of_a_new_project_is_a_pre_labelled_one() -> None:
    first = queue(window=N)[0].uri
    share = next(s for s in np.linspace(0.01, 1, 100) if shown_blind(GROUPS[URIS.index(first)], s))
    new, later = queue(window=N, blind=share), queue(window=N, quota=Quota(labels=10, random=1), blind=share)
    assert not new[0].blind
    assert new[1].uri == first
    assert new[1].blind
    assert later[0].uri == first
    assert later[0].blind
    assert len({c.uri for c in new}) == N
    assert queue(window=N, blind=1.0)[0].uri == first


def test_random_images_keep_their_order_when_others_come_or_go() -> None:
    whole = [c.uri for c in queue(window=N) if c.blind]
    kept = [i for i in range(N) if i % 3]
    part = UnlabelledPool(
        [URIS[i] for i in kept],
        [GROUPS[i] for i in kept],
        [BUCKETS[i] for i in kept],
        read,
        POOL.labels,
        PROBABILITIES[kept],
    )
    assert [c.uri for c in queue(part, window=N) if c.blind] == [u for u in whole if URIS.index(u) % 3]
    assert whole != sorted(whole)
    assert [c.uri for c in queue(window=N, seed=1) if c.blind] != whole


def test_first_chosen_is_the_least_sure_in_train() -> None:
    first = next(c for c in queue() if not c.blind)
    train = [i for i in range(N) if BUCKETS[i] is Split.TRAIN]
    assert first.uri == URIS[train[int(margin(PROBABILITIES[train]).argmax())]]


def test_duplicates_are_shown_once() -> None:
    doubled = replace(POOL, groups=[f"g{i // 2}" for i in range(N)], splits=[Split.TRAIN] * N)
    found = [c.uri for c in queue(doubled, window=N)]
    assert len(found) == len(set(found)) == N // 2
    assert all(URIS.index(u) % 2 == 0 for u in found)


def test_priorities_rise_within_the_window() -> None:
    found = queue(window=30)
    assert len(found) == 30
    assert [c.priority for c in found] == pytest.approx([(k + 1) / 31 for k in range(30)])
    assert {c.why for c in queue(window=N)} == {"quota", "cluster-margin", "rest"}


def test_without_a_model_there_is_an_order_but_no_label() -> None:
    found = queue(COLD, window=30)
    assert {c.why for c in found} == {"quota", "cold-start"}
    assert all(c.label is None and c.probability is None for c in found)
    chosen = [URIS.index(c.uri) // 50 for c in found if not c.blind]
    assert set(chosen[:12]) == set(range(8))


def test_labels_are_the_models() -> None:
    for place in queue(window=20):
        row = URIS.index(place.uri)
        assert place.label == POOL.labels[int(PROBABILITIES[row].argmax())]
        assert place.probability == pytest.approx(float(PROBABILITIES[row].max()))


def test_the_queue_goes_on_where_one_side_is_used_up() -> None:
    test_only = replace(POOL, splits=[Split.TEST] * N)
    assert len(queue(test_only, window=50)) == 50
    train_only = replace(POOL, splits=[Split.TRAIN] * N)
    assert len(queue(train_only, window=50)) == 50
    assert queue(UnlabelledPool([], [], [], read)) == ()
