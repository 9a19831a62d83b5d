"""What does not count is told by status, doctor and a run's page; a config that is refused stops no other project."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console, RenderableType

from cli.views.runs import run_view
from cli.views.status import render
from labelloop.config.project import ProjectConfig
from labelloop.config.settings import load_settings
from labelloop.errors import LabelConfigError
from labelloop.labels.results import make_label_config
from labelloop.rules.uncounted import Uncounted
from labelloop.studio.client import StudioProject
from operations.doctor.answers import answers, label_config, tasks
from operations.doctor.finding import Level
from operations.history.runs import show_run
from operations.projects.wiring import Wish, wire
from operations.status import StatusReader
from sync.watcher import Watcher
from tests.unit.worlds.operations import OpsWorld

LINK = "http://127.0.0.1:1/projects/1/data?task="
TWO = "2 classes chosen, one is expected"
PER_REGION = make_label_config(["cat", "dog"]).replace("<Choices ", '<Choices perRegion="true" ')


@pytest.fixture
def world() -> OpsWorld:
    """Two answers that count, and one of each that does not."""
    world = OpsWorld(label_map={"gone": None})
    world.answer(1, "1.png", "cat")
    world.answer(2, "2.png", None, problem=TWO)
    world.answer(3, "3.png", None)
    world.answer(4, "4.png", "bird")
    world.answer(5, "5.png", "gone")
    world.answer(6, "6.png", None, cancelled=True)
    world.freeze()
    return world


def shown(page: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=250)
    console.print(page)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def picture(world: OpsWorld, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any]) -> Any:
    monkeypatch.setattr("operations.status.alive", lambda _: {"sync:a": {"projects": {world.record.key: facts}}})
    monkeypatch.setattr(StatusReader, "_studio_version", lambda _: "1.0")
    world.deployment.queue.depths = dict  # type: ignore[method-assign,assignment]
    world.deployment.queue.jobs = list  # type: ignore[method-assign,assignment]
    return StatusReader(world.deployment).read()


def test_status_counts_by_reason_and_links_to_the_tasks(world: OpsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    status = picture(world, monkeypatch, {"unreadable": [[9, "broken"], [10, "broken"]]})
    (row,) = json.loads(json.dumps(status.to_json()))["projects"]
    assert row["unread"] == 4
    assert {u["reason"]: (u["count"], u["links"]) for u in row["uncounted"]} == {
        TWO: (1, [f"{LINK}2"]),
        "nothing chosen": (1, [f"{LINK}3"]),
        "class 'bird' is not in the label config (`labelloop schema` decides)": (1, [f"{LINK}4"]),
        "class 'gone' is dropped by label_map": (1, [f"{LINK}5"]),
    }
    assert [u["tasks"] for u in row["unreadable"]] == [[9, 10]]
    text = shown(render(status))
    assert f"1 × {TWO}: {LINK}2" in text
    assert f"2 × broken: {LINK}9 {LINK}10" in text


def test_a_runs_page_tells_what_its_snapshot_could_not_use(world: OpsWorld) -> None:
    snapshot = world.snapshots.latest()
    assert snapshot is not None
    run = world.run("hold", snapshot.snapshot)
    world.answer(7, "7.png", None, problem=TWO)
    world.freeze()  # later answers are not that run's
    page = show_run(world.deployment, world.record, run)
    assert sum(row.count for row in page.uncounted) == 4
    assert page.to_json()["uncounted"][0]["links"]
    assert f"1 × {TWO}: {LINK}2" in shown(run_view(page, {}))


def test_doctor_names_the_first_tasks_and_the_remedy() -> None:
    assert answers([]).level is tasks([]).level is Level.OK
    found = [Uncounted(f"reason {i}", 9 - i, (1,), (f"{LINK}1",)) for i in range(5)]
    finding = answers(found)
    assert finding.level is Level.WARN
    assert finding.found.startswith(f"35 do not count. 9 × reason 0: {LINK}1 …; 8 × reason 1")
    assert finding.found.endswith("and 2 more reasons")
    assert "choose exactly one class" in finding.remedy
    assert tasks(found[:1]).level is Level.WARN


def test_doctor_reads_the_label_config_of_the_moment() -> None:
    def project(xml: str) -> StudioProject:
        return StudioProject(1, "pets", 0, xml, None, "", 1)

    assert label_config(project(make_label_config(["cat", "dog"]))).level is Level.OK
    finding = label_config(project(PER_REGION))
    assert (finding.level, "perRegion" in finding.found) == (Level.WRONG, True)


def test_a_project_whose_kept_config_is_refused_now_says_so_and_stops_no_other(world: OpsWorld) -> None:
    deps: Any = SimpleNamespace(
        studio=None, store=world.root, projects=world.deployment.projects, queue=SimpleNamespace(redis=None),
        list_images=lambda _uri: lambda: iter(()), fetch=None, patience=lambda _: None,
    )  # fmt: skip
    world.deployment.projects.put(replace(world.record, id=0, title="boxes", label_config=PER_REGION))
    heartbeat: Any = SimpleNamespace(facts={})
    lease: Any = None
    watcher = Watcher(deps, heartbeat=heartbeat, lease=lease)
    watcher._list()
    assert list(watcher._watched) == [world.record.key]
    ((key, facts),) = watcher._unserved.items()
    assert key == "main-0-0"
    assert "perRegion" in facts["problem"]
    assert "labelloop init --project 0" in facts["problem"]
    world.deployment.projects.remove(key)
    watcher._listed_at = float("-inf")
    watcher._list()
    assert watcher._unserved == {}


@pytest.mark.parametrize(("classes", "xml"), [(("cat", "$kind"), ""), (("cat", "dog"), PER_REGION)])
def test_init_refuses_before_anything_is_made(world: OpsWorld, classes: tuple[str, ...], xml: str) -> None:
    class Studio:
        url = "http://studio"

        def version(self) -> str:
            return "1"

        def whoami(self) -> str:
            return "me"

        def project(self, number: int) -> StudioProject:
            return StudioProject(number, "pets", 0, xml, None, "", 1)

    wish = Wish(ProjectConfig(name="pets"), "s3://images/p/", classes, adopt=5 if xml else None)
    studio: Any = Studio()  # has no way to make or change anything
    with pytest.raises(LabelConfigError, match=r"perRegion|filled in from each task"):
        wire(studio, world.deployment.projects, load_settings({}), wish)
    assert [record.id for record in world.deployment.projects.all()] == [1]
