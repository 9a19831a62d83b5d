"""The everyday commands on the running loop: what happened, who did it, stop, go on, take it with you."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from labelloop.queue.heartbeat import alive
from labelloop.records.runs import Run
from labelloop.store.runs import RunStore
from operations.history.snapshots import resolve
from tests.acceptance.conftest import LABELLOOP, Loop, labelloop, until


def asked(loop: Loop, *words: str) -> Any:
    """A command's JSON about the digits."""
    return json.loads(labelloop(*words, "--json", "--project", "digits", "--state-dir", loop.home))


def trainers(loop: Loop) -> dict[str, Any]:
    """The workers that live and train, by name."""
    living = alive(loop.deployment.queue.redis)
    return {name: facts for name, facts in living.items() if "train" in (facts.get("queues") or ())}


def worker_pid(loop: Loop, name: str) -> int:
    return int(next(f["pid"] for n, f in trainers(loop).items() if name in n))


def test_pause_keeps_the_live_version_and_resume_learns_what_came_meanwhile(loop: Loop) -> None:
    until(lambda: loop.live() is not None, what="a first model")
    told = asked(loop, "pause", "--why", "labels under review")
    assert (told["settled"], told["already"]) == (True, False)
    before = told["live"]  # nothing can have gone live since
    loop.submit(11)
    until(lambda: loop.picture().until_refresh == 0, what="a refresh that is due")
    assert "labels under review" in str(loop.picture().waiting)
    time.sleep(2)  # ten times as long as a watcher needs
    assert (loop.live(), loop.picture().running) == (before, ())
    assert loop.status()["paused"]["why"] == "labels under review"
    assert asked(loop, "resume")["was"]["why"] == "labels under review"
    until(lambda: loop.live() != before, what="a version of what came meanwhile")
    assert loop.picture().paused is None


def test_a_run_tells_which_annotations_trained_it(loop: Loop) -> None:
    live = next(r for r in asked(loop, "runs", "--limit", "50") if r["live"])
    page = asked(loop, "run", "show", live["short"], "--annotations")
    assert page["run"]["version"] == live["version"]
    assert page["trained"]["uses"]["trained"] == page["evaluation"]["labels"]
    assert page["trained"]["note"] == ""
    trained = [r for r in page["trained"]["revisions"] if r["use"] == "trained"]
    known = {(row["id"], a["id"]): a["updated_at"] for row in loop.studio.export(loop.project.id)
             for a in row["annotations"]}  # fmt: skip
    assert all(known[r["task"], r["annotation"]] == r["updated_at"] for r in trained)


def test_what_people_did_between_two_snapshots_is_told_by_name(loop: Loop) -> None:
    before = resolve(loop.deployment, loop.project, "latest")
    loop.submit(1)
    until(lambda: resolve(loop.deployment, loop.project, "latest") != before, what="a new snapshot")
    text = labelloop("snapshots", "diff", before[:10], "--project", "digits", "--state-dir", loop.home)
    assert "1 added" in text
    assert loop.studio.whoami()[:20] in text


def test_a_retrain_whose_worker_is_killed_ends_well_by_itself(loop: Loop) -> None:
    """Whoever waits for it sees the verdict, in words; what was made is kept whatever the verdict."""
    runs = RunStore(loop.deployment.within(loop.project))
    known = {r.id for r in runs.all()}

    def attempts() -> list[Run]:
        return [r for r in runs.all() if r.kind == "retrain" and r.id not in known]

    words = ("retrain", "--wait", "--project", "digits", "--state-dir", loop.home)
    with subprocess.Popen([LABELLOOP, *words], stdout=subprocess.PIPE, text=True) as waiting:
        try:
            until(lambda: any(r.outcome == "running" for r in attempts()), what="the retrain")
            victim = attempts()[-1].worker
            os.kill(worker_pid(loop, victim), signal.SIGKILL)
            until(lambda: any(victim not in n for n in trainers(loop)), what="another worker")
            there = time.monotonic()
            until(lambda: any(r.done for r in attempts()), 180, what="a verdict")
            print(f"a verdict {time.monotonic() - there:.1f} s after a worker was there")
            printed, _ = waiting.communicate(timeout=60)
        finally:
            waiting.kill()  # it would wait for a verdict that never comes
    until(lambda: attempts()[0].outcome == "failed", what="the end of the first attempt's record")
    first, *rest = attempts()
    assert "worker" in " ".join(first.reasons)
    assert [r.done for r in rest] == [True]
    assert "labels" in printed
    assert waiting.returncode == 0
    made = next(m for m in reversed(asked(loop, "models")) if m["kind"] == "retrain")
    registry = loop.deployment.registry(loop.project)
    record = registry.backbone(made["backbone"])
    assert record.snapshot is not None
    assert registry.head(registry.version(f"v{made['number']}")).weight.shape[1] == record.dimension


def test_the_queue_is_shown(loop: Loop) -> None:
    page = asked(loop, "queue")
    assert set(page["workers"]) == {"features", "refresh", "score", "train", "tune"}
    assert page["holds"] == []


def test_a_version_is_reported_on_one_page(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    printed = labelloop("report", loop.live() or "", "--out", path, "--project", "digits", "--state-dir", loop.home)
    assert "test labels" in printed
    assert loop.live() in path.read_text()
    found = asked(loop, "report", loop.live() or "")
    version = loop.deployment.registry(loop.project).version(loop.live() or "")
    assert found["run"]["snapshot"] == version.snapshot
    assert found["test"]["judged"] == version.evaluation.test_n


def test_an_export_holds_every_label_and_its_images(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    done = asked(loop, "export", "--format", "csv", "--drain", "--out", str(path))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    answered = {row["id"] for row in loop.studio.export(loop.project.id)
                if any(not a["was_cancelled"] for a in row["annotations"])}  # fmt: skip
    assert {int(r["task_id"]) for r in rows} == answered
    assert done["labelled"] == len(rows)
    tree = tmp_path / "tree"
    copied = asked(loop, "export", "--format", "folders", "--copy", "--bucket", "train", "--out", str(tree))
    manifest = json.loads((tree / "manifest.json").read_text())
    assert len(list(tree.rglob("*.png"))) == copied["copied"] == len(manifest["images"])
    assert copied["labelled"] == sum(r["bucket"] == "train" for r in rows)
