"""New labels under the head that serves: hard ones are expected, wrong ones are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from labelloop.config.project import Gate
from labelloop.records.arrays import Floats
from labelloop.records.evidence import Contradiction, Evaluation, Outcome, evaluation_from
from labelloop.records.json import to_dict
from labelloop.rules.gate import judge
from retrain_worker.evidence.collect import LabelSets, Learned, refresh_evidence
from retrain_worker.evidence.contradiction import contradiction
from tests.unit.rules.test_gate import POLICY, REFRESH, compared, surprised
from tests.unit.worker.test_evidence import RECIPE, examples, rows

SURE = (0.98, 0.01, 0.01)
UNSURE = (0.4, 0.35, 0.25)


def found(*rows: tuple[tuple[float, ...], int]) -> Contradiction:
    probabilities: Floats = np.array([row for row, _ in rows], dtype=np.float32)
    made = contradiction(probabilities, np.array([k for _, k in rows]), range(100, 100 + len(rows)), batches=1.0)
    assert made is not None
    return made


def test_what_the_head_is_sure_of_is_contradicted_and_what_it_is_not_sure_of_is_not() -> None:
    assert found(*[(SURE, 0)] * 10).deviation < 0
    assert found(*[(UNSURE, 2)] * 10).deviation < 3  # the least probable each time
    assert found(*[(SURE, 1)] * 10).deviation > 10
    assert found(*[(SURE, 0)] * 9, (SURE, 1)).deviation < 3  # one slip in ten says nothing


def test_it_names_the_tasks_that_contradict_most() -> None:
    told = found((SURE, 0), (SURE, 2), (UNSURE, 2), ((0.9, 0.08, 0.02), 1))
    assert told.tasks == (101, 103)


def test_labels_drawn_from_the_probabilities_hardly_ever_alarm() -> None:
    """The deviation is what it says: beyond three standard errors once in some hundreds."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(500):
        probabilities = rng.dirichlet([0.3] * 6, 10).astype(np.float32)
        given = np.array([rng.choice(6, p=p / p.sum()) for p in probabilities.astype(np.float64)])
        made = contradiction(probabilities, given, range(10), batches=1.0)
        assert made is not None
        alarms += made.deviation > 3
    assert alarms <= 5


def test_without_new_labels_there_is_nothing_to_say() -> None:
    assert contradiction(np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.int64), (), batches=0) is None


def spoilt(**labels: str) -> Learned:
    """A refresh from 60 labels to 70, of which some are given wrongly."""
    first = refresh_evidence(LabelSets(examples(0, 60)), rows, champion=None, recipe=RECIPE).fitted.head
    return refresh_evidence(LabelSets(examples(0, 70, **labels), examples(0, 60)), rows, champion=first, recipe=RECIPE)


def next_class(uris: range) -> Mapping[str, str]:
    return {f"u{i:03d}": "abc"[(i + 1) % 3] for i in uris}


def test_a_batch_that_somebody_got_wrong_is_held_and_its_tasks_are_named() -> None:
    evaluation = spoilt(**next_class(range(60, 70))).evaluation
    news = evaluation.contradiction
    assert news is not None
    assert (news.n, news.batches) == (10, 1.0)
    assert len(news.tasks) >= 5
    assert set(news.tasks) <= set(range(60, 70))
    verdict = judge(evaluation, POLICY)
    assert verdict.outcome is Outcome.HOLD
    assert f"check tasks {news.tasks[0]}, " in verdict.reasons[0]


def test_a_right_batch_is_not() -> None:
    evaluation = spoilt().evaluation
    assert evaluation.contradiction is not None
    assert evaluation.contradiction.deviation < 1
    assert judge(evaluation, POLICY).outcome is Outcome.PROMOTE


def test_answers_that_people_changed_and_classes_that_are_new_contradict_nothing() -> None:
    """The champion learned what was said before: whoever corrects it must not be stopped for that."""
    evaluation = spoilt(**next_class(range(6)), u060="new", u061="new", u062="new").evaluation
    assert evaluation.contradiction is not None
    assert evaluation.contradiction.n == 7


def news(deviation: float, batches: float = 1.0) -> Contradiction:
    return Contradiction(10, 2.0, 0.5, deviation, batches, (17, 23))


def refreshed(told: Contradiction | None, *, gain: float = 0.0, half: float = 0.1, earlier: bool = False) -> Outcome:
    evaluation: Evaluation = replace(
        REFRESH, comparison=compared(difference=gain, half=half), contradiction=told,
        earlier=surprised(0.05, 0.06) if earlier else surprised(0.0, 0.1),
    )  # fmt: skip
    return judge(evaluation, POLICY).outcome


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        (news(3.1), Outcome.HOLD),
        (news(2.9), Outcome.PROMOTE),
        (news(9.0, batches=2.9), Outcome.HOLD),
        (news(9.0, batches=3.0), Outcome.PROMOTE),  # people were told twice, and left them
    ],
)
def test_a_contradiction_holds_twice(told: Contradiction, outcome: Outcome) -> None:
    assert refreshed(told) is outcome


def test_a_proven_loss_names_the_tasks_too() -> None:
    worse = replace(REFRESH, comparison=compared(difference=-0.2, half=0.1), contradiction=news(4.0))
    verdict = judge(worse, POLICY)
    assert verdict.outcome is Outcome.REJECT
    assert verdict.reasons[0] == "new labels make it worse: check tasks 17, 23"


def test_a_gain_that_is_proven_outweighs_it() -> None:
    assert refreshed(news(9.0), gain=0.12, half=0.1) is Outcome.PROMOTE


def test_earlier_labels_hold_only_where_the_new_ones_are_doubted_too() -> None:
    assert refreshed(news(1.1), earlier=True) is Outcome.HOLD
    assert refreshed(news(0.9), earlier=True) is Outcome.PROMOTE  # the champion would have given them itself
    assert refreshed(None, earlier=True) is Outcome.HOLD  # nothing is known of them


def test_the_threshold_is_a_setting() -> None:
    held = replace(REFRESH, comparison=compared(difference=0.0, half=0.1), contradiction=news(4.0))
    assert judge(held, POLICY).outcome is Outcome.HOLD
    assert judge(held, Gate(contradiction=5.0)).outcome is Outcome.PROMOTE


def test_it_is_kept_with_the_version() -> None:
    evaluation = replace(REFRESH, contradiction=news(3.5))
    assert evaluation_from(to_dict(evaluation)) == evaluation
