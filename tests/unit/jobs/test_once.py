"""One verdict per wish: whoever dies, freezes and comes back, is too slow, or decides on what is no longer so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labelloop.errors import QueueError, StorageError, SupersededError
from labelloop.objects.storage import MemoryStore
from labelloop.records.evidence import Outcome, Verdict
from labelloop.records.runs import TRANSIENT, Run
from labelloop.store.registry import Registry
from labelloop.store.runs import RunStore
from labelloop.store.verdicts import Ending, Verdicts, next_wish
from retrain_worker import jobs, refresh, retrain
from tests.unit.worlds.learning import lease
from tests.unit.worlds.once import Died, OnceWorld

OUTCOMES = (Outcome.PROMOTE, Outcome.HOLD)
STEPS: dict[str, tuple[Any, str]] = {  # where it happens: before this step, and after it
    "the record": (RunStore, "start"),
    "the config is kept": (jobs, "keep_config"),
    "the version": (Registry, "add"),
    "the deployment": (Registry, "_append"),
    "the order is wanted": (jobs, "_score"),
    "the verdict": (RunStore, "end"),
    "what follows": (jobs, "_follow_up"),
}
UNDEPLOYED = {"the record", "the verdict"}  # steps at which it matters that nothing goes live


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnceWorld]:
    yield OnceWorld(tmp_path, monkeypatch)


def judged_as(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (refresh, retrain):
        monkeypatch.setattr(module, "judge", lambda *_: Verdict(outcome, ("because",)))


def wanted(world: OnceWorld, kind: str) -> Callable[[], Any]:
    """What a worker does with the one job that is wanted."""
    if kind == "retrain":
        world.until_quiet()
        world.requests.add("retrain", by="ann")
    world.plan()
    return world.take(kind)


def at(step: str, when: str, happens: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen once, before a step or after it."""
    owner, name = STEPS[step]
    real, left = getattr(owner, name), [happens]

    def stepped(*args: Any, **kwargs: Any) -> Any:
        if left and when == "before":
            left.pop()()
        result = real(*args, **kwargs)
        if left and when == "after":
            left.pop()()
        return result

    monkeypatch.setattr(owner, name, stepped)


def one_verdict(world: OnceWorld, kind: str, before: int = 0) -> None:
    verdicts = world.verdicts(kind)
    assert len(verdicts) == 1 + before
    assert len({r.wish for r in verdicts}) == len(verdicts)
    promoted = [r.version for r in verdicts if r.outcome == "promote"]
    assert world.deployed(kind) == promoted
    assert not [r for r in world.runs.all() if r.outcome == "running"]
    assert world.requests.open() == []


