"""What `runs`, `run show` and `snapshots` tell, from stores in memory, and how it looks on 100 columns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from cli.views.jobs import failed_view, queue_view
from cli.views.runs import run_view, runs_table, took
from cli.views.snapshots import diff_view, snapshots_table
from labelloop.errors import NotFoundError
from labelloop.queue.failed import FailedJob, choose
from labelloop.records.evidence import Comparison
from labelloop.records.images import Split
from labelloop.records.runs import AGAIN, Run
from operations.history.jobs import held
from operations.history.run_page import hints, spans
from operations.history.run_rows import evidence
from operations.history.runs import find_run, list_runs, show_run
from operations.history.snapshots import between, list_snapshots
from operations.people import people
from tests.unit.worlds.operations import OpsWorld, evaluation

WIDE = 100


def shown(page: RenderableType) -> str:
    """The page on a terminal of 100 columns."""
    console = Console(width=WIDE, record=True, file=open("/dev/null", "w"), force_terminal=False)  # noqa: SIM115, PTH123
    with console.file:
        console.print(page)
    text = console.export_text()
    assert max(map(len, text.splitlines()), default=0) <= WIDE
    return text


@pytest.fixture
def world(tmp_path: Path) -> OpsWorld:
    """Two snapshots, three runs: v1 promoted, one held, v2 promoted and live."""
    world = OpsWorld()
    world.images([f"{i}.png" for i in range(1, 8)], tmp=tmp_path)
    world.images(["8.png"], Split.TEST, tmp=tmp_path)
    for i in range(1, 5):
        world.answer(i, f"{i}.png", "cat" if i % 2 else "dog")
    first = world.freeze()
    one = world.version(first.id, found=evaluation(4))
    world.run("promote", first.id, "first head", version=one, found=evaluation(4))
    world.deploy(one)
    world.answer(5, "5.png", "cat", minute=3, by=8)
    world.answer(6, "6.png", None, minute=4, cancelled=True)
    world.answer(2, "2.png", "cat", minute=5)
    world.answer(8, "8.png", "dog", minute=6)
    second = world.freeze()
    world.run("hold", second.id, "looks worse " * 20, found=evaluation(5))
    two = world.version(second.id, found=evaluation(5))
    world.run("promote", second.id, "as good", "and more", version=two, found=evaluation(5))
    world.deploy(two)
    return world


def test_runs_come_newest_first_with_the_live_one_marked(world: OpsWorld) -> None:
    rows = list_runs(world.deployment, world.record, kind=None, outcome=None, limit=9)
    assert [(r.outcome, r.version, r.live) for r in rows] == [
        ("promote", "v2", True), ("hold", None, False), ("promote", "v1", False)
    ]  # fmt: skip
    assert (rows[0].labels, rows[0].new_labels, rows[0].evidence) == (5, 2, "0.850 +5.0")
    held = list_runs(world.deployment, world.record, kind="refresh", outcome="hold", limit=9)
    assert [r.outcome for r in held] == ["hold"]
    assert len(list_runs(world.deployment, world.record, kind=None, outcome=None, limit=1)) == 1
    assert list_runs(world.deployment, world.record, kind="retrain", outcome=None, limit=9) == []


def test_the_list_of_runs_fits_a_terminal(world: OpsWorld) -> None:
    text = shown(runs_table(list_runs(world.deployment, world.record, kind=None, outcome=None, limit=9)))
    assert len(text.splitlines()) == 4
    assert "v2 ●" in text
    assert "looks worse" in text
    assert "no matching run" in shown(runs_table([]))


def test_a_run_is_found_by_id_version_or_as_the_latest(world: OpsWorld) -> None:
    newest = next(world.runs.newest())
    for name in ("latest", "v2", newest.id, newest.short, newest.id[:22]):
        assert find_run(world.deployment, world.record, name).id == newest.id
    with pytest.raises(NotFoundError, match="has no version v7"):
        find_run(world.deployment, world.record, "v7")
    empty = OpsWorld()
    with pytest.raises(NotFoundError, match="has no run yet"):
        find_run(empty.deployment, empty.record, "latest")


def test_a_run_tells_everything_and_what_to_do(world: OpsWorld) -> None:
    page = show_run(world.deployment, world.record, find_run(world.deployment, world.record, "v1"))
    assert (page.live, page.trained) == (False, None)
    assert [(s.action, s.until is not None) for s in page.spans] == [("deploy", True)]
    text = shown(run_view(page, {}))
    for words in ("first head", "0.850 (0.700 to 0.950)", "champion", "labelloop promote v1", page.run.snapshot,
                  "config", "attempt 1", "worker", "parent", "none: the first", "strength 0.5"):  # fmt: skip
        assert words in text
    live = show_run(world.deployment, world.record, find_run(world.deployment, world.record, "v2"))
    assert "labelloop rollback` goes back to v1" in shown(run_view(live, {}))
    assert json.loads(json.dumps(live.to_json()))["version"]["name"] == "v2"


def test_the_annotations_that_trained_are_listed_with_who_gave_them(world: OpsWorld) -> None:
    run = find_run(world.deployment, world.record, "v2")
    page = show_run(world.deployment, world.record, run, annotations=True)
    assert page.trained is not None
    assert page.trained.uses == {"trained": 5, "test": 1, "older": 1, "skipped": 1}
    assert page.trained.note == ""
    trained = {r.task: r for r in page.trained.revisions if r.use == "trained"}
    assert sorted(trained) == [1, 2, 3, 4, 5]
    assert (trained[2].annotation, trained[2].label) == (201, "cat")
    text = shown(run_view(page, {8: "anna@example.com"}))
    assert "5 trained, 1 test, 1 older, 1 skipped" in text
    assert "anna@example.com" in text
    assert "account 7" in text


def test_a_count_that_no_longer_fits_is_said(world: OpsWorld) -> None:
    run = find_run(world.deployment, world.record, "v2")
    world.store.delete("features/b/index/" + next(world.store.list("features/b/index/")).key.rsplit("/", 1)[1])
    page = show_run(world.deployment, world.record, run, annotations=True)
    assert page.trained is not None
    assert "the run counted 5 labels" in page.trained.note


def test_a_run_without_evidence_still_has_a_page(world: OpsWorld) -> None:
    failed = world.run("failed", world.freeze().id, "StorageError: away")
    page = show_run(world.deployment, world.record, failed, annotations=True)
    assert page.trained is None
    assert "labelloop queue retry refresh" in shown(run_view(page, {}))


def test_hints_for_every_ending(world: OpsWorld) -> None:
    run = next(world.runs.newest())
    project = show_run(world.deployment, world.record, run)
    assert any("rollback" in h for h in project.hints)

    def of(**values: object) -> str:
        from operations.history.run_page import Project

        changed = replace(run, **{"version": None, **values})  # type: ignore[arg-type]
        return " ".join(hints(changed, False, Project("pets", [], None)))

    assert "labelloop queue`" in of(outcome="running")
    assert "resume" in of(outcome="hold", detail={AGAIN: True})
    assert "uses these labels again" in of(outcome="reject")
    assert "promote v9" in of(outcome="hold", version="v9")


def test_a_version_that_was_live_twice_has_two_spans(world: OpsWorld) -> None:
    world.deploy(world.registry.version("v1"), "rollback", "override rate")
    periods = spans("v1", world.registry.deployments())
    assert [(s.action, s.until is None) for s in periods] == [("deploy", False), ("rollback", True)]
    assert periods[1].why == "override rate"


def test_a_retrain_is_told_by_its_test_labels() -> None:
    compared = Comparison("labels of the random test split", 60, 0.9, 0.91, 0.01, -0.02, 0.04, 3)
    judged = replace(evaluation(), kind="retrain", test_accuracy=0.91, test_n=60, test_comparison=compared)
    assert evidence(judged) == "test 0.910 +1.0"
    assert evidence(replace(judged, test_accuracy=None)) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.014, "0.01 s"), (9.99, "9.99 s"), (42, "42 s"), (600, "10 min"), (7500, "2 h 05")],
)
def test_lengths_of_time(seconds: float | None, text: str) -> None:
    assert took(seconds) == text


def test_snapshots_are_listed_with_who_used_them(world: OpsWorld) -> None:
    rows = list_snapshots(world.deployment, world.record, limit=9)
    newest, oldest = rows[0], rows[-1]
    assert (newest.latest, newest.versions, newest.runs) == (True, ("v2",), ("refresh hold", "refresh promote"))
    assert oldest.versions == ("v1",)
    assert newest.counts is not None
    assert (newest.counts.labelled, newest.counts.skipped, newest.counts.annotations) == (6, 1, 8)
    assert newest.more == 2
    assert shown(snapshots_table(rows)).count("latest") == 1
    assert list_snapshots(world.deployment, world.record, limit=1, count=False)[0].counts is None


def test_a_snapshot_that_is_gone_is_still_named(world: OpsWorld) -> None:
    first = world.registry.version("v1").snapshot
    world.store.delete(f"snapshots/manifests/{first}.json")
    rows = list_snapshots(world.deployment, world.record, limit=9)
    assert (rows[-1].id, rows[-1].at, rows[-1].counts) == (first, None, None)
    assert "no longer kept" in shown(snapshots_table(rows))
    with pytest.raises(NotFoundError, match="no longer kept"):
        between(world.deployment, world.record, "v1", "latest")


def test_the_difference_between_two_versions(world: OpsWorld) -> None:
    comparison = between(world.deployment, world.record, "v1", "latest")
    assert comparison.diff.counts == {"added": 2, "relabelled": 1, "removed": 0, "skipped": 1, "revised": 0}
    text = shown(diff_view(comparison, {8: "anna@example.com"}))
    for words in ("2 added, 1 relabelled, 1 skipped", "dog → cat", "anna@example.com", "account 7"):
        assert words in text
    assert "and 3 more" in shown(diff_view(comparison, {}, limit=1))
    assert "nothing differs" in shown(diff_view(between(world.deployment, world.record, "v2", "latest"), {}))


def test_people_are_numbers_where_label_studio_is_away(world: OpsWorld) -> None:
    assert people(world.deployment) == {}


def failed_job(name: str, kind: str = "refresh", error: str = "") -> FailedJob:
    return FailedJob(name, kind, "p", "2026-03-01T02:00:00+00:00", "w-1", error)


STACK = (
    'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n  File "b.py", line 2, in g\n    h()\n'
    '  File "c.py", line 3, in h\n    raise StorageError("away")\nlabelloop.errors.StorageError: away;\ncheck it'
)


def test_a_failed_job_tells_why_and_what_to_do() -> None:
    job = failed_job("refresh_p_1", error=STACK)
    assert job.why == "StorageError: away;\ncheck it"
    assert "S3" in job.advice
    text = shown(failed_view([job], [], {"p": "pets"}, whole=False))
    assert "a.py" not in text
    assert "c.py" in text
    assert "refresh of pets" in text
    assert "a.py" in shown(failed_view([job], [], {}, whole=True))
    assert "its worker gave no reason" in shown(failed_view([failed_job("x")], [], {}, whole=False))
    assert "nothing has failed" in shown(failed_view([], [], {}, whole=False))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory", "batch_size"),
        ("rq.timeouts.JobTimeoutException: Task exceeded", "too long"),
        ("redis.exceptions.ConnectionError: refused", "Redis"),
        ("ValueError: surprise", "worker's log"),
    ],
)
def test_advice_fits_the_error(error: str, advice: str) -> None:
    assert advice in failed_job("x", error=error).advice


def test_failed_jobs_are_chosen_by_any_part_that_only_one_has() -> None:
    jobs = [failed_job("refresh_p_aa_1"), failed_job("refresh_p_bb_1"), failed_job("refresh_p_bb_12")]
    assert choose(jobs, ["aa", "refresh_p_bb_1", "aa"]) == [jobs[0], jobs[1]]
    with pytest.raises(NotFoundError, match="2 failed jobs"):
        choose(jobs, ["bb"])
    with pytest.raises(NotFoundError, match="no failed job"):
        choose(jobs, ["cc"])


def failed_run(number: int, world: OpsWorld, **values: object) -> Run:
    run = Run(f"2026-{number:06d}-refresh", "refresh", "s", world.record.config.hash, 1, "t", "w", outcome="failed",
              reasons=("away",))  # fmt: skip
    return replace(run, **values)  # type: ignore[arg-type]


def test_a_hold_is_seen_where_the_planner_sees_one(world: OpsWorld) -> None:
    runs = [failed_run(i, world) for i in (3, 2, 1)]
    holds = held(world.record, runs, "s", [])
    assert [(h.kind, h.failed, h.run, h.reason) for h in holds] == [("refresh", 3, "000003", "away")]
    assert held(world.record, runs[:2], "s", []) == held(world.record, runs, "other", []) == []
    transient = [replace(r, detail={"transient": True}) for r in runs]
    assert held(world.record, transient, "s", []) == []
    assert "on hold: it failed 3 times" in shown(failed_view([], holds, {}, whole=False))


def test_the_queue_fits_a_terminal(world: OpsWorld) -> None:
    from labelloop.queue.jobs import JobState
    from operations.history.jobs import QueuePage

    runs = [failed_run(i, world) for i in (3, 2, 1)]
    jobs = (
        JobState("r1", "retrain", "p", "started", "fine-tune on 200 labels", 3, 12, 95.0, "w", "2026-03-01T02:00:00Z"),
        JobState("f1", "featurise", "p", "queued", queued_at="2026-03-01T02:00:00Z"),
        JobState("s1", "score", "p", "failed", error="labelloop.errors.StorageError: " + "away " * 40),
    )
    page = QueuePage(jobs, {"train": 0, "features": 1}, tuple(held(world.record, runs, "s", [])),
                     {"pets": "paused by anna since …"}, {"p": "pets " * 4}, {"train": 1})  # fmt: skip
    text = shown(queue_view(page))
    for words in (
        "25 %",
        "2 min",
        "features 1 (no worker)",
        "train 0",
        "paused by anna",
        "on hold",
        "StorageError: away",
    ):
        assert words in text
