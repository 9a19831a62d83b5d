"""What is queued is derived from stores alone: nothing twice, nothing forgotten, failures counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

import sync.plan
from labelloop.code import code_version
from labelloop.config.project import parse_config
from labelloop.labels.results import make_label_config
from labelloop.objects.storage import MemoryStore
from labelloop.queue.jobs import JobKind
from labelloop.records.images import ImageFacts, Split
from labelloop.records.runs import AGAIN, WITHOUT
from labelloop.records.snapshots import Snapshot
from labelloop.records.tasks import Annotation, Task
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureIndex, FeatureStore
from labelloop.store.pauses import PauseStore
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import Registry
from labelloop.store.requests import RequestStore
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from sync.plan import Planner, TurnPlan

CONFIG = parse_config({"refresh": {"after": 4, "throttle_s": 0}}, "the test")
RECORD = ProjectRecord("main", 1, 0, "t", CONFIG, make_label_config(["cat", "dog"]), "s3://images/t/")


@dataclass
class FakeQueue:
    """Remembers what was queued, until the test says that it has ended."""

    jobs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    workers: set[str] = field(default_factory=set)  # whose heartbeat says that they run one

    def enqueue(self, _kind: JobKind, job_id: str, payload: Mapping[str, Any]) -> bool:
        if job_id in self.jobs:
            return False
        self.jobs[job_id] = payload
        return True

    def active(self, kind: JobKind, project: str) -> list[str]:
        return [i for i in self.jobs if i.startswith(f"{kind.name}_{project}_")]

    def at_work(self, _kind: JobKind, _project: str) -> set[str]:
        return self.workers


@contextmanager
def lease(_name: str) -> Iterator[int]:
    yield 1


class World:
    """One project whose images all train and have features."""

    def __init__(self) -> None:
        self.store, self.queue = MemoryStore(), FakeQueue()
        self.runs, self.snapshots = RunStore(self.store), SnapshotStore(self.store)
        self.requests, self.catalogue = RequestStore(self.store), Catalogue(self.store)
        self.index = FeatureIndex(self.store, "b")
        self.labels: list[str] = []
        self.planner = self.restarted()

    def restarted(self) -> Planner:
        registry = Registry(self.store, lease)
        return Planner(RECORD, RunStore(self.store), self.requests, self.queue, SnapshotStore(self.store), registry)  # type: ignore[arg-type]

    def label(self, *names: str, tmp: Any) -> None:

        uris = [f"s3://images/t/{len(self.labels) + i}" for i in range(len(names))]
        self.catalogue.add([ImageFacts(u, "e", u, u, Split.TRAIN) for u in uris], f"s{len(self.labels)}")
        rows = np.zeros((len(uris), 2), dtype=np.float32)
        FeatureStore(self.store, "b", tmp).add(f"s{len(self.labels)}", uris, ["e"] * len(uris), rows)
        self.labels += names

    def plan(self) -> TurnPlan:
        self.catalogue.update()
        self.index.update()
        return self.planner.plan(self.snapshot(), None, self.catalogue, self.index)

    def snapshot(self) -> Snapshot:
        tasks = [
            Task(i, f"s3://images/t/{i}", "t", (Annotation(i, "t", "t", name),)) for i, name in enumerate(self.labels)
        ]
        return self.snapshots.freeze(tasks)

    def finish(self, outcome: str, kind: str = "refresh", detail: dict[str, Any] | None = None) -> None:
        (job_id, payload) = self.queue.jobs.popitem()
        assert job_id.startswith(kind)
        run = self.runs.start(
            kind, snapshot=payload["snapshot"], config=CONFIG.hash, attempt=payload["attempt"], worker="w",
            answers=payload["answers"],
        )  # fmt: skip
        self.runs.end(run, outcome, ("because",), detail=detail)


@pytest.fixture
def world() -> World:
    return World()


def test_a_batch_is_queued_once_and_not_again_until_the_next(world: World, tmp_path: Any) -> None:
    world.label("cat", "cat", "dog", tmp=tmp_path)
    assert world.plan().decision.until_refresh == 1
    assert world.queue.jobs == {}
    world.label("dog", tmp=tmp_path)
    assert world.plan().running == ("refresh",)
    world.plan()
    assert len(world.queue.jobs) == 1
    world.finish("promote")
    assert world.plan().running == ()
    world.label("cat", "dog", "cat", tmp=tmp_path)
    assert world.plan().decision.until_refresh == 1
    world.label("dog", tmp=tmp_path)
    assert world.plan().running == ("refresh",)


def test_a_held_run_is_not_tried_again_on_the_same_labels(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    world.finish("hold")
    assert world.plan().running == ()
    world.planner = world.restarted()
    assert world.plan().running == ()


def test_a_lost_queue_is_derived_again(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    world.queue.jobs.clear()
    assert world.plan().running == ("refresh",)
    assert len(world.queue.jobs) == 1


def test_a_second_try_waits_a_little(world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    world.finish("failed")
    assert world.plan().running == ()
    moment = sync.plan.time.monotonic()
    monkeypatch.setattr(sync.plan.time, "monotonic", lambda: moment + 2.1)
    assert world.plan().running == ("refresh",)


def test_what_a_store_has_failed_is_tried_until_it_works(
    world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync.plan, "RETRY_CAP_S", 0)
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    for _ in range(5):
        assert world.plan().running == ("refresh",)
        world.finish("failed", detail={"transient": True})
    assert world.plan().running == ("refresh",)


def test_failures_are_tried_again_and_then_held_visibly(
    world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync.plan, "RETRY_CAP_S", 0)
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    ids = []
    for _ in range(3):
        assert world.plan().running == ("refresh",)
        ids += list(world.queue.jobs)
        world.finish("failed")
    assert len(set(ids)) == 3
    held = world.plan()
    assert held.running == ()
    assert held.decision.waiting is not None
    assert "failed 3 times" in held.decision.waiting
    world.label(*["cat", "dog"] * 2, tmp=tmp_path)
    assert world.plan().running == ("refresh",)


def asked_to_retrain(world: World, tmp_path: Any) -> str:
    """A person wants a retrain; the snapshot it was queued on, as if it had been lost since."""
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    world.finish("promote")
    world.requests.add("retrain", by="a person")
    world.plan()
    return str(next(iter(world.queue.jobs.values()))["snapshot"])


def test_a_retrain_that_died_goes_on_with_its_snapshot_though_people_label(
    world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync.plan, "RETRY_CAP_S", 0)
    first = asked_to_retrain(world, tmp_path)
    world.finish("failed", "retrain")
    world.label("dog", tmp=tmp_path)
    assert world.plan().running == ("retrain",)
    (payload,) = world.queue.jobs.values()
    assert (payload["snapshot"], payload["attempt"]) == (first, 2)
    assert first != world.snapshot().id
    world.finish("promote", "retrain")
    world.requests.add("retrain", by="a person")
    world.plan()
    assert next(iter(world.queue.jobs.values()))["snapshot"] == world.snapshot().id


def test_who_asks_again_does_not_wait_for_what_went_well(world: World, tmp_path: Any) -> None:
    asked_to_retrain(world, tmp_path)
    for _ in range(4):
        world.finish("hold", "retrain")
        world.requests.add("retrain", by="a person")
        assert world.plan().running == ("retrain",)


def test_a_retrain_that_always_fails_is_held_though_people_label(
    world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync.plan, "RETRY_CAP_S", 0)
    asked_to_retrain(world, tmp_path)
    for _ in range(3):
        assert world.plan().running == ("retrain",)
        world.finish("failed", "retrain")
        world.label("cat", tmp=tmp_path)
    held = world.plan()
    assert held.running == ()
    assert "retrain failed 3 times: on hold until the config or the code change" in str(held.decision.waiting)
    world.requests.add("retry", by="a person", about="retrain")
    assert world.plan().running == ("retrain",)
    (payload,) = world.queue.jobs.values()
    assert (payload["snapshot"], payload["attempt"]) == (world.snapshot().id, 1)  # what was mended may be labels


def test_only_what_a_fine_tune_runs_is_an_upgrade(world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_to_retrain(world, tmp_path)
    world.finish("promote", "retrain")
    assert world.runs.all()[-1].code == code_version()
    assert not world.plan().progress.upgraded
    monkeypatch.setattr(sync.plan, "training_code", lambda: "another")
    assert world.plan().progress.upgraded


def test_images_count_since_the_last_retrain_began(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    assert world.plan().progress.new_images == 0  # before the first
    for known, more in ((None, 0), (4, 2), (9, 0)):
        run = world.runs.start("retrain", snapshot="s", config="c", attempt=1, worker="w", images=known)
        world.runs.end(run, "promote", ("because",))
        assert world.plan().progress.new_images == more


def test_after_a_thousand_tries_the_planner_still_counts(world: World) -> None:
    world.planner._tried["refresh"] = sync.plan.time.monotonic()
    assert world.planner._rests("refresh", 2000)


def test_labels_without_features_hold_up_nothing_and_are_named(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.labels += ["cat"]
    plan = world.plan()
    assert plan.running == ("refresh",)
    assert plan.decision.waiting is None
    assert plan.without == ((6, "s3://images/t/6"),)


def test_labels_count_as_new_when_their_features_come(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.labels += ["cat"] * 3
    world.plan()
    world.finish("promote", detail={WITHOUT: [f"s3://images/t/{i}" for i in (6, 7, 8)]})
    assert world.plan().progress.changes == 0
    uris = [f"s3://images/t/{i}" for i in (6, 7, 8)]
    FeatureStore(world.store, "b", tmp_path).add("s9", uris, ["e"] * 3, np.zeros((3, 2), dtype=np.float32))
    assert world.plan().progress.changes == 3


def test_a_damaged_older_snapshot_makes_nothing_new(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    judged = world.snapshot()
    world.finish("promote")
    world.store.put(f"snapshots/manifests/{judged.id}.json", b"{}")
    world.planner = world.restarted()
    world.label("cat", tmp=tmp_path)
    assert world.plan().progress.changes == 7  # the times of this world cannot be read: nothing is known to be old


def test_a_run_or_wish_that_cannot_be_read_stops_no_plan(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.store.put("runs/20260101T000000000000-abcdef-refresh.json", b"\xff")
    world.store.put("requests/20260101T000000000000-abcdef.json", b"[1]")
    assert world.plan().running == ("refresh",)


def test_a_dead_workers_run_counts_as_failed(world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync.plan, "ORPHANED_S", -1)
    monkeypatch.setattr(sync.plan, "RETRY_CAP_S", 0)
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    payload = world.queue.jobs.popitem()[1]
    world.runs.start("refresh", snapshot=payload["snapshot"], config=CONFIG.hash, attempt=1, worker="dead")
    world.planner.clean()
    assert [r.outcome for r in RunStore(world.store).all()] == ["failed"]
    assert world.plan().running == ("refresh",)
    assert next(iter(world.queue.jobs.values()))["attempt"] == 2


def test_a_persons_wish_is_kept_until_a_run_has_answered_it(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    world.finish("promote")
    world.requests.add("retrain", by="a person")
    assert world.plan().running == ("retrain",)
    world.queue.jobs.clear()
    world.planner = world.restarted()
    assert world.plan().running == ("retrain",)
    world.finish("hold", "retrain")
    assert world.plan().running == ()
    assert world.requests.open() == []


def planner_of(world: World, label_map: dict[str, str | None], *classes: str) -> tuple[Planner, str]:
    config = parse_config({**CONFIG.model_dump(mode="json"), "label_map": label_map}, "the test")
    record = replace(RECORD, config=config, label_config=make_label_config(classes))
    registry = Registry(world.store, lease)
    planner = Planner(record, RunStore(world.store), world.requests, world.queue, world.snapshots, registry)  # type: ignore[arg-type]
    return planner, config.hash


def test_labels_of_a_class_that_is_gone_hold_everything_until_they_are_decided(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog", "owl"] * 4, tmp=tmp_path)
    world.planner, _ = planner_of(world, {}, "dog", "owl", "feline")
    plan = world.plan()
    assert plan.running == ()
    waiting = "class 'cat' (4 labels) is no longer in the label config: decide with `labelloop schema`"
    assert plan.decision.waiting == waiting
    world.planner, _ = planner_of(world, {"cat": "feline"}, "dog", "owl", "feline")
    plan = world.plan()
    assert plan.running == ("refresh",)
    assert plan.progress.labels == {"dog": 4, "owl": 4, "feline": 4}


def test_a_class_without_labels_may_go_and_a_merged_one_is_not_waited_for(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 4, tmp=tmp_path)
    world.planner, _ = planner_of(world, {}, "cat", "dog")  # owl went
    assert world.plan().progress.undecided == ()
    world.planner, _ = planner_of(world, {"kitten": "cat"}, "cat", "dog", "kitten")
    assert world.plan().progress.labels == {"cat": 4, "dog": 4}


def test_a_decision_that_is_taken_back_is_learned_again(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 4, tmp=tmp_path)
    for label_map, classes in (({}, ("cat", "dog")), ({"cat": "feline"}, ("dog", "feline")), ({}, ("cat", "dog"))):
        world.planner, config = planner_of(world, label_map, *classes)  # type: ignore[arg-type]
        assert world.plan().running == ("refresh",)
        (_, payload) = world.queue.jobs.popitem()
        run = world.runs.start("refresh", snapshot=payload["snapshot"], config=config, attempt=1, worker="w")
        world.runs.end(run, "promote", ("because",))
        assert world.plan().running == ()


def test_a_retry_lifts_the_hold_until_a_run_succeeds(
    world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync.plan, "RETRY_CAP_S", 0)
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    for _ in range(3):
        world.plan()
        world.finish("failed")
    assert world.plan().running == ()
    world.requests.add("retry", by="a person", about="retrain")
    assert world.plan().running == ()  # about something else
    world.requests.add("retry", by="a person", about="refresh")
    ids = []
    for _ in range(3):
        assert world.plan().running == ("refresh",)
        ids += list(world.queue.jobs)
        world.finish("failed")
    assert [name.rsplit("_", 1)[1] for name in ids] == ["4", "5", "6"]
    assert "labelloop queue retry" in str(world.plan().decision.waiting)
    world.requests.add("retry", by="a person", about="refresh")
    world.planner = world.restarted()
    assert world.plan().running == ("refresh",)
    world.finish("promote")
    world.plan()
    assert [w.about for w in world.requests.open()] == ["retrain"]


def test_a_pause_keeps_everything_from_being_queued_and_is_told(
    world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync.plan, "RETRY_CAP_S", 0)
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.requests.add("retrain", by="a person")
    pauses = PauseStore(world.store)
    pauses.pause(by="anna", why="under review")
    paused = world.plan()
    assert (paused.running, paused.decision.until_refresh) == ((), 0)
    assert "learning is paused by anna" in str(paused.decision.waiting)
    assert "under review" in paused.facts()["waiting"]
    pauses.resume()
    assert world.plan().running == ("refresh", "retrain")


def test_what_a_pause_held_back_is_run_again_afterwards(
    world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync.plan, "RETRY_CAP_S", 0)
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    PauseStore(world.store).pause(by="anna")
    world.finish("hold", detail={AGAIN: True})
    assert world.plan().running == ()
    PauseStore(world.store).resume()
    assert world.plan().running == ("refresh",)
    assert next(iter(world.queue.jobs)).endswith("_2")
