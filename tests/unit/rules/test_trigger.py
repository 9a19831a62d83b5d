from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from labelloop.config.project import ProjectConfig, Refresh, parse_config
from labelloop.errors import SettingsError
from labelloop.rules.cron import CronTimes, cron_times
from labelloop.rules.trigger import ATTEMPTS, Decision, TrainingNeeds, decide, moved

CONFIG = ProjectConfig(refresh=Refresh(class_min=3))  # a project of before; retrain after max(200, a quarter more)
FEW = ProjectConfig()  # refresh after 10, a class enters with its first label
NEW = TrainingNeeds({"cat": 0, "dog": 0, "owl": 0}, changes=0)
LIVE = TrainingNeeds(
    {"cat": 20, "dog": 20, "owl": 20}, changes=0, new_for_backbone=60, judged=True, live=True, since_refresh_s=60
)


def kinds(decision: Decision) -> list[str]:
    return [a.kind for a in decision.actions]


def labelled(cat: int, dog: int, owl: int = 0) -> TrainingNeeds:
    return replace(NEW, labels={"cat": cat, "dog": dog, "owl": owl}, changes=cat + dog + owl)


@pytest.mark.parametrize(
    ("counts", "runs", "missing"),
    [
        ((0, 0, 0), False, 9),
        ((2, 5, 0), False, 3),  # ten labels come sooner than three of each
        ((30, 2, 2), False, 1),
        ((3, 3, 0), False, 3),  # two classes, but neither all nor ten labels
        ((3, 3, 3), True, 0),  # all classes
        ((5, 5, 0), True, 0),  # ten labels
        ((3, 3, 2), False, 1),
    ],
)
def test_the_first_model(counts: tuple[int, int, int], runs: bool, missing: int) -> None:
    decision = decide(labelled(*counts), CONFIG)
    assert (kinds(decision) == ["refresh"]) is runs
    assert decision.until_refresh == missing


def test_what_is_missing_is_said() -> None:
    assert decide(labelled(2, 5), CONFIG).waiting == "needs two classes with 3 labels each: cat 2, dog 5"
    assert decide(NEW, CONFIG).waiting == "needs two classes with 3 labels each: no labels yet"
    assert decide(labelled(3, 3), CONFIG).waiting is None


def test_until_refresh_falls_by_at_most_one_per_label_and_reaches_the_refresh() -> None:
    counts = {"cat": 0, "dog": 0, "owl": 0}
    left = decide(labelled(0, 0), CONFIG).until_refresh
    for name in ["cat"] * 4 + ["dog"] * 4 + ["owl"] * 3:
        counts[name] += 1
        decision = decide(labelled(**counts), CONFIG)
        assert left - 1 <= decision.until_refresh <= left
        left = decision.until_refresh
        assert bool(decision.actions) is (left == 0)
    assert left == 0


def test_refresh_every_ten_changes() -> None:
    assert decide(replace(LIVE, changes=9), CONFIG).until_refresh == 1
    assert kinds(decide(replace(LIVE, changes=9), CONFIG)) == []
    assert kinds(decide(replace(LIVE, changes=10), CONFIG)) == ["refresh"]


def test_a_first_head_that_was_held_waits_for_ten_more() -> None:
    held = replace(labelled(5, 5), judged=True, changes=4)
    assert kinds(decide(held, CONFIG)) == []
    assert kinds(decide(replace(held, changes=10), CONFIG)) == ["refresh"]


@pytest.mark.parametrize(
    ("counts", "missing"),
    [
        ((0, 0, 0), 5),
        ((1, 0, 0), 4),
        ((1, 1, 0), 3),
        ((1, 1, 1), 2),  # one label each says nothing of how often a head is right
        ((4, 0, 0), 1),
        ((9, 0, 0), 1),  # however many: of one class nothing can be learned
        ((3, 2, 0), 0),
    ],
)
def test_from_five_labels_of_two_classes_on_a_first_model_is_tried(counts: tuple[int, int, int], missing: int) -> None:
    decision = decide(labelled(*counts), FEW)
    assert decision.until_refresh == missing
    assert (kinds(decision) == ["refresh"]) is (missing == 0)


