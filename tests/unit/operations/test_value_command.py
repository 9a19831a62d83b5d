"""What `labelloop value` shows and what of it `status`, the watcher's facts and Prometheus repeat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console, RenderableType

import sync.guard
from cli.views.status import render as render_status
from cli.views.value import render
from labelloop.records.snapshots import Snapshot
from labelloop.records.tasks import Seen, Task
from labelloop.rules.schema import LabelRules
from labelloop.rules.value import Look, looks_of
from operations.models.value import value
from operations.status import ProjectStatus, Status, _Stores
from sync.guard import ReviewGuard
from sync.metrics import SyncMetrics
from tests.unit.worlds.operations import OpsWorld
from tests.unit.worlds.value import looks_like_one, never_looks, stream, task, tasks_of

WIDE = 100


def shown(page: RenderableType) -> str:
    """The page on a terminal of 100 columns, without its frames and line breaks."""
    console = Console(width=WIDE, record=True, file=open("/dev/null", "w"), force_terminal=False)  # noqa: SIM115, PTH123
    with console.file:
        console.print(page)
    text = console.export_text()
    assert max(map(len, text.splitlines()), default=0) <= WIDE
    return " ".join(text.replace("│", " ").split())


def filled(world: OpsWorld) -> OpsWorld:
    """Somebody who looks (7) and somebody who does not (8)."""
    world.tasks = {t.id: t for t in tasks_of(stream(looks_like_one, 200), seconds=3.0)}
    world.tasks |= {t.id: t for t in tasks_of(stream(never_looks, 150, seed=1), first=1000, by=8, seconds=1.0)}
    world.freeze()
    return world


@pytest.fixture
def world() -> OpsWorld:
    return filled(OpsWorld())


def test_the_page_of_a_new_project_says_what_is_missing() -> None:
    world = OpsWorld()
    text = shown(render(value(world.deployment, world.record)))
    assert "0 answers, 0 with a prediction" in text
    assert text.count("not enough yet") == 4
    assert "5% of the chosen images are shown without a pre-label" in text
    assert "not known: no ground truth" in text
    without = OpsWorld(queue={"blind": 0.0})
    assert "queue.blind is 0" in shown(render(value(without.deployment, without.record)))


def test_the_page_shows_figures_people_and_classes(world: OpsWorld) -> None:
    page = value(world.deployment, world.record)
    text = shown(render(page))
    assert "accepted without looking?" in text
    assert "account 8 took" in text
    assert "account 7 took" not in text
    assert "see above" in text
    assert "points" in text
    assert "most often by" in text
    assert page.answers == 350


def test_the_json_names_people_and_lists_the_tasks(world: OpsWorld) -> None:
    data = json.loads(json.dumps(value(world.deployment, world.record).to_json()))
    (warning,) = data["warnings"]
    assert warning["name"] == "account 8"
    assert warning["headline"].startswith("account 8 took")
    assert len(warning["tasks"]) == warning["accepted"] > 50
    assert {row["name"] for row in data["people"]} == {"account 7", "account 8"}
    assert data["anchoring"]["effect"]["value"] > 0
    assert data["blind"] == 0.05


def test_whoever_looks_again_is_a_note_and_no_warning() -> None:
    world = OpsWorld()
    looks = [*stream(never_looks, 100), *stream(looks_like_one, 300, first=100)]
    world.tasks = {t.id: t for t in tasks_of(looks)}
    world.freeze()
    text = shown(render(value(world.deployment, world.record)))
    assert "accepted without looking?" not in text
    assert "fine since" in text


def test_renamed_classes_are_shown_as_they_count_now() -> None:
    world = filled(OpsWorld(label_map={"dog": "wolf"}))
    text = shown(render(value(world.deployment, world.record)))
    assert "wolf (" in text
    assert "dog (" not in text


# --- the watcher


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReviewGuard]:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(sync.guard, "time", SimpleNamespace(monotonic=lambda: clock.now))
    watching = ReviewGuard(LabelRules())
    watching.clock = clock  # type: ignore[attr-defined]
    yield watching


def snapshot(name: str, unread: int) -> Snapshot:
    return Snapshot(name, {t.id: t for t in tasks_of(stream(never_looks, unread), by=8)})


def test_the_watcher_names_them_and_logs_it_once(guard: Any, capsys: pytest.CaptureFixture[str]) -> None:
    guard.turn(snapshot("a", 20))
    assert guard.facts() == []
    guard.clock.now += 60
    guard.turn(snapshot("b", 150))
    (fact,) = guard.facts()
    assert (fact["who"], fact["tasks"]) == (8, ())
    guard.clock.now += 60
    guard.turn(snapshot("c", 160))
    assert capsys.readouterr().out.count("pre-labels may be accepted unread") == 1


def test_it_looks_at_new_answers_alone_and_not_all_the_time(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(sync.guard, "warnings_of", lambda looks: sizes.append(len(looks)) or ())
    one, two = snapshot("a", 20), snapshot("b", 30)
    for tasks in (one, one, two):
        guard.turn(tasks)
    assert sizes == [20]
    guard.clock.now += 11
    guard.turn(two)
    guard.clock.now += 60
    guard.turn(two)
    assert sizes == [20, 30]


def test_tasks_that_have_not_moved_are_not_read_again(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def spy(tasks: list[Task], rules: LabelRules) -> list[Look]:
        read.extend(t.id for t in tasks)
        return looks_of(tasks, rules)

    monkeypatch.setattr(sync.guard, "looks_of", spy)
    first = snapshot("a", 100)
    guard.turn(first)
    warnings = guard.warnings
    guard.clock.now += 60
    guard.turn(Snapshot("b", {**first.tasks, 3: replace(first.tasks[3], uri="moved"), 900: first.tasks[9]}))
    assert (len(read), read[100:]) == (102, [3, 9])
    guard.clock.now += 60
    guard.turn(Snapshot("c", first.tasks))
    assert guard.warnings == warnings


def test_facts_reach_status_and_prometheus(world: OpsWorld, guard: Any) -> None:
    guard.turn(world.snapshots.load(world.snapshots.latest().snapshot))  # type: ignore[union-attr]
    facts = json.loads(json.dumps({"unread": guard.facts(), "problem": None}))
    base = ProjectStatus(world.record.key, "pets", "http://x")
    status = _Stores(world.deployment, world.record).read(base, facts, {})
    (line,) = status.anchored
    assert line.startswith("account 8 took")
    text = shown(render_status(Status("now", (), (status,), {}, (), None)))
    assert "unread?" in text
    assert "see `labelloop value`" in text
    metrics = SyncMetrics()
    metrics.saw({"p": facts})
    assert metrics.registry.get_sample_value("labelloop_sync_unread_annotators", {"project": "p"}) == 1
    metrics.saw({})
    assert metrics.registry.get_sample_value("labelloop_sync_unread_annotators", {"project": "p"}) is None


def test_status_counts_what_is_blind_by_chance_neither_as_random_nor_as_shown() -> None:
    from operations.status import acceptance

    by_chance = Seen("v1", "cat", blind=True, chosen=True)
    drawn, pre_label = Seen("v1", "cat", blind=True), Seen("v1", "cat")
    tasks = {i: task(i, "dog", seen) for i, seen in enumerate((by_chance, drawn, pre_label, pre_label))}
    random, chosen = acceptance(tasks)
    assert (random.of, chosen.of) == (1, 2)
