import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from labelloop.config.project import PolicyName, Queue, _warn_once, parse_config
from labelloop.errors import SettingsError
from labelloop.rules.acquisition import STRATEGIES, Doubts, Situation, choose, doubts_of


def test_without_a_model_images_that_stand_for_others_come_first() -> None:
    found = choose("auto", Situation(False))
    assert found.strategy == "herding"
    assert found.why == "herding: most representative of the other images (no model yet)"


def test_with_a_model_its_doubts_are_followed() -> None:
    found = choose("auto", Situation(True))
    assert found.strategy == "uncertain-herding"
    assert "0 random labels" in found.why


def test_while_classes_lack_labels_they_are_looked_for_and_named() -> None:
    found = choose("auto", Situation(True, missing=("owl", "yak")))
    assert found.strategy == "new-classes"
    assert "2 classes with too few labels: owl, yak" in found.why
    many = choose("auto", Situation(True, missing=tuple("abcdefgh"))).why
    assert "8 classes with too few labels: a, b, c, d, e, …" in many
    assert choose("auto", Situation(False, missing=("owl",))).strategy == "herding"
    assert choose("margin", Situation(True, missing=("owl",))).strategy == "margin"


def test_a_model_whose_doubts_tell_nothing_is_not_asked_for_classes_either() -> None:
    """One that nobody ever labels would keep it in charge for ever."""
    rng = np.random.default_rng(0)
    doubts = doubts_of(rng.random(300).astype(np.float32), rng.random(300) < 0.7)
    assert choose("auto", Situation(True, doubts, ("owl",))).strategy == "herding"


def test_doubts_that_tell_nothing_are_not_followed() -> None:
    rng = np.random.default_rng(0)
    sureness, right = rng.random(300).astype(np.float32), rng.random(300) < 0.7
    found = choose("auto", Situation(True, doubts_of(sureness, right)))
    assert found.strategy == "herding"
    assert "300 random labels" in found.why


def test_doubts_that_tell_are_followed_and_said() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(100) < 0.7
    sureness = np.where(right, 0.6, 0.4) + 0.2 * rng.random(100)
    found = choose("auto", Situation(True, doubts_of(sureness.astype(np.float32), right)))
    assert found.strategy == "uncertain-herding"
    assert "a wrong prediction was less sure than a right one in" in found.why


@pytest.mark.parametrize("wrong", [1, 4, 5])
def test_a_few_wrong_answers_decide_nothing_however_sure_they_were(wrong: int) -> None:
    """One slip of a person in the test bucket looks just like that."""
    right = np.arange(200) >= wrong
    found = doubts_of(np.linspace(1, 0, 200, dtype=np.float32), right)
    assert found.auc == 0
    assert found.high is not None
    assert found.high > 0.2
    chosen = choose("auto", Situation(True, found))
    assert chosen.strategy == ("herding" if wrong == 5 else "uncertain-herding")
    assert wrong == 5 or f"{wrong} answered wrongly" in chosen.why


def test_a_few_random_labels_decide_nothing() -> None:
    few = doubts_of(np.array([0.9, 0.8, 0.5, 0.4], np.float32), np.array([False, False, True, True]))
    assert few.auc == 0
    assert choose("auto", Situation(True, few)).strategy == "uncertain-herding"


def test_the_auc_is_scikit_learns_and_its_interval_widens_where_labels_are_few() -> None:
    rng = np.random.default_rng(1)
    sureness, right = rng.random(80).astype(np.float32), rng.random(80) < 0.5
    found, quarter = doubts_of(sureness, right), doubts_of(sureness[:20], right[:20])
    assert found.auc == pytest.approx(roc_auc_score(right, sureness))
    assert found.high is not None
    assert quarter.high is not None
    assert quarter.auc is not None
    assert quarter.high - quarter.auc > found.high - found.auc > 0


@pytest.mark.parametrize("right", [[True] * 5, [False] * 5, []])
def test_where_all_are_right_or_wrong_there_is_nothing_to_tell(right: list[bool]) -> None:
    assert doubts_of(np.linspace(0, 1, len(right), dtype=np.float32), np.array(right, dtype=np.bool_)).auc is None


def test_what_a_person_configures_is_done_as_soon_as_there_is_a_model() -> None:
    assert choose("margin", Situation(True)).strategy == "margin"
    assert choose("random", Situation(False)).strategy == "random"
    waiting = choose("margin", Situation(False))
    assert waiting.strategy == "herding"
    assert "later margin" in waiting.why


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(SettingsError, match="there is no strategy 'best'"):
        choose("best", Situation(True, Doubts(0, 0)))


def test_the_config_knows_every_strategy() -> None:
    assert set(PolicyName.__args__) == {"auto", *STRATEGIES}  # type: ignore[attr-defined]
    assert Queue().policy == "auto"


@pytest.mark.parametrize("removed", ["badge", "entropy", "k-center"])
def test_a_policy_of_an_earlier_release_becomes_auto_and_is_said_once(
    removed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _warn_once.cache_clear()
    for _ in range(2):
        assert parse_config({"queue": {"policy": removed}}, "a file").queue.policy == "auto"
    said = capsys.readouterr()
    assert (said.out + said.err).count(f"queue.policy: {removed} was removed, auto takes its place") == 1


def test_a_policy_that_never_was_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"queue\.policy"):
        parse_config({"queue": {"policy": "best"}}, "a file")
