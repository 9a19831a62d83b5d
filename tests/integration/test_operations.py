"""Failed jobs and pauses on a real Valkey server, with a real worker's code in between."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import retrain_worker.jobs
import retrain_worker.refresh
from cli.commands.simulate import _agree
from cli.main import app
from labelloop.clock import now
from labelloop.config.project import Gate, parse_config
from labelloop.config.settings import load_settings
from labelloop.errors import LabelloopError, NotFoundError
from labelloop.labels.results import make_label_config
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import MemoryStore, S3Store
from labelloop.queue.connection import connect
from labelloop.queue.heartbeat import Heartbeat, alive
from labelloop.queue.jobs import FEATURISE, REFRESH, JobQueue, job_id
from labelloop.records.evidence import Evaluation, Verdict
from labelloop.records.images import ImageFacts, Split
from labelloop.records.snapshots import Latest
from labelloop.records.tasks import Annotation, Task
from labelloop.records.versions import BackboneRecord
from labelloop.rules.gate import judge
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureStore
from labelloop.store.projects import ProjectRecord, ProjectStore
from labelloop.store.requests import RequestStore
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment
from operations.history.jobs import discard, failed_jobs, holds, read_queue, retry
from operations.models.learning import pause, resume
from retrain_worker.context import Context
from tests.integration.conftest import KEYS
from tests.integration.test_queue import start_worker, until

CONFIG = parse_config({"name": "pets"}, "the test")
RECORD = ProjectRecord("main", 1, 0, "pets", CONFIG, make_label_config(["cat", "dog"]), "s3://images/t/")


class World:
    """A project with features and labels, no server but Valkey."""

    def __init__(self, url: str, cache: Path) -> None:
        self.url, self.root = url, MemoryStore()
        self.queue = JobQueue(connect(url))
        self.queue.redis.flushall()
        projects = ProjectStore(self.root, "main")
        projects.put(RECORD)
        settings = load_settings({"LABELLOOP_REDIS_URL": url, "LABELLOOP_CACHE_DIR": str(cache)})
        nothing: Any = None
        self.deployment = Deployment(settings, nothing, self.root, self.queue, projects)
        self.store = self.deployment.within(RECORD)
        self.registry = self.deployment.registry(RECORD)
        self.runs = RunStore(self.store)
        self.context = Context(settings, self.queue.redis, self.root, nothing)
        self._learnable(cache)

    def _learnable(self, cache: Path) -> None:
        rng = np.random.default_rng(0)
        uris = [f"s3://images/t/{i}.png" for i in range(40)]
        rows = np.array([[i % 2, 1 - i % 2] for i in range(40)], dtype=np.float32)
        rows += rng.normal(size=rows.shape).astype(np.float32) * 0.1
        record = BackboneRecord("b", "pixels", {}, {}, 2, "", "made up")
        self.registry.add_backbone(record, b"")
        self.registry.set_initial_backbone(record)
        Catalogue(self.store).add([ImageFacts(u, "e", u, u, Split.TRAIN) for u in uris], "1")
        FeatureStore(self.store, "b", cache / "made").add("1", uris, ["e"] * 40, rows)
        tasks = [Task(i, u, now(), (Annotation(i, now(), now(), ["cat", "dog"][i % 2]),)) for i, u in enumerate(uris)]
        snapshots = SnapshotStore(self.store)
        self.snapshot = snapshots.freeze(tasks).id
        snapshots.set_latest(Latest(self.snapshot, 1, "c", now(), 40))

    def refresh(self) -> dict[str, Any]:
        """What a worker does with the job."""
        return retrain_worker.jobs.refresh(RECORD.key, self.snapshot, 1)


@pytest.fixture
def world(valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(valkey_url, tmp_path)
    monkeypatch.setattr(retrain_worker.jobs, "context", lambda: world.context)
    yield world
    world.queue.redis.close()


@pytest.fixture
def worker(world: World) -> Iterator[subprocess.Popen[bytes]]:
    process = start_worker(world.url)
    assert until(lambda: any(name.startswith("worker:") for name in alive(world.queue.redis)))
    yield process
    process.terminate()
    process.wait(10)


def fail(world: World, *names: str) -> None:
    """Jobs that fail on a worker which expects a number."""
    for name in names:
        kind = FEATURISE if name == "other" else REFRESH
        world.queue.enqueue(REFRESH, job_id(kind, RECORD.key, name), {"project": RECORD.key, "seconds": "ten"})
    assert until(lambda: len(failed_jobs(world.deployment, [RECORD])) == len(names))


def hold(world: World) -> None:
    for attempt in range(1, 4):
        run = world.runs.start("refresh", snapshot=world.snapshot, config=CONFIG.hash, attempt=attempt, worker="w")
        world.runs.end(run, "failed", ("out of order",))


def test_a_failed_job_is_told_whole_and_discarded(world: World, worker: subprocess.Popen[bytes]) -> None:
    fail(world, "one", "two")
    jobs = failed_jobs(world.deployment, [RECORD])
    assert all("Traceback" in j.error and j.why.startswith("ValueError") for j in jobs)
    assert {j.payload["seconds"] for j in jobs} == {"ten"}
    assert all(j.worker and j.failed_at for j in jobs)
    assert failed_jobs(world.deployment, []) == []
    with pytest.raises(LabelloopError, match="say which"):
        discard(world.deployment, [RECORD], [], everything=False)
    with pytest.raises(NotFoundError, match="2 failed jobs"):
        discard(world.deployment, [RECORD], ["refresh_main"], everything=False)
    assert discard(world.deployment, [RECORD], ["_one"], everything=False) == [job_id(REFRESH, RECORD.key, "one")]
    assert [j.id for j in failed_jobs(world.deployment, [RECORD])] == [job_id(REFRESH, RECORD.key, "two")]
    assert len(discard(world.deployment, [RECORD], [], everything=True)) == 1
    with pytest.raises(LabelloopError, match="nothing has failed"):
        discard(world.deployment, [RECORD], [], everything=True)


def test_a_recorded_run_is_left_to_the_watcher_and_its_hold_is_lifted(
    world: World, worker: subprocess.Popen[bytes]
) -> None:
    hold(world)
    fail(world, "one")
    assert [h.failed for h in holds(world.deployment, RECORD)] == [3]
    retried = retry(world.deployment, [RECORD], ["refresh"], everything=False, by="anna")
    assert retried.derived == (job_id(REFRESH, RECORD.key, "one"),)
    assert (retried.requeued, retried.lifted, retried.watched) == ((), ("refresh of pets",), False)
    assert [(w.what, w.about, w.by) for w in RequestStore(world.store).open()] == [("retry", "refresh", "anna")]
    assert holds(world.deployment, RECORD) == []
    page = read_queue(world.deployment, [RECORD])
    assert (page.jobs, page.holds) == ((), ())
    assert page.workers["refresh"] == 1


def test_a_hold_is_lifted_also_where_the_queue_has_forgotten_its_jobs(world: World) -> None:
    hold(world)
    heart = Heartbeat(world.queue.redis, "sync:test")
    heart.say()
    retried = retry(world.deployment, [RECORD], [], everything=True, by="anna")
    assert (retried.lifted, retried.watched) == (("refresh of pets",), True)
    with pytest.raises(LabelloopError, match="nothing has failed"):
        retry(world.deployment, [RECORD], [], everything=True, by="anna")


def test_an_unrecorded_job_is_queued_again_under_its_id(
    world: World, worker: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(world, "other")
    name = job_id(FEATURISE, RECORD.key, "other")
    monkeypatch.setattr("labelloop.queue.failed.RECORDED", ())  # the worker of the test knows this one function only
    worker.terminate()
    worker.wait(10)
    retried = retry(world.deployment, [RECORD], ["other"], everything=False, by="anna")
    assert retried.requeued == (name,)
    assert failed_jobs(world.deployment, [RECORD]) == []
    assert [(j.id, j.status) for j in world.queue.jobs()] == [(name, "queued")]
    assert world.queue.jobs()[0].queued_at is not None


def test_a_refresh_deploys_where_nothing_is_paused(world: World) -> None:
    assert world.refresh()["outcome"] == "promote"
    live = world.registry.live()
    assert live is not None
    assert live.version == "v1"


def paused_while(world: World) -> Callable[[Evaluation, Gate], Verdict]:
    """The gate, during which a person pauses learning."""

    def gate(evaluation: Evaluation, policy: Gate) -> Verdict:
        world.registry.pauses.pause(by="anna", why="under review")
        return judge(evaluation, policy)

    return gate


def test_a_run_under_way_when_learning_is_paused_does_not_deploy_and_is_run_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrain_worker.refresh, "judge", paused_while(world))
    assert world.refresh()["outcome"] == "hold"
    run = world.runs.all()[-1]
    assert (run.outcome, run.version, run.done) == ("hold", "v1", False)
    assert "paused by anna" in run.reasons[0]
    assert "under review" in run.reasons[0]
    assert len(run.reasons) > 1  # and what the gate said
    assert run.detail["evaluation"]["labels"] == 40
    assert world.registry.live() is None
    monkeypatch.undo()
    monkeypatch.setattr(retrain_worker.jobs, "context", lambda: world.context)
    resume(world.deployment, RECORD)
    assert world.refresh()["outcome"] == "promote"
    assert world.runs.all()[-1].done


def test_a_run_that_was_queued_before_the_pause_does_no_work(world: World) -> None:
    done = pause(world.deployment, RECORD, by="anna", why="")
    assert (done.settled, done.already, done.live) == (True, False, None)
    assert world.refresh()["outcome"] == "hold"
    run = world.runs.all()[-1]
    assert (run.done, run.version, "evaluation" in run.detail) == (False, None, False)
    assert world.registry.versions() == []


def test_a_pause_waits_for_a_deploy_that_is_half_way(world: World) -> None:
    with world.deployment.registry(RECORD).lease("deploy"):
        world.deployment.registry(RECORD).pauses.pause(by="anna")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("operations.models.learning.RedisLease", _impatient)
            assert not pause(world.deployment, RECORD, by="bert", why="").settled
    assert pause(world.deployment, RECORD, by="bert", why="").settled


def _impatient(redis: Any, key: str) -> Any:
    from labelloop.queue.leases import RedisLease

    return RedisLease(redis, key, wait_s=0.1)


@pytest.mark.parametrize(
    "words",
    [
        ["runs"], ["runs", "--json"], ["run", "show", "latest"], ["run", "show", "v1", "--annotations", "--json"],
        ["snapshots"], ["snapshots", "list", "--json"], ["snapshots", "diff", "v1"], ["queue"],
        ["queue", "list", "--json"], ["queue", "failed"], ["pause", "--why", "w"], ["resume", "--json"],
    ],
)  # fmt: skip
def test_every_command_answers(world: World, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    world.refresh()
    monkeypatch.setattr("cli.connect.open_deployment", lambda _: world.deployment)
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.output.strip()


def test_a_mistake_is_one_plain_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.connect.open_deployment", lambda _: world.deployment)
    for words in (["run", "show", "zzz"], ["snapshots", "diff", "v9"], ["queue", "retry"], ["queue", "discard", "x"],
                  ["export", "--format", "csv", "--copy", "--out", "x"]):  # fmt: skip
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 1
        assert "labelloop:" in done.output
        assert "Traceback" not in done.output


@pytest.mark.parametrize("words", [["queue", "--project", "pets", "retry", "--all"], ["snapshots", "--json", "list"]])
def test_an_option_in_front_of_the_verb_is_refused_and_not_lost(
    world: World, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(world)
    monkeypatch.setattr("cli.connect.open_deployment", lambda _: world.deployment)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert f"put {words[1]} after" in " ".join(done.output.split())
    assert RequestStore(world.store).open() == []


def test_simulate_asks_nobody_on_a_new_stack_that_has_no_bucket_yet(world: World, s3_endpoint: str) -> None:
    settings = load_settings({"LABELLOOP_S3_ENDPOINT": s3_endpoint, **KEYS})
    store = S3Store(s3_client(settings), "made-with-the-first-project")
    new = replace(world.deployment, store=store, projects=ProjectStore(store, "main"))
    with pytest.raises(NotFoundError):
        new.projects.all()
    _agree(new, 6000, yes=False)
