"""Whole reports: what stands in them, what they survive, and that hostile names stay names."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelloop.errors import StorageError
from labelloop.records.evidence import Outcome, Verdict
from retrain_worker.report.inputs import Arm, Inputs
from retrain_worker.report.page import page as page_of
from retrain_worker.report.report import Report, find, make_report
from retrain_worker.report.robustness import DISTURBANCES
from retrain_worker.report.samples import EXPLAINED, MISTAKES
from tests.unit.worlds.report import (
    CLASSES,
    HISTORY,
    HOLD,
    HOSTILE,
    Page,
    clock,
    head_of,
    inputs,
    load,
    pixels,
    small_cnn,
    uri_of,
)

DRAWN = {"Confusion", "Reliability", "Recall", "Learning", "Accuracy on disturbed"}
ORDER = ("Headline figures", "Pictures", "By class", "Most confident mistakes", "What answers come from", "Robustness",
         "Latency and size", "Provenance")  # fmt: skip


@pytest.fixture(scope="module")
def given() -> Inputs:
    return inputs(small_cnn())


@pytest.fixture(scope="module")
def report(given: Inputs) -> Report:
    return make_report(given)


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(report.html)


def features_only(**changes: Any) -> Inputs:
    """A refresh: probabilities from kept features, neither networks nor pixels."""
    full = inputs(pixels())
    assert full.champion
    images = np.stack([pixels().decode(load(uri)) for uri in full.uris])
    arms = {}
    for place, arm in (("challenger", full.challenger), ("champion", full.champion)):
        assert arm.backbone
        probabilities = arm.head.probabilities(arm.backbone.features(images))
        arms[place] = replace(arm, backbone=None, probabilities=probabilities)
    return replace(full, **{**arms, "load": None, "history": None, **changes})


def alts(page: Page) -> str:
    return "\n".join(page.attributes("img", "alt"))


def test_the_document_is_json_without_anything_that_is_no_number(report: Report) -> None:
    text = json.dumps(report.json, allow_nan=False)
    assert json.loads(text) == report.json
    assert report.json["training"]["epochs"][1]["loss"] is None
    assert report.json["training"]["best"] == HISTORY["best"]


def test_every_key_of_the_document_is_explained(report: Report) -> None:
    page = (Path(__file__).parents[3] / "docs/report.md").read_text()
    rows = re.findall(r"^\| `([a-z]+)` \|", page, flags=re.M)
    assert rows == list(report.json)


def test_the_document_holds_every_figure(report: Report, given: Inputs) -> None:
    found = report.json
    assert found["run"]["run"] == "run-1"
    assert found["verdict"] == {"outcome": "hold", "reasons": list(HOLD.reasons), "checks": [], "awaits": False}
    assert found["classes"] == list(CLASSES)
    assert found["test"] == {"labels": 24, "judged": 24, "unreadable": []}
    for arm in (found["challenger"], found["champion"]):
        assert arm["measures"]["n"] == 24
        assert np.sum(arm["measures"]["confusion"]) == 24
        assert [(r["kind"], r["severity"]) for r in arm["robustness"]] == [(d.kind, d.severity) for d in DISTURBANCES]
        assert arm["serving"]["timings"][0]["median_ms"] == pytest.approx(10)
    ours, theirs = (found[arm]["measures"]["accuracy"]["value"] for arm in ("challenger", "champion"))
    told = found["comparison"]
    assert told["difference"] == pytest.approx(ours - theirs)
    assert told["gained"] - told["lost"] == round(24 * told["difference"])
    assert told["low"] < told["difference"] < told["high"]


def test_mistakes_are_the_most_confident_ones(report: Report, given: Inputs) -> None:
    backbone, head = given.challenger.backbone, given.challenger.head
    assert backbone
    images = np.stack([backbone.decode(load(uri)) for uri in given.uris])
    rows = head.probabilities(backbone.features(images))
    said = [head.labels[k] for k in rows.argmax(axis=1)]
    wrong = [k for k in range(24) if said[k] != given.labels[k]]
    wrong.sort(key=lambda k: -rows[k].max())
    assert wrong, "a world without mistakes shows nothing"
    found = report.json["mistakes"]
    assert found["count"] == len(wrong)
    assert [m["uri"] for m in found["shown"]] == [given.uris[k] for k in wrong[:MISTAKES]]
    assert [m["answer"] for m in found["shown"]] == [said[k] for k in wrong[:MISTAKES]]
    assert found["shown"][0]["probability"] == pytest.approx(float(rows[wrong[0]].max()), abs=1e-4)


def test_attributions_are_of_mistakes_and_of_right_answers(report: Report) -> None:
    found = report.json["attributions"]
    assert found["layer"] == "blocks.5"
    assert len(found["images"]) == EXPLAINED
    right = [image["truth"] == image["answer"] for image in found["images"]]
    assert True in right
    assert False in right
    assert len({image["uri"] for image in found["images"]}) == EXPLAINED
    for image in found["images"]:
        assert image["summed"] == pytest.approx(image["gained"], rel=0.2, abs=0.05)


def test_the_page_begins_with_the_verdict_and_keeps_its_order(report: Report) -> None:
    html = report.html
    places = [html.index(f"<h2>{title}</h2>") for title in ORDER]
    assert html.index("Held back") < html.index("not enough evidence") < places[0]
    assert places == sorted(places)


def test_the_page_shows_all_pictures_and_stays_small(report: Report, page: Page) -> None:
    for start in DRAWN:
        assert start in alts(page)
    assert alts(page).count("Confusion matrix of v") == 2
    assert alts(page).count("Grad-CAM") == EXPLAINED
    assert len(report.html) < 3_000_000
    assert all(page.attributes("img", "alt"))


def test_the_page_fetches_nothing_and_runs_nothing(report: Report, page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    sources = [
        v for _, found in page.tags for k, v in found.items() if k in {"src", "href", "srcset", "data", "action"}
    ]
    assert sources
    assert all(source and source.startswith("data:image/") for source in sources)
    assert not [k for _, found in page.tags for k in found if k.startswith("on")]
    assert not re.search(r"""@import|url\(|src="http|srcset""", report.html)


