"""Who accepts pre-labels unread is named; who looks is not, however late and however well the model says it does."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest

from labelloop.rules.value import Look, Showing
from labelloop.rules.value.unread import (
    BLOCK,
    LEVEL,
    SHARES,
    Evidence,
    _begins,
    _log_likelihood,
    _log_ratios,
    _odds,
    _ways,
    evidence,
)
from tests.unit.worlds.value import looks_like_one, never_looks, stream

SEEDS = range(20)


def test_without_a_whole_block_there_is_no_evidence() -> None:
    assert evidence([]) == Evidence()
    assert evidence(stream(never_looks, BLOCK - 1)) == Evidence()


def test_whoever_accepts_everything_is_named_within_a_hundred_answers() -> None:
    found = [evidence(stream(never_looks, 100, seed=seed)) for seed in SEEDS]
    assert all(e.named for e in found)
    assert all(e.noticed is not None and e.noticed <= 100 and e.noticed % BLOCK == 0 for e in found)
    assert all(e.since == 0 for e in found)


@pytest.mark.parametrize("right", [0.3, 0.6, 0.9, 0.97])
def test_whoever_looks_is_never_named(right: float) -> None:
    for seed in SEEDS:
        assert evidence(stream(looks_like_one, 400, seed=seed, right=right)).noticed is None


def test_a_model_that_is_better_than_it_says_accuses_nobody() -> None:
    """Late in a project it expects several times the errors that it makes on the chosen images: see docs/value.md."""
    for seed in SEEDS:
        assert evidence(stream(looks_like_one, 400, seed=seed, right=0.97, overstated=6)).noticed is None


def test_it_does_not_need_the_model_to_be_calibrated() -> None:
    for seed in SEEDS:
        assert evidence(stream(never_looks, 200, seed=seed, right=0.7, overstated=0.5)).named
        assert evidence(stream(never_looks, 200, seed=seed, right=0.7, overstated=3)).named


def test_whoever_stops_looking_is_named_since_then() -> None:
    for seed in SEEDS:
        looks = [*stream(looks_like_one, 200, seed=seed), *stream(never_looks, 150, seed=seed, first=200)]
        found = evidence(looks)
        assert found.named
        assert found.noticed is not None
        assert found.noticed > 200
        assert 150 <= found.since <= 230


def test_whoever_looks_again_is_named_no_more() -> None:
    looks = [*stream(never_looks, 100), *stream(looks_like_one, 300, first=100)]
    found = evidence(looks)
    assert found.noticed is not None
    assert found.noticed <= 100
    assert not found.named


def test_without_blind_images_nobody_can_be_named() -> None:
    shown = [look for look in stream(never_looks, 500) if look.kind is Showing.SHOWN]
    assert evidence(shown).odds == pytest.approx(1)


def test_images_of_which_the_model_said_no_probability_are_left_out() -> None:
    looks = stream(never_looks, 100)
    unknown = [replace(look, probability=None) for look in stream(looks_like_one, 7)]
    mixed = [*unknown, *looks]
    assert evidence(mixed).odds == pytest.approx(evidence(looks).odds)
    assert evidence(mixed).noticed == (evidence(looks).noticed or 0) + 7
    assert evidence(mixed).since == 7


def test_corrections_count_against_it() -> None:
    looks = stream(never_looks, 60)
    corrects = [replace(look, departed=look.kind is Showing.SHOWN) for look in stream(never_looks, 20, first=60)]
    assert evidence([*looks, *corrects]).odds < 0.1 * evidence(looks).odds


def test_the_likelihood_of_all_ways_sums_to_one() -> None:
    odds = [0.2, 1.5, 0.7, 3.0, 0.05]
    for count in range(6):
        ways = [[i in chosen for i in range(5)] for chosen in combinations(range(5), count)]
        assert sum(math.exp(_log_likelihood(odds, way)) for way in ways) == pytest.approx(1)
        assert _ways(odds, count) == pytest.approx(
            sum(math.prod(o for o, w in zip(odds, way, strict=True) if w) for way in ways)
        )


def test_the_prior_of_when_they_stopped_is_one() -> None:
    blocks = 20_000
    rest = 1 / (2.1098 * math.log(blocks))  # the integral of what comes later
    assert sum(math.exp(_begins(block)) for block in range(blocks)) == pytest.approx(1 - rest, abs=1e-4)


def test_on_average_a_block_of_somebody_at_the_limit_multiplies_by_one() -> None:
    """Exactly, over all ways in which departures can fall: the martingale, at the edge of what is tolerated."""
    cells = [
        (Showing.SHOWN, 0.4),
        (Showing.SHOWN, 0.7),
        (Showing.HIDDEN, 0.5),
        (Showing.DRAWN, 0.9),
        (Showing.SHOWN, 0.6),
    ]
    odds = [_odds(kind, p) for kind, p in cells]
    for count in range(1, 5):
        total = [0.0] * len(SHARES)
        for chosen in combinations(range(5), count):
            departed = [i in chosen for i in range(5)]
            block = tuple((kind, p, d) for (kind, p), d in zip(cells, departed, strict=True))
            weight = math.exp(_log_likelihood(odds, departed))
            total = [t + weight * math.exp(r) for t, r in zip(total, _log_ratios(block), strict=True)]
        assert total == pytest.approx([1.0] * len(SHARES))


def test_the_level_holds_at_the_limit_of_what_is_tolerated() -> None:
    """Somebody who misses as many as is allowed, slips as often, and whose model overstates its errors."""

    def at_the_limit(chance, right, shown):  # type: ignore[no-untyped-def]
        return (not right and chance.random() >= 0.2) if shown else (not right or chance.random() < 0.05)

    named = sum(
        evidence(stream(at_the_limit, 400, seed=seed, right=right, overstated=2)).noticed is not None
        for seed in range(20) for right in (0.7, 0.9, 0.97)
    )  # fmt: skip
    assert named <= 3 * LEVEL * 60


def test_a_quite_sure_model_breaks_nothing() -> None:
    looks = [replace(look, probability=1.0) for look in stream(looks_like_one, 60)]
    assert math.isfinite(evidence(looks).odds)
    assert evidence([Look(1, 7, "t", Showing.SHOWN, "cat", 0.0, "dog", True)] * 50).odds == pytest.approx(1)
