"""Classes renamed, merged and dropped over real stores: what is queued, what is learned, what is compared."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelloop.clock import now, stamp
from labelloop.config.project import BackboneSpec, parse_config
from labelloop.config.settings import load_settings
from labelloop.images.reader import ImageReader
from labelloop.labels.results import make_label_config
from labelloop.model import net
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store
from labelloop.queue.connection import connect
from labelloop.queue.jobs import REFRESH, JobQueue
from labelloop.records.evidence import Outcome
from labelloop.records.images import ImageFacts, Split
from labelloop.records.snapshots import Latest, Snapshot
from labelloop.records.tasks import Annotation, Task
from labelloop.rules.schema import LabelRules
from labelloop.store.projects import ProjectRecord, ProjectStore
from labelloop.store.registry import Registry
from labelloop.store.requests import RequestStore
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from retrain_worker.context import Context, ProjectContext
from retrain_worker.refresh import RunResult, refresh
from retrain_worker.score import score
from sync.plan import Planner, TurnPlan
from tests.integration.conftest import KEYS

CLASSES = ("cat", "dog", "fox", "owl")
PER_CLASS = 15
CONFIG = parse_config({"refresh": {"throttle_s": 0}}, "the test")


class World:
    """A project with 60 labelled images, whose features tell the classes apart."""

    def __init__(self, s3_endpoint: str, valkey_url: str, cache: Path) -> None:
        settings = load_settings({
            "LABELLOOP_S3_ENDPOINT": s3_endpoint, **KEYS,
            "LABELLOOP_STATE_BUCKET": f"state-{uuid.uuid4().hex[:8]}", "LABELLOOP_REDIS_URL": valkey_url,
            "LABELLOOP_CACHE_DIR": str(cache),
        })  # fmt: skip
        s3 = s3_client(settings)
        s3.create_bucket(Bucket=settings.state_bucket)
        self.store, self.redis = S3Store(s3, settings.state_bucket), connect(valkey_url)
        self.projects = ProjectStore(self.store, "main")
        number = uuid.uuid4().int % 10**6
        self.record = ProjectRecord("main", number, 1, "t", CONFIG, make_label_config(CLASSES), "s3://images/t/")
        self.projects.put(self.record)
        self.context = Context(settings, self.redis, self.store, ImageReader(s3, ()))
        self.queue = JobQueue(self.redis)
        self._fill(self.project)

    @property
    def project(self) -> ProjectContext:
        return self.context.project(self.record.key)

    def decide(self, label_map: dict[str, str | None], *classes: str) -> None:
        config = parse_config({**CONFIG.model_dump(mode="json"), "label_map": label_map}, "the test")
        self.record = replace(self.record, config=config, label_config=make_label_config(classes))
        self.projects.put(self.record)

    def learn(self) -> RunResult:
        return refresh(self.context, self.project, self.snapshot.id)

    def plan(self) -> TurnPlan:
        project = self.project
        planner = Planner(
            project.record, RunStore(project.store), RequestStore(project.store), self.queue, project.snapshots,
            project.registry,
        )  # fmt: skip
        project.catalogue.update()
        live = project.registry.live()
        version = project.registry.version(live.version) if live else None
        backbone = project.registry.current_backbone()
        assert backbone is not None
        return planner.plan(self.snapshot, version, project.catalogue, project.features(backbone.id).index)

    def queued(self) -> list[str]:
        return list(self.queue.active(REFRESH, self.record.key))

    def _fill(self, project: ProjectContext) -> None:
        backbone = net.build(BackboneSpec(name="pixels", options={"projection": 16}), [])
        project.registry.add_backbone(backbone.record, net.dump(backbone))
        project.registry.set_initial_backbone(backbone.record)
        chance = np.random.default_rng(0)
        centres = chance.normal(size=(len(CLASSES), backbone.record.dimension)) * 2
        tasks, facts, rows = [], [], []
        for i in range(PER_CLASS * len(CLASSES)):
            uri, label = f"s3://images/t/{i}", CLASSES[i % len(CLASSES)]
            bucket = Split.TEST if i % 5 == 0 else Split.TRAIN
            facts.append(ImageFacts(uri, "e", f"h{i}", f"h{i}", bucket))
            rows.append(centres[i % len(CLASSES)] + chance.normal(size=backbone.record.dimension))
            tasks.append(Task(i + 1, uri, now(), (Annotation(i + 1, now(), now(), label),)))
        project.catalogue.add(facts, stamp())
        project.features(backbone.record.id).add(
            stamp(), [f.uri for f in facts], ["e"] * len(facts), np.array(rows, dtype=np.float32)
        )
        self.snapshot: Snapshot = project.snapshots.freeze(tasks)
        project.snapshots.set_latest(Latest(self.snapshot.id, 1, "", now(), len(tasks)))


@pytest.fixture
def world(s3_endpoint: str, valkey_url: str, tmp_path: Path) -> Iterator[World]:
    loop = World(s3_endpoint, valkey_url, tmp_path / "cache")
    judged = loop.learn()
    assert judged.version == "v1"
    yield loop
    loop.redis.close()


def test_a_removed_class_holds_learning_until_it_is_decided(world: World) -> None:
    world.decide({}, "feline", "dog", "fox", "owl")
    plan = world.plan()
    assert (
        plan.decision.waiting
        == "class 'cat' (15 labels) is no longer in the label config: decide with `labelloop schema`"
    )
    assert world.queued() == []
    world.decide({"cat": "feline"}, "feline", "dog", "fox", "owl")
    plan = world.plan()
    assert plan.decision.waiting is None
    assert plan.progress.labels["feline"] == 12
    assert len(world.queued()) == 1


def test_after_a_rename_the_next_version_speaks_the_new_names_and_nothing_else_changes(world: World) -> None:
    world.decide({"cat": "feline"}, "feline", "dog", "fox", "owl")
    judged = world.learn()
    assert judged.verdict.outcome is Outcome.PROMOTE
    assert judged.version == "v2"
    evaluation = judged.evaluation
    assert (evaluation.new_labels, evaluation.renamed) == (0, ("cat", "feline"))
    assert evaluation.comparison is not None
    assert evaluation.comparison.changed == 0
    assert evaluation.test_comparison is not None
    assert (evaluation.test_comparison.n, evaluation.test_comparison.changed) == (12, 0)
    registry = Registry(world.project.store, world.project.registry.lease)
    assert registry.version("v2").labels == ("dog", "feline", "fox", "owl")
    assert world.learn().verdict.reasons == ("no new labels since the champion",)


def test_after_a_merge_both_classes_are_learned_as_one(world: World) -> None:
    world.decide({"fox": "dog"}, "cat", "dog", "owl")
    judged = world.learn()
    assert judged.verdict.outcome is Outcome.PROMOTE
    evaluation = judged.evaluation
    assert evaluation.classes == ("cat", "dog", "owl")
    assert evaluation.labels == 48
    assert evaluation.test_comparison is not None
    assert evaluation.test_comparison.champion == pytest.approx(evaluation.test_comparison.challenger, abs=0.1)


def test_after_a_drop_its_labels_neither_train_nor_judge(world: World) -> None:
    world.decide({"owl": None}, "cat", "dog", "fox")
    judged = world.learn()
    assert judged.verdict.outcome is Outcome.PROMOTE
    evaluation = judged.evaluation
    assert (evaluation.labels, evaluation.test_n, evaluation.classes) == (36, 9, ("cat", "dog", "fox"))
    world.decide({}, *CLASSES)  # taken back
    back = world.learn()
    assert (back.verdict.outcome, back.evaluation.labels) == (Outcome.PROMOTE, 48)


def test_the_order_of_an_older_version_is_made_under_the_new_names(world: World) -> None:
    project = world.project
    empty = project.snapshots.freeze([])
    project.snapshots.set_latest(Latest(empty.id, 2, "", now(), 0))
    world.decide({"cat": "feline", "fox": "dog"}, "feline", "dog", "owl")
    assert score(world.context, world.project, "v1") == 60
    scores = world.project.scores.newest("v1")
    assert scores is not None
    assert {p.label for p in scores.places} == {"feline", "dog", "owl"}


def test_a_run_can_be_repeated_from_the_snapshot_and_its_config(world: World) -> None:
    world.decide({"cat": "feline"}, "feline", "dog", "fox", "owl")
    one = world.learn().evaluation
    world.record = replace(world.record, label_config=make_label_config(("other", "names")))
    world.projects.put(world.record)  # what Label Studio offers has no say in what is learned
    kept = SnapshotStore(world.project.store).load(world.snapshot.id)
    assert kept.labels()["s3://images/t/0"] == "cat"
    assert LabelRules(world.record.config.label_map).read(kept).labels()["s3://images/t/0"] == "feline"
    assert world.learn().evaluation.classes == one.classes