def test_what_people_wrote_is_shown_as_they_wrote_it(page: Page) -> None:
    for text in (HOSTILE, "Shapes & <b>more</b>", 'on "shapes" <i>only</i>'):
        assert text in page.text
    assert not {"b", "i"} & {tag for tag, _ in page.tags}


def test_a_page_is_the_same_each_time_and_in_every_order_of_the_images() -> None:
    backbone = small_cnn()
    first, second = (make_report(inputs(backbone)) for _ in range(2))
    assert first == second
    given = inputs(backbone)
    turned = make_report(replace(given, uris=given.uris[::-1], labels=given.labels[::-1]))
    for key in ("challenger", "champion"):
        assert turned.json[key]["robustness"] == first.json[key]["robustness"]
        assert turned.json[key]["measures"]["confusion"] == first.json[key]["measures"]["confusion"]
    assert [i["uri"] for i in turned.json["attributions"]["images"]] == [
        i["uri"] for i in first.json["attributions"]["images"]
    ]


def test_without_test_labels_it_says_so() -> None:
    found = make_report(inputs(pixels(), uris=(), labels=()))
    text = Page(found.html).text
    assert "There are no test labels yet" in text
    assert "Nothing could be judged" in text
    assert "Latency and size" in text
    assert found.json["challenger"]["measures"] is None
    assert found.json["comparison"] is None
    assert "Learning curves" in alts(Page(found.html))


def test_without_champion_and_history_nothing_is_compared() -> None:
    found = make_report(inputs(pixels(), champion=None, history=None))
    page = Page(found.html)
    assert found.json["champion"] is found.json["comparison"] is found.json["training"] is None
    assert "no champion to compare with" in page.text
    assert "No learning curves" in page.text
    assert alts(page).count("Confusion matrix") == 1
    assert "difference" not in page.text.split("Pictures")[0].split("Headline figures")[1]