def test_until_a_version_is_live_the_next_five_labels_are_tried_then_ten() -> None:
    held = replace(labelled(5, 5), judged=True, changes=4)
    assert decide(held, FEW).until_refresh == 1
    assert kinds(decide(replace(held, changes=5), FEW)) == ["refresh"]
    assert decide(replace(held, changes=5, live=True), FEW).until_refresh == 5


def test_an_upgrade_starts_no_run_where_the_record_holds_three() -> None:
    """Whatever has been judged and held: the stored setting keeps the pace."""
    for changes in range(10):
        held = replace(labelled(9, 9), judged=True, changes=changes)
        assert kinds(decide(held, CONFIG)) == []
    assert kinds(decide(labelled(2, 2, 1), CONFIG)) == []


def test_throttle_is_leading_edge() -> None:
    due = replace(LIVE, changes=10)
    assert kinds(decide(replace(due, since_refresh_s=None), CONFIG)) == ["refresh"]
    soon = decide(replace(due, since_refresh_s=0.4), CONFIG)
    assert kinds(soon) == []
    assert soon.again_in_s == pytest.approx(0.6)
    later = decide(replace(due, since_refresh_s=1.0), CONFIG)
    assert (kinds(later), later.again_in_s) == (["refresh"], None)


def test_attempts_run_out_visibly() -> None:
    due = replace(LIVE, changes=10, failed_refreshes=ATTEMPTS - 1)
    assert kinds(decide(due, CONFIG)) == ["refresh"]
    held = decide(replace(due, failed_refreshes=ATTEMPTS), CONFIG)
    assert kinds(held) == []
    assert held.waiting == (
        "refresh failed 3 times: on hold until labels or the config change, or `labelloop queue retry`"
    )


def test_one_kind_on_hold_does_not_stop_the_other() -> None:
    both = replace(LIVE, changes=10, new_for_backbone=200, failed_retrains=ATTEMPTS)
    assert kinds(decide(both, CONFIG)) == ["refresh"]


@pytest.mark.parametrize(
    ("saw", "new", "runs"), [(0, 199, False), (0, 200, True), (400, 200, True), (2000, 499, False), (2000, 500, True)]
)
def test_retrain_after_a_quarter_more(saw: int, new: int, runs: bool) -> None:
    decision = decide(replace(LIVE, backbone_saw=saw, new_for_backbone=new), CONFIG)
    assert (kinds(decision) == ["retrain"]) is runs
    assert (decision.until_retrain == 0) is runs


def test_retrain_is_not_automatic_before_a_model_or_where_switched_off() -> None:
    assert kinds(decide(replace(LIVE, live=False, new_for_backbone=300), CONFIG)) == []
    off = CONFIG.model_copy(update={"retrain": CONFIG.retrain.model_copy(update={"automatic": False})})
    assert kinds(decide(replace(LIVE, new_for_backbone=300), off)) == []
    asked = decide(replace(LIVE, new_for_backbone=300, retrain_asked=True), off)
    assert [(a.kind, a.why) for a in asked.actions] == [("retrain", "requested by a person")]


def test_a_retrain_that_cannot_run_says_why() -> None:
    decision = decide(replace(labelled(2, 5), retrain_asked=True), CONFIG)
    assert kinds(decision) == []
    assert decision.waiting == "needs two classes with 3 labels each: cat 2, dog 5"


def test_refresh_and_retrain_may_be_due_together() -> None:
    assert kinds(decide(replace(LIVE, changes=10, new_for_backbone=200), CONFIG)) == ["refresh", "retrain"]


def test_classes_that_are_gone_hold_learning_until_a_person_has_decided() -> None:
    due = replace(LIVE, changes=50, new_for_backbone=500, retrain_asked=True)
    assert kinds(decide(due, CONFIG)) == ["refresh", "retrain"]
    held = decide(replace(due, undecided=("class 'cat' (17 labels)",)), CONFIG)
    assert held.actions == ()
    assert held.waiting == "class 'cat' (17 labels) is no longer in the label config: decide with `labelloop schema`"


