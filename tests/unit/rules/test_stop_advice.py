"""Whether to go on labelling: each reason on its own, in words that a person can act on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labelloop.config.project import Stop
from labelloop.records.curve import KeptCurve, Points
from labelloop.rules.stop_advice import Act, Outlook, at_least, outlook, rounded
from tests.unit.worlds.curve import kept, points, power

STEEP, FLAT = power(0.3, 0.5), power(0.1, 0.0)


def look(found: KeptCurve, **policy: Any) -> Outlook:
    return outlook(found, Stop(**policy), quota=0.1)


def test_labels_to_a_target_with_their_interval() -> None:
    found = look(kept(points(STEEP, 600)), target=0.88)
    assert found.advice.act is Act.GO_ON
    assert found.sentence.startswith("about ")
    assert " more labels to 88 % (between " in found.sentence
    assert found.advice.reasons[0] == found.sentence
    assert found.advice.reasons[1].startswith("the next 100 labels: about +")
    assert found.reach
    assert found.reach.middle


def test_without_a_target_it_says_what_the_next_labels_bring() -> None:
    found = look(kept(points(STEEP, 300)))
    assert found.advice.act is Act.GO_ON
    assert "% right (" in found.sentence
    assert "100 more labels: about +" in found.sentence
    assert len(found.advice.reasons) == 1


def test_a_target_is_reached_only_with_its_lower_bound() -> None:
    many, few = kept(points(power(0.04, 0.3), 800)), kept(points(power(0.04, 0.3), 60))
    reached = look(many, target=0.92)
    assert reached.advice.act is Act.STOP
    assert reached.advice.reasons[0].startswith("92 % is reached: 97 % right, at least 96.")
    assert reached.advice.reasons[0] == reached.sentence
    assert "`labelloop auto-label`" in reached.advice.instead[0]
    unsure = look(few, target=0.92, gain=0.0)
    assert unsure.advice.act is Act.CANNOT_TELL
    assert "but 60 random labels do not prove it" in unsure.sentence
    assert "queue.quota" in unsure.sentence


def test_the_bound_is_the_live_versions_own() -> None:
    """Whatever the curve promises: 40 answers that are all right show 92 %, not 95."""
    found = kept(Points(np.array([50.0, 100.0, 400.0]), np.zeros((40, 3))))
    assert look(found, target=0.92).advice.act is Act.STOP
    assert look(found, target=0.95, gain=0.0).advice.act is Act.CANNOT_TELL
    assert at_least(40, 40, 0.05) == pytest.approx(0.05 ** (1 / 40))
    assert at_least(0, 40, 0.05) == 0.0
    assert at_least(36, 40, 0.05) == pytest.approx(0.7858, abs=1e-3)  # Clopper and Pearson's table


def test_little_to_come_is_a_reason_to_stop_and_names_another_way() -> None:
    flat = kept(points(FLAT, 600, labels=range(100, 1501, 100)))
    found = look(flat, target=0.97)
    assert found.advice.act is Act.STOP
    assert "the next 100 labels bring at most 0." in found.advice.reasons[0]
    assert "(stop.gain)" in found.advice.reasons[0]
    assert "97 % is out of reach with this backbone" in found.sentence
    assert any("a fine-tune may bring more" in other for other in found.advice.instead)
    assert look(flat, gain=0.0).advice.act is Act.GO_ON


def test_too_few_random_labels_say_so_and_how_many_it_takes() -> None:
    none = look(kept(points(STEEP, 12), test=0, audit=0, points=()))
    assert none.sentence == "too little evidence: 0 random labels; about 32 are needed"
    for images, error in ((12, STEEP), (30, power(0.5, 0.1))):
        few = look(kept(points(error, images)), target=0.9)
        assert few.advice.act is Act.CANNOT_TELL
        assert few.sentence.startswith(f"too little evidence: {images} random labels; about ")
        assert int(few.sentence.split("about ")[1].split()[0]) > images
        assert few.now is None
        assert not few.ahead


def test_nobody_is_told_to_stop_while_a_class_is_hardly_known() -> None:
    found = look(kept(points(power(0.04, 0.3), 800), waiting={"owl": 1, "elk": 0}), target=0.92)
    assert found.advice.act is Act.GO_ON
    assert "elk 0, owl 1" in found.advice.reasons[0]
    assert "remove one that does not occur from the label config" in found.advice.reasons[0]


def test_a_new_project_is_told_to_go_on() -> None:
    found = look(kept(points(STEEP, 12), waiting={"owl": 1}))
    assert found.advice.act is Act.GO_ON
    assert found.advice.reasons[1].startswith("too little evidence")


def test_a_live_version_that_cannot_be_read_is_not_taken_for_a_lack_of_labels() -> None:
    found = look(kept(points(STEEP, 100), live="v99"))
    assert found.advice.act is Act.CANNOT_TELL
    assert "v99 could not be judged" in found.sentence


def test_where_only_random_labels_are_given_there_is_still_a_forecast() -> None:
    assert outlook(kept(points(STEEP, 100)), Stop(target=0.9), quota=1.0).ahead


def test_where_nothing_is_left_there_is_nothing_to_label() -> None:
    found = look(kept(points(STEEP, 300), left=0), target=0.95)
    assert found.advice.act is Act.STOP
    assert found.advice.reasons[0] == "no image is left to label"
    assert any("fine-tune" in other for other in found.advice.instead)
    assert not any("auto-label" in other for other in found.advice.instead)


def test_more_labels_than_images_are_said_to_be_so() -> None:
    assert "no more images are left" in look(kept(points(STEEP, 600), left=20), target=0.88).sentence
    assert "no more images are left" not in look(kept(points(STEEP, 600)), target=0.88).sentence


def test_a_model_that_differs_as_people_differ_is_good_enough() -> None:
    given = points(power(0.08, 0.1), 800)
    found = look(kept(given, doubled=300, differ=60), gain=0.0)
    assert found.advice.act is Act.STOP
    assert "20 % of 300 random images that two have labelled" in found.advice.reasons[0]
    assert look(kept(given, doubled=300, differ=6), gain=0.0).advice.act is Act.GO_ON
    assert look(kept(given, doubled=20, differ=10), gain=0.0).advice.act is Act.GO_ON  # too few to tell


def test_another_backbone_is_another_curve() -> None:
    found = kept(points(STEEP, 100))
    older = tuple(type(p)(**{**_fields(p), "backbone": "old", "wrong": "1" * 100}) for p in found.points[:10])
    mixed = kept(points(STEEP, 100), points=(*older, *found.points[10:]))
    assert [p.version for p in mixed.current] == [p.version for p in found.points[10:]]
    assert look(mixed).now
    assert look(mixed).now.middle == pytest.approx(look(found).now.middle, abs=0.05)  # type: ignore[union-attr]


def _fields(point: Any) -> dict[str, Any]:
    return {name: getattr(point, name) for name in point.__slots__}


@pytest.mark.parametrize(("labels", "told"), [(4, 4), (143, 140), (1449, 1400), (87.6, 88), (15500, 16000)])
def test_numbers_of_labels_have_two_digits(labels: float, told: int) -> None:
    assert rounded(labels) == told