def test_images_that_cannot_be_read_are_left_out_and_listed() -> None:
    lost = tuple(uri_of(9, n) for n in range(2))
    whole = inputs(pixels())
    found = make_report(replace(whole, uris=(*lost, *whole.uris), labels=("rows", "columns", *whole.labels)))
    assert found.json["test"]["judged"] == 24
    assert [u["uri"] for u in found.json["test"]["unreadable"]] == list(lost)
    assert "2 test images could not be read" in Page(found.html).text
    assert f"<b>{lost[0]}</b> is gone" in Page(found.html).text
    clean = make_report(inputs(pixels()))
    assert found.json["challenger"]["measures"] == clean.json["challenger"]["measures"]
    assert found.json["challenger"]["robustness"] == clean.json["challenger"]["robustness"]


def test_when_no_image_can_be_read_it_says_so() -> None:
    lost = tuple(uri_of(9, n) for n in range(3))
    found = make_report(inputs(small_cnn(), uris=lost, labels=CLASSES))
    assert "None of the test images could be read" in Page(found.html).text
    assert (found.json["test"]["judged"], found.json["challenger"]["measures"]) == (0, None)


def test_a_refresh_without_pixels_has_all_figures_and_says_what_is_missing() -> None:
    found, whole = make_report(features_only()), make_report(inputs(pixels()))
    for key in ("challenger", "champion"):
        ours, theirs = found.json[key]["measures"], whole.json[key]["measures"]
        assert ours["confusion"] == theirs["confusion"]
        assert ours["log_loss"] == pytest.approx(theirs["log_loss"], rel=1e-5)
        assert (found.json[key]["robustness"], found.json[key]["serving"]) == ([], None)
    page = Page(found.html)
    assert found.json["attributions"] is None
    assert "without pixels" in page.text
    assert not any(source.startswith("data:image/jpeg") for source in page.attributes("img", "src"))
    assert found.json["mistakes"]["shown"] == [
        {**m, "probability": pytest.approx(m["probability"], rel=1e-4), "given": pytest.approx(m["given"], rel=1e-3)}
        for m in whole.json["mistakes"]["shown"]
    ]


def test_kept_features_of_one_arm_and_pixels_of_the_other_are_judged_on_the_readable_images() -> None:
    kept, whole = features_only(), inputs(pixels())
    assert kept.champion
    assert kept.champion.probabilities is not None
    lost, row = uri_of(9, 0), np.full((1, len(CLASSES)), 1 / 3, dtype=np.float32)
    champion = replace(kept.champion, probabilities=np.concatenate([row, kept.champion.probabilities]))
    uris, labels = (lost, *whole.uris), (CLASSES[0], *whole.labels)
    found, clean = make_report(replace(whole, champion=champion, uris=uris, labels=labels)), make_report(whole)
    assert found.json["test"]["judged"] == 24
    for key in ("challenger", "champion"):
        assert found.json[key]["measures"]["confusion"] == clean.json[key]["measures"]["confusion"]
    assert found.json["champion"]["robustness"] == []
    assert found.json["comparison"]["difference"] == clean.json["comparison"]["difference"]


def test_a_sum_of_gradients_that_is_far_off_is_told() -> None:
    found = find(inputs(small_cnn()))
    assert found.explained
    image = found.explained.images[0]
    off, close = (replace(image, gained=4.0, summed=summed) for summed in (6.0, 3.8))
    pages = [page_of(replace(found, explained=replace(found.explained, images=(one,)))) for one in (off, close)]
    assert ["Rough: the gradients sum up to" in one for one in pages] == [True, False]


def test_a_refresh_with_pixels_shows_its_mistakes() -> None:
    page = Page(make_report(features_only(load=load)).html)
    thumbnails = [source for source in page.attributes("img", "src") if source.startswith("data:image/jpeg")]
    assert 0 < len(thumbnails) <= MISTAKES


def test_a_class_without_test_labels_and_one_that_the_model_lacks_are_named() -> None:
    backbone = pixels()
    whole = inputs(backbone)
    use = [k for k, label in enumerate(whole.labels) if label != "rows"]
    head = head_of(backbone, range(12), ("rows", "columns"))
    found = make_report(
        replace(
            whole, challenger=Arm("v2", head, backbone), uris=tuple(whole.uris[k] for k in use),
            labels=tuple(whole.labels[k] for k in use),
        )
    )  # fmt: skip
    text = Page(found.html).text
    assert "No test labels, so nothing is known of: rows." in text
    assert f"does not know these classes, so all their labels count as wrong: {HOSTILE} (8)" in text
    rows = {row["name"]: row for row in found.json["challenger"]["measures"]["classes"]}
    assert rows["rows"]["recall"] is None
    assert rows[HOSTILE]["recall"]["value"] == 0
    assert not rows[HOSTILE]["known"]
    assert found.json["champion"]["measures"]["classes"][2]["known"]