def test_a_pause_stops_both_and_still_counts() -> None:
    both = replace(LIVE, changes=10, new_for_backbone=200, retrain_asked=True, paused="learning is paused by anna")
    decision = decide(both, CONFIG)
    assert decision.actions == ()
    assert (decision.until_refresh, decision.until_retrain) == (0, 0)
    assert decision.waiting == "learning is paused by anna"


def test_while_people_decide_on_classes_the_counts_go_on() -> None:
    held = decide(replace(LIVE, changes=4, undecided=("class 'cat'", "class 'dog'")), CONFIG)
    assert (held.until_refresh, held.until_retrain) == (6, 140)
    assert held.waiting is not None
    assert held.waiting.startswith("class 'cat', class 'dog' are no longer in the label config")


def test_a_refresh_says_what_for() -> None:
    assert decide(labelled(3, 2), FEW).actions[0].why == "first model: 5 labels"
    tried = replace(labelled(5, 5), judged=True, changes=7)
    assert decide(tried, FEW).actions[0].why == "7 new or changed labels since the last refresh"
    seeded = replace(labelled(5, 5), live=True, changes=12)
    assert decide(seeded, FEW).actions[0].why == "12 new or changed labels since the last refresh"


def test_one_class_alone_is_never_enough() -> None:
    """However many labels and changes there are, and whatever is live."""
    for labels in ({"cat": 50}, {"cat": 50, "dog": 0}):
        for state in ({}, {"judged": True}, {"judged": True, "live": True}):
            decision = decide(replace(NEW, labels=labels, changes=50, **state), FEW)  # type: ignore[arg-type]
            assert decision.until_refresh >= 1
            assert decision.actions == ()
            assert decision.waiting == "needs two classes with a label each: cat 50"


def test_two_classes_are_enough_for_a_project_of_two() -> None:
    two = TrainingNeeds({"cat": 3, "dog": 2}, changes=5)
    assert (decide(two, FEW).until_refresh, kinds(decide(two, FEW))) == (0, ["refresh"])
    assert decide(TrainingNeeds({"cat": 4, "dog": 0}, changes=4), FEW).until_refresh == 1
    assert decide(TrainingNeeds({"cat": 9, "dog": 0}, changes=9), CONFIG).until_refresh == 3


def test_labels_beyond_what_a_refresh_needs_are_no_debt() -> None:
    for progress, config in (
        (replace(LIVE, changes=35), CONFIG), (labelled(40, 40, 40), CONFIG), (labelled(40, 40, 40), FEW),
    ):  # fmt: skip
        assert decide(progress, config).until_refresh == 0


def test_a_class_minimum_of_two_keeps_the_pace_of_before() -> None:
    older = ProjectConfig(refresh=Refresh(class_min=2))
    assert decide(replace(labelled(5, 5), judged=True, changes=4), older).until_refresh == 6


def test_a_refresh_that_began_this_very_moment_is_waited_for() -> None:
    assert decide(replace(LIVE, changes=10, since_refresh_s=0.0), CONFIG).again_in_s == 1.0
    assert kinds(decide(replace(LIVE, changes=10, since_refresh_s=-3.0), CONFIG)) == ["refresh"]


# --- what else causes a retrain


def with_policy(**policy: Any) -> ProjectConfig:
    return parse_config({"retrain": policy}, "test")


