"""From labels to `labelloop curve`: versions judged again on the random labels of now, kept, shown, drawn."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cli.here.versions import curve_here
from cli.views.curve import curve_view
from cli.views.curve_plot import plot_learning_curve
from cli.views.status import render
from labelloop.clock import stamp
from labelloop.config.project import Stop
from labelloop.errors import CorruptArtefactError, LabelloopError, NotFoundError
from labelloop.records.curve import UNKNOWN, KeptCurve
from labelloop.records.images import JUDGING, Split
from labelloop.records.tasks import Annotation, Task
from labelloop.records.versions import Version
from labelloop.rules.stop_advice import outlook
from labelloop.store.curve import KEY, keep_curve, kept_curve
from labelloop.store.features import FeatureStore
from labelloop.store.registry import Draft
from operations.models.curve import CurvePage, learning_curve
from operations.status import StatusReader, _Stores
from retrain_worker import jobs
from retrain_worker.evidence.curve import VERSIONS, follow, thinned, twice
from tests.unit.worlds.curve import kept, points, power
from tests.unit.worlds.learning import LearningWorld
from tests.unit.worlds.operations import OpsWorld

TRAIN, RANDOM = 30, 8  # labels in each step


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> LearningWorld:
    """Three versions or four, each with more labels."""
    world = LearningWorld(tmp_path_factory.mktemp("world"), images=500)
    train, random = world.uris(Split.TRAIN), world.uris(*JUDGING)
    for step in range(1, 5):
        world.refresh(world.label(train[: step * TRAIN] + random[: step * RANDOM]))
    return world


@pytest.fixture
def world(grown: LearningWorld) -> Iterator[LearningWorld]:
    """As it was, whatever a test does to it."""
    registry, before = grown.project.registry, grown.project.record
    store = registry._store
    kept_objects = {info.key: store.get(info.key) for info in store.list("")}
    yield grown
    for info in list(store.list("")):
        if info.key not in kept_objects:
            store.delete(info.key)
    for key, data in kept_objects.items():
        store.put(key, data)
    registry._versions.clear()
    registry._log.clear()
    grown.project._features.clear()
    grown.project.record = before


def followed(world: LearningWorld) -> KeptCurve:
    found = follow(world.project)
    assert found is not None
    return found


def deployed(world: LearningWorld, *, backbone: str, like: Version) -> Version:
    """Another version, made live by a person."""
    registry = world.project.registry
    version = registry.add(
        Draft(
            "retrain", backbone, registry.head(like), like.snapshot, like.config, "0.1.0", like.name, None, {},
            replace(like.evaluation, labels=like.evaluation.labels + 5), like.verdict,
            np.array(like.check_features, dtype=np.float32),
        )
    )  # fmt: skip
    registry.deploy(version.name, expected=like.name, action="promote", by="anna", why="")
    return version


# --- points


def test_every_version_is_judged_on_all_random_labels_of_now(world: LearningWorld) -> None:
    found = followed(world)
    registry = world.project.registry
    assert [p.version for p in found.points] == [d.version for d in registry.deployments()]
    assert [p.labels for p in found.points] == sorted(p.labels for p in found.points)
    assert found.live == found.points[-1].version
    assert found.images == 4 * RANDOM
    assert found.test > found.audit > 0
    assert {p.judged for p in found.points} == {4 * RANDOM}
    uris = sorted(u for u in world.labels if world.project.catalogue.images[u].bucket in JUDGING)
    rows = world.project.features(world.live().backbone).rows(uris)
    for point in found.points:
        head = registry.head(registry.version(point.version))
        answers = np.array(head.labels)[head.probabilities(rows).argmax(axis=1)]
        truth = np.array([world.truth[u] for u in uris])
        assert point.accuracy == pytest.approx(float((answers == truth).mean()))


def test_it_is_kept_and_read_again(world: LearningWorld) -> None:
    found = followed(world)
    assert kept_curve(world.project.store) == found
    world.project.store.put(KEY, b"{")
    with pytest.raises(CorruptArtefactError, match="labelloop curve --anew"):
        kept_curve(world.project.store)


def test_there_is_none_before_the_first_version(tmp_path: Path) -> None:
    empty = LearningWorld(tmp_path, images=20)
    assert follow(empty.project) is None
    with pytest.raises(NotFoundError):
        kept_curve(empty.project.store)


def test_what_was_rolled_back_is_no_point_of_it(world: LearningWorld) -> None:
    names = [d.version for d in world.project.registry.deployments()]
    world.project.registry.deploy(names[1], expected=names[-1], action="rollback", by="anna", why="")
    found = followed(world)
    assert [p.version for p in found.points] == names[:2]
    assert found.live == names[1]


def test_a_damaged_head_costs_one_point(world: LearningWorld) -> None:
    first, second, *others = world.project.registry.versions()
    world.project.store.put(second.head_key, b"damaged")
    assert [p.version for p in followed(world).points] == [v.name for v in (first, *others)]


def test_a_new_backbone_begins_another_curve(world: LearningWorld, tmp_path: Path) -> None:
    live = world.live()
    uris = sorted(world.labels)
    rows = world.project.features(live.backbone).rows(uris)
    FeatureStore(world.project.store, "tuned", tmp_path).add(stamp(), uris, ["e"] * len(uris), rows)
    tuned = deployed(world, backbone="tuned", like=live)
    found = followed(world)
    assert [p.version for p in found.current] == [tuned.name]
    assert found.current[0].accuracy == found.points[-2].accuracy  # the same head on the same features
    assert len(found.points) == len(world.project.registry.versions())


def test_images_that_an_older_backbone_never_saw_are_unknown_to_it(world: LearningWorld, tmp_path: Path) -> None:
    live = world.live()
    new = world.uris(*JUDGING)[4 * RANDOM : 4 * RANDOM + 3]
    uris = sorted({*world.labels, *new})
    rows = world.project.features(live.backbone).rows(uris)
    FeatureStore(world.project.store, "tuned", tmp_path).add(stamp(), uris, ["e"] * len(uris), rows)
    deployed(world, backbone="tuned", like=live)
    index = world.project.features(live.backbone).index
    for uri in new:
        del index.places[uri]
    before = dict(world.labels)
    world.label(new)
    found = followed(world)
    world.labels = before
    assert found.points[0].wrong.count(UNKNOWN) == 3
    assert found.points[0].judged == found.points[-1].judged - 3


def test_classes_are_read_as_they_are_called_now(world: LearningWorld) -> None:
    found = followed(world)
    renamed = world.config.model_copy(update={"label_map": {"3": "8"}})
    world.project.record = replace(world.project.record, config=renamed)
    merged = followed(world)
    assert all((m.accuracy or 0) >= (p.accuracy or 0) for m, p in zip(merged.points, found.points, strict=True))
    assert "3" not in merged.waiting


def test_classes_below_the_minimum_and_images_that_are_left(world: LearningWorld) -> None:
    found = followed(world)
    assert found.waiting == {}
    train = len(world.uris(Split.TRAIN))
    assert found.left == train - 4 * TRAIN
    before = dict(world.labels)
    world.labels = {u: label for u, label in before.items() if label != "7"}
    world.freeze(world.labels)
    assert followed(world).waiting == {"7": 0}
    world.labels = before


def test_many_versions_are_thinned_evenly_and_end_with_the_live_one(world: LearningWorld) -> None:
    like = world.live()
    line = [replace(like, number=i, evaluation=replace(like.evaluation, labels=i)) for i in range(1, 200)]
    found = thinned(line, line[149])
    assert len(found) <= VERSIONS
    assert found[-1].number == 150
    assert max(v.number for v in found) == 150
    assert max(np.diff([v.number for v in found])) <= 7
    assert thinned(line[:5], line[4]) == line[:5]


def test_who_has_labelled_the_same_image() -> None:
    def task(number: int, *given: tuple[int | None, str | None, str, bool]) -> Task:
        made = [Annotation(i, at, at, label, cancelled=gone, completed_by=by)
                for i, (by, label, at, gone) in enumerate(given)]  # fmt: skip
        return Task(number, "u", "t", tuple(made))

    tasks = [
        task(1, (1, "a", "1", False), (2, "a", "1", False)),
        task(2, (1, "a", "1", False), (2, "b", "1", False)),
        task(3, (1, "a", "1", False), (1, "b", "2", False)),  # one person who changed their mind
        task(4, (1, "b", "1", False), (1, "a", "2", False), (2, "a", "1", False)),
        task(5, (1, "a", "1", False), (2, "b", "1", True)),  # skipped
        task(6, (None, "a", "1", False), (2, "b", "1", False)),  # nobody's
    ]
    assert twice(tasks) == (3, 1)


# --- jobs


def test_a_curve_that_fails_fails_no_job(world: LearningWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("broken")

    context: Any = SimpleNamespace(project=lambda _: world.project, redis=world.context.redis)
    monkeypatch.setattr("retrain_worker.jobs.context", lambda: context)
    monkeypatch.setattr("retrain_worker.evidence.curve.keep_curve", broken)
    assert jobs.score("p", world.live().name)["places"] > 0
    monkeypatch.undo()
    monkeypatch.setattr("retrain_worker.jobs.context", lambda: context)
    with pytest.raises(NotFoundError):
        kept_curve(world.project.store)
    jobs.score("p", world.live().name)
    assert kept_curve(world.project.store).live == world.live().name


def test_a_refresh_that_is_held_moves_the_curve_too(world: LearningWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """New random labels judge the versions there are; no `score` follows."""
    context: Any = SimpleNamespace(project=lambda _: world.project, redis=world.context.redis)
    monkeypatch.setattr("retrain_worker.jobs.context", lambda: context)
    before = dict(world.labels)
    more = world.label(world.uris(*JUDGING)[4 * RANDOM : 5 * RANDOM])
    assert jobs.refresh("p", more, 1)["outcome"] == "hold"
    world.labels = before
    assert kept_curve(world.project.store).images == 5 * RANDOM


# --- what people see


def page(target: float | None = 0.88, images: int = 300, **more: Any) -> CurvePage:
    found = kept(points(power(0.3, 0.5), images), **more)
    return CurvePage("pets", found, outlook(found, Stop(target=target), quota=0.1))


def shown(found: CurvePage, width: int = 100) -> str:
    return printed(curve_view(found), width)


def printed(what: Any, width: int = 140) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(what)
    return console.export_text()


def test_the_page_shows_curve_points_forecast_and_advice() -> None:
    text = shown(page())
    for part in (
        "pets: about ",
        "●",
        "░",
        "─",
        "v19 ● live",
        "+100",
        "go on: about",
        "train labels",
        "10 of the audit",
    ):
        assert part in text
    assert max(len(line.rstrip()) for line in text.splitlines()[2:22]) <= 80


def test_the_page_of_little_evidence_shows_no_forecast() -> None:
    text = shown(page(images=14))
    assert "too little evidence: 14 random labels" in text
    assert "░" not in text.splitlines()[5]
    assert "gain in points" not in text
    assert "cannot tell" in text


def test_without_any_random_label_there_is_still_a_page() -> None:
    found = kept(points(power(0.3, 0.5), 12), test=0, audit=0, points=())
    text = shown(CurvePage("pets", found, outlook(found, Stop(), quota=0.1)))
    assert "0 random labels" in text


def test_for_machines() -> None:
    found = json.loads(json.dumps(page().to_json()))
    assert found["advice"]["act"] == "go on"
    assert found["ahead"][1]["more"] == 100
    assert found["labels_to_target"]["middle"] > 0
    assert found["points"][-1]["accuracy"] == pytest.approx(0.85, abs=0.06)
    assert json.loads(json.dumps(page(images=14).to_json()))["now"] is None


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    plot_learning_curve(page(), tmp_path / "curve.png")
    plot_learning_curve(page(target=None, images=14), tmp_path / "curve.svg")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (tmp_path / "curve.svg").read_text()
    with pytest.raises(LabelloopError, match=r"\.png or \.svg"):
        plot_learning_curve(page(), tmp_path / "curve.pdf")


def test_the_command_reads_what_a_worker_kept_and_asks_for_another_target() -> None:
    world = OpsWorld(stop={"target": 0.88})
    keep_curve(world.store, kept(points(power(0.3, 0.5), 300)))
    assert learning_curve(world.deployment, world.record, curve_here).outlook.target == 0.88
    other = learning_curve(world.deployment, world.record, curve_here, target=0.6)
    assert other.outlook.target == 0.6
    assert other.outlook.sentence.startswith("60 % is reached")


def test_the_command_judges_all_versions_where_nobody_has(tmp_path: Path) -> None:
    world = OpsWorld()
    with pytest.raises(NotFoundError, match="no model yet"):
        learning_curve(world.deployment, world.record, curve_here)
    names = [f"{i}.png" for i in range(6)]
    world.images(names, Split.TEST, tmp=tmp_path)
    for i, name in enumerate(names):
        world.answer(i, name, "cat" if i < 4 else "dog")
    world.deploy(world.version(world.freeze().id))
    settings = replace(world.deployment.settings, cache_dir=tmp_path / "cache")
    deployment = replace(world.deployment, settings=settings)
    made = learning_curve(deployment, world.record, curve_here)
    assert (made.kept.test, made.kept.audit) == (6, 0)
    assert made.kept.points[0].accuracy == pytest.approx(4 / 6)  # its head always names the first class
    assert kept_curve(world.store) == made.kept
    world.answer(7, names[0], "dog", minute=5)
    assert learning_curve(deployment, world.record, curve_here).kept == made.kept
    assert learning_curve(deployment, world.record, curve_here, anew=True).kept.at > made.kept.at


def test_status_has_one_line_of_it() -> None:
    world = OpsWorld(stop={"target": 0.88})
    stores = _Stores(world.deployment, world.record)
    assert stores._forecast() is None
    keep_curve(world.store, kept(points(power(0.3, 0.5), 300)))
    found = stores._forecast()
    assert found is not None
    assert stores._forecast() is found  # worked out once
    stores.record = replace(world.record, config=world.record.config.model_copy(update={"stop": Stop(target=0.9)}))
    assert stores._forecast() is not found
    world.store.put(KEY, b"{")
    assert stores._forecast() is None


def test_the_line_stands_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    world = OpsWorld(stop={"target": 0.88})
    keep_curve(world.store, kept(points(power(0.3, 0.5), 300)))
    monkeypatch.setattr("operations.status.alive", lambda _: {})
    monkeypatch.setattr(StatusReader, "_studio_version", lambda _: "1.0")
    monkeypatch.setattr(world.deployment.queue, "depths", dict, raising=False)
    monkeypatch.setattr(world.deployment.queue, "jobs", list, raising=False)
    text = printed(render(StatusReader(world.deployment).read()))
    assert "enough?" in text
    assert "go on: about" in text


def test_the_policy_is_no_part_of_what_a_run_is_named_by() -> None:
    config = OpsWorld().record.config
    assert config.hash == config.model_copy(update={"stop": Stop(target=0.9, gain=0.1)}).hash