def test_little_evidence_is_said_in_words(page: Page) -> None:
    assert re.search(
        r"Little evidence: 24 test labels. The true accuracy may lie anywhere between \d+ and \d+ %", page.text
    )
    assert "Fewer than 10 test labels" in page.text


def test_arms_with_networks_of_different_size_are_judged_on_the_same_images() -> None:
    other = pixels(image_size=16)
    given = inputs(small_cnn(), champion=Arm("v1", head_of(other, range(8)), other))
    found = make_report(given)
    assert found.json["champion"]["measures"]["n"] == found.json["challenger"]["measures"]["n"] == 24
    assert found.json["champion"]["backbone"]["id"] != found.json["challenger"]["backbone"]["id"]
    assert len(found.json["champion"]["robustness"]) == len(DISTURBANCES)


def test_thirty_classes_fit_on_the_page() -> None:
    draw = np.random.default_rng(0)
    classes = tuple(f"class number {k}" for k in range(30))
    whole = inputs(pixels())
    labels = tuple(classes[k] for k in draw.integers(0, 30, 90))
    head = replace(
        whole.challenger.head, labels=classes, weight=np.zeros((30, 5), np.float32), bias=np.zeros(30, np.float32)
    )
    probabilities = draw.dirichlet(np.full(30, 0.2), 90).astype(np.float32)
    found = make_report(replace(
        whole, classes=classes, uris=tuple(map(str, range(90))), labels=labels, load=None, champion=None,
        challenger=Arm("v1", head, probabilities=probabilities),
    ))  # fmt: skip
    page = Page(found.html)
    assert all(name in page.text for name in classes)
    assert len(found.json["challenger"]["measures"]["confusion"]) == 30
    assert any("wide" in (found.get("class") or "") for tag, found in page.tags if tag == "figure")


def test_progress_is_told_and_may_end_the_report() -> None:
    told: list[str] = []

    def until(what: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        told.append(what)
        if what == "attributions":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        make_report(inputs(pixels(), progress=until))
    assert list(dict.fromkeys(told)) == ["test images, clean and disturbed", "latency", "attributions"]


def test_trouble_with_storage_is_not_taken_for_an_unreadable_image() -> None:
    def away(uri: str) -> bytes:
        raise StorageError("no answer")

    with pytest.raises(StorageError):
        make_report(inputs(pixels(), load=away))


def test_inputs_that_do_not_fit_are_refused() -> None:
    whole = inputs(pixels())
    with pytest.raises(ValueError, match="one each"):
        replace(whole, labels=whole.labels[1:])
    with pytest.raises(ValueError, match="no image twice"):
        replace(whole, uris=(whole.uris[0],) * 24)
    with pytest.raises(ValueError, match="neither probabilities nor"):
        replace(whole, challenger=Arm("v2", whole.challenger.head))
    with pytest.raises(ValueError, match="of shape"):
        replace(whole, challenger=Arm("v2", whole.challenger.head, probabilities=np.zeros((3, 3), np.float32)))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_verdict_has_its_words_and_colour(outcome: Outcome) -> None:
    found = make_report(features_only(verdict=Verdict(outcome, ("because",)), timer=clock()))
    page = Page(found.html)
    classes = [found.get("class") or "" for tag, found in page.tags if tag == "div"]
    assert f"card verdict {outcome.value}" in classes
    assert {"promote": "Promoted", "hold": "Held back", "reject": "Rejected"}[outcome.value] in page.text


def test_findings_name_what_comes_before_belief() -> None:
    found = find(features_only())
    assert found.compared
    unclear = found.compared.accuracy.low <= 0 <= found.compared.accuracy.high
    assert any("do not show which of the two" in note for note in found.notes) == unclear