@pytest.mark.parametrize(
    ("policy", "progress", "why"),
    [
        ({"mix": 0.3}, {"mix": 0.29}, None),
        ({"mix": 0.3}, {"mix": 0.3}, "class shares moved by 0.30"),
        ({"mix": 0.3}, {"mix": 0.9, "new_for_backbone": 9}, None),  # a handful of labels moves any share
        ({"mix": 0.3}, {"mix": 0.9, "new_for_backbone": 10}, "class shares moved by 0.90"),
        ({}, {"mix": 1.0}, None),
        ({}, {"recipe_changed": True}, "config changed since the last retrain (`backbone:` or `retrain:`)"),
        ({"on_change": False}, {"recipe_changed": True}, None),
        ({}, {"upgraded": True}, None),
        ({"on_upgrade": True}, {"upgraded": True}, "training code changed"),
        ({"images": 50}, {"new_images": 50}, "50 more images than at the last retrain, with 60 new labels"),
        ({"images": 50}, {"new_images": 49}, None),
        ({"images": 50}, {"new_images": 50, "new_for_backbone": 0}, None),  # it would learn the same again
        ({}, {"new_images": 5000}, None),
        ({"cron": "0 3 * * *"}, {"cron_due": True}, "scheduled (retrain.cron: 0 3 * * *), with 60 new labels"),
        ({"cron": "0 3 * * *"}, {"cron_due": True, "new_for_backbone": 0}, None),
        ({"cron": "0 3 * * *"}, {}, None),
        ({"automatic": False, "cron": "0 3 * * *"}, {"cron_due": True, "recipe_changed": True}, None),
        ({"cron": "0 3 * * *"}, {"cron_due": True, "live": False}, None),
    ],
)
def test_other_triggers_of_a_retrain(policy: dict[str, Any], progress: dict[str, Any], why: str | None) -> None:
    decision = decide(replace(LIVE, **progress), with_policy(**policy))
    found = [a.why for a in decision.actions if a.kind == "retrain"]
    assert found[0].startswith(why) if why else not found, found


def test_every_trigger_is_told() -> None:
    progress = replace(LIVE, mix=0.1, new_images=7, cron_next="2026-01-02 03:00 UTC")
    assert decide(progress, with_policy(mix=0.3, images=50, cron="0 3 * * *", on_upgrade=True)).watched == (
        "after 140 labels", "class shares moved by 0.10 of 0.30", "7 of 50 new images",
        "at 2026-01-02 03:00 UTC", "when `backbone:` or `retrain:` changes", "when the training code changes",
    )  # fmt: skip
    assert decide(progress, with_policy(on_change=False)).watched == ("after 140 labels",)
    due = replace(progress, new_for_backbone=200)
    assert decide(due, with_policy(on_change=False)).watched == ("enough new labels",)
    assert "only on request" in decide(progress, with_policy(automatic=False)).watched[0]


def test_how_far_shares_have_moved() -> None:
    assert moved({"a": 50, "b": 50}, {"a": 5, "b": 5}) == 0
    assert moved({"a": 10, "b": 0}, {"a": 0, "b": 3}) == 1
    assert moved({"a": 75, "b": 25}, {"a": 50, "b": 50}) == pytest.approx(0.25)
    assert moved({"a": 50, "b": 25, "c": 25}, {"a": 2, "b": 2}) == pytest.approx(0.25)
    assert moved({"a": 2, "b": 2}, {"a": 50, "b": 25, "c": 25}) == pytest.approx(0.25)  # as far back as forth
    assert moved({"a": 1}, {}) == 0


def test_a_time_that_nobody_was_there_for_is_made_up() -> None:
    def at(day: int, hour: int) -> datetime:
        return datetime(2026, 1, day, hour, tzinfo=UTC)

    assert not cron_times("0 3 * * *", at(1, 4), at(1, 23)).due
    assert cron_times("0 0 31 2 *", at(1, 4), at(1, 23)) == CronTimes()  # an old config may hold it: it never comes
    assert cron_times("0 3 * * *", at(1, 4), at(2, 4)).due
    assert cron_times("0 3 * * *", at(1, 4), at(9, 12)).due
    assert cron_times("0 3 * * *", at(1, 4), at(1, 23)).next == "2026-01-02 03:00 UTC"
    assert not cron_times(None, at(1, 4), at(9, 12)).due


def test_a_cron_expression_is_checked_when_the_config_is_read() -> None:
    with pytest.raises(SettingsError, match="is no cron expression"):
        with_policy(cron="every day")


def test_when_it_runs_is_no_part_of_what_it_does() -> None:
    assert with_policy(cron="0 3 * * *", after=7, images=9).recipe == with_policy().recipe
    assert with_policy(epochs=9).recipe != with_policy().recipe
    assert parse_config({"gate": {"tolerance": 0.1}}, "test").recipe == with_policy().recipe
    assert parse_config({"backbone": {"name": "small_cnn"}}, "test").recipe != with_policy().recipe