def dies() -> None:
    raise Died


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_wherever_a_refresh_dies_there_is_one_verdict(
    world: OnceWorld, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    for done, outcome in enumerate(OUTCOMES if step in UNDEPLOYED else OUTCOMES[:1]):
        judged_as(outcome, monkeypatch)
        world.learning.label([u for u in sorted(world.learning.truth) if u not in world.learning.labels][:10])
        work = wanted(world, "refresh")
        with monkeypatch.context() as patched:
            at(step, when, dies, patched)
            with suppress(Died):
                work()
        world.until_quiet()
        one_verdict(world, "refresh", before=done)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_refresh_that_comes_back_delivers_nothing_more(
    world: OnceWorld, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    """It froze there, was believed dead, and another worker has answered its wish meanwhile."""
    for done, outcome in enumerate(OUTCOMES if step in UNDEPLOYED else OUTCOMES[:1]):
        judged_as(outcome, monkeypatch)
        world.learning.label([u for u in sorted(world.learning.truth) if u not in world.learning.labels][:10])
        work = wanted(world, "refresh")
        with monkeypatch.context() as patched:
            at(step, when, world.until_quiet, patched)
            work()
        world.until_quiet()
        one_verdict(world, "refresh", before=done)


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize(("step", "when"), [("the version", "before"), ("the verdict", "before")])
def test_a_retrain_that_dies_or_comes_back_has_one_verdict(
    world: OnceWorld, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, step: str, when: str
) -> None:
    judged_as(outcome, monkeypatch)
    for done, happens in enumerate((dies, world.until_quiet)):
        work = wanted(world, "retrain")
        with monkeypatch.context() as patched:
            at(step, when, happens, patched)
            with suppress(Died):
                work()
        world.until_quiet()
        one_verdict(world, "retrain", before=done)


@pytest.mark.parametrize("reads", [1, 2, 3, 4])
def test_a_run_that_ends_while_the_watcher_looks_is_not_wanted_again(
    world: OnceWorld, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    """The found fault: run records were read first, the queue later, and a run that ended in between was in neither."""
    judged_as(Outcome.HOLD, monkeypatch)
    work = wanted(world, "refresh")
    world.queue.running.append(f"refresh_{world.project.record.key}_it")
    read, left = RunStore.all, list(range(reads))

    def then_ends(store: RunStore) -> list[Run]:
        result = read(store)
        if store is world.planner._runs and left and left.pop() == 0:
            work()
            world.queue.running.clear()
        return result

    monkeypatch.setattr(RunStore, "all", then_ends)
    world.plan()
    assert world.queue.waiting == {}
    one_verdict(world, "refresh")


def test_a_job_that_is_delivered_twice_runs_once(world: OnceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis came back with what it knew a second ago; or two watchers queued it; or the watcher had been frozen."""
    judged_as(Outcome.HOLD, monkeypatch)
    world.plan()
    name, job = next(iter(world.queue.waiting.items()))
    world.take("refresh")()
    world.queue.waiting[name] = job
    assert "has been answered" in world.take("refresh")()["superseded"]
    one_verdict(world, "refresh")
    assert len(world.runs.all()) == 1


def test_a_job_beside_a_run_of_its_kind_waits_for_the_watcher(world: OnceWorld) -> None:
    work = wanted(world, "refresh")
    world.runs.start("refresh", snapshot="s", config="c", attempt=1, worker="w", wish="refresh-1")
    assert "under way" in work()["superseded"]
    assert [r.outcome for r in world.runs.all()] == ["running"]
    world.until_quiet()
    assert len(world.verdicts("refresh")) == 1


def test_what_a_dead_worker_had_deployed_is_its_verdict(world: OnceWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_as(Outcome.PROMOTE, monkeypatch)
    at("the verdict", "before", dies, monkeypatch)
    with suppress(Died):
        wanted(world, "refresh")()
    world.plan()
    (run,) = world.runs.all()
    assert (run.outcome, run.version, run.reasons) == ("promote", "v1", ("because",))
    assert run.detail["evaluation"]["kind"] == "refresh"


# --- the rules themselves


def stores(store: MemoryStore | None = None) -> tuple[RunStore, Verdicts]:
    store = store or MemoryStore()
    runs = RunStore(store)
    return runs, Verdicts(runs, Registry(store, lease))


def begun(runs: RunStore, wish: str) -> Run:
    return runs.start("retrain", snapshot="s", config="c", attempt=1, worker="w", wish=wish)


def test_wishes_are_counted_by_kind() -> None:
    runs, _ = stores()
    assert next_wish("retrain", [], []) == "retrain-1"
    done = [runs.end(begun(runs, w), "hold", ()) for w in ("", "retrain-2", "retrain-x", "refresh-7")]
    assert next_wish("retrain", done, []) == "retrain-3"
    assert next_wish("retrain", [replace(r, outcome="failed") for r in done], []) == "retrain-1"


def test_a_run_ends_once() -> None:
    runs, _ = stores()
    run = begun(runs, "retrain-1")
    runs.end(run, "failed", ("its worker died",))
    with pytest.raises(SupersededError, match="its worker died"):
        runs.end(run, "promote", ("better",))
    assert runs.all()[0].outcome == "failed"


class Racing(MemoryStore):
    """Something happens between reading and writing."""

    happens: Callable[[], None] | None = None

    def swap(self, key: str, data: bytes, *, etag: str) -> None:
        happens, self.happens = self.happens, None
        if happens:
            happens()
        super().swap(key, data, etag=etag)


def test_of_two_who_end_a_run_at_once_one_does() -> None:
    store = Racing()
    runs, _ = stores(store)
    run = begun(runs, "retrain-1")
    store.happens = lambda: runs.end(run, "failed", ("its worker died",)) and None
    with pytest.raises(SupersededError):
        runs.end(run, "hold", ("worse",))
    assert runs.all()[0].outcome == "failed"


def test_an_end_whose_answer_was_lost_is_ours() -> None:
    class Forgetful(MemoryStore):
        def swap(self, key: str, data: bytes, *, etag: str) -> None:
            super().swap(key, data, etag=etag)
            super().swap(key, data, etag=etag)

    runs, _ = stores(Forgetful())
    assert runs.end(begun(runs, "retrain-1"), "hold", ("worse",)).outcome == "hold"


def test_a_damaged_record_is_made_whole_by_its_end() -> None:
    store = MemoryStore()
    runs, _ = stores(store)
    run = begun(runs, "retrain-1")
    store.put(f"runs/{run.id}.json", b"{")
    runs.end(run, "hold", ("worse",))
    assert runs.all()[0].outcome == "hold"


def test_of_two_runs_for_one_wish_the_second_has_no_verdict() -> None:
    """A flushed Redis let both begin."""
    runs, verdicts = stores()
    one, two = begun(runs, "retrain-1"), begun(runs, "retrain-1")
    verdicts.end(one, Ending("hold", ("worse",)))
    with pytest.raises(SupersededError, match=one.id) as refusal:
        verdicts.end(two, Ending("hold", ("worse",)))
    verdicts.give_up(two, str(refusal.value))
    ended = {r.id: r for r in runs.all()}
    assert (ended[two.id].outcome, ended[two.id].done, ended[two.id].detail) == ("failed", False, {TRANSIENT: True})


def test_of_two_who_begin_at_once_one_does() -> None:
    lock = threading.Lock()

    @contextmanager
    def exclusive(_name: str) -> Iterator[int]:
        with lock:
            yield 1

    store, started, refused = MemoryStore(), list[Run](), list[str]()

    def begin() -> None:
        runs = RunStore(store)
        try:
            start = lambda wish: begun(runs, wish)  # noqa: E731
            started.append(Verdicts(runs, Registry(store, exclusive)).begin("retrain", "retrain-1", start).run)
        except SupersededError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(started), len(refused)) == (1, 7)


def test_hours_of_work_end_without_redis_too() -> None:
    @contextmanager
    def away(_name: str) -> Iterator[int]:
        raise QueueError("away")
        yield 1

    store = MemoryStore()
    runs = RunStore(store)
    Verdicts(runs, Registry(store, away)).end(begun(runs, "retrain-1"), Ending("hold", ("worse",)))
    assert runs.all()[0].done


def test_a_store_that_is_away_is_no_reason_to_stop_working(monkeypatch: pytest.MonkeyPatch) -> None:
    from labelloop.queue import progress

    def away() -> None:
        raise StorageError("away")

    def given_up() -> None:
        raise SupersededError("given up")

    monkeypatch.setattr(progress, "WANTED_EVERY_S", -1)
    progress.JobProgress(require_wanted=away).report("fine-tune", 1, 9)
    with pytest.raises(SupersededError):
        progress.JobProgress(require_wanted=given_up).report("fine-tune", 1, 9)
