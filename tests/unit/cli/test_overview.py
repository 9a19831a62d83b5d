"""The page of `labelloop status`: it fits a terminal, says first what waits, and scrolls."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from rich.text import Text

from cli.terminal.scroll import ScrollWindow
from cli.views.overview import overview
from labelloop.clock import now
from labelloop.queue.jobs import JobState
from labelloop.rules.uncounted import Uncounted
from operations.status import Acceptance, ProjectStatus, Service, Status, UnreadableObject

GOOD = ProjectStatus(
    "main-1-5", "digits", "http://127.0.0.1:8080/projects/1", version="v7", deployed_at=now(), test_accuracy=0.9,
    test_n=40, annotations=340, today=23, until_refresh=4, until_retrain=120, pool={"images": 400, "featurised": 400},
)  # fmt: skip
BAD = replace(
    GOOD, title="スキャン " * 30, refused=("v8: the head's hash is wrong " * 9,), problem="no watcher " * 40,
    approvals=(("v9", "retrain", ("reason",)),),
    damaged=(UnreadableObject("projects/x/versions/v1.json", "no JSON", "gc"),),
    unread=3, uncounted=(Uncounted("two classes", 3, ()),), advice="stop", paused=None,
)  # fmt: skip
SERVICES = (
    Service("redis", True, "answers"), Service("s3", True, "answers"), Service("label studio", True, "1.23"),
    Service("worker:a", True, "works on refresh"), Service("worker:b", True, "works on train"),
    Service("backend", False, "none is running: nothing is pre-labelled"),
)  # fmt: skip
JOB = JobState("1", "retrain", "main-1-5", "started", stage="fine-tune on 300 labels", step=3, steps=20, eta_s=240.0)


def status(*projects: ProjectStatus, jobs: tuple[JobState, ...] = ()) -> Status:
    return Status(now(), SERVICES, projects, {"refresh": 0, "features": 2, "train": 0}, jobs, None)


def lines(page: object, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=500, markup=False)
    console.print(page)
    return console.file.getvalue().rstrip("\n").split("\n")  # type: ignore[attr-defined]


def test_the_page_says_in_lines_what_runs_how_good_it_is_and_what_comes() -> None:
    text = "\n".join(lines(overview(status(GOOD, jobs=(JOB,)))))
    for part in (
        "worker ×2", "backend: none is running", "1 running, waiting: 2 features", "v7, live since",
        "90% on 40 random labels (95 %: 77% to 96%)", "23 today, 340 in all",
        "retrain: fine-tune on 300 labels 3/20, 4 min left", "new model after 4 labels, retrain after 120 labels",
    ):  # fmt: skip
        assert part in text
    assert "for you" not in text


@pytest.mark.parametrize("width", [40, 80, 100, 200])
@pytest.mark.parametrize("project", [GOOD, BAD, ProjectStatus("k", "new", "u", problem="away")])
def test_a_project_takes_eight_lines_at_most_and_one_fits_a_small_terminal(project: ProjectStatus, width: int) -> None:
    head = len(lines(overview(status()), width))
    shown = lines(overview(status(project, jobs=(JOB,) * 9)), width)
    assert len(shown) <= 24
    block = shown[next(i for i, line in enumerate(shown) if line.startswith(project.title[:4])) :]
    assert len(block) <= 8
    assert head <= 8
    assert len(lines(overview(status(*[project] * 8)), width)) <= 6 + 8 * 9


def test_what_waits_for_a_person_comes_in_order_and_the_rest_is_counted() -> None:
    text = "\n".join(lines(overview(status(BAD)), 600))
    assert text.index("no watcher") < text.index("decide on retrain v9: `labelloop promote v9`")
    assert "4 more: status --project" in text


def test_few_random_labels_give_no_accuracy() -> None:
    few = replace(GOOD, test_accuracy=1.0, test_n=4, random_quota=Acceptance(3, 5))
    assert "5 random labels, needs 10" in "\n".join(lines(overview(status(few))))
    quota = replace(few, random_quota=Acceptance(8, 10))
    assert "80% on 10 random labels" in "\n".join(lines(overview(status(quota))))


def window_of(count: int, height: int) -> tuple[ScrollWindow, Console]:
    window = ScrollWindow()
    window.page = Text("\n".join(f"row {n}" for n in range(count)))
    return window, Console(file=io.StringIO(), width=80, height=height, force_terminal=False)


def seen(window: ScrollWindow, console: Console) -> list[str]:
    with console.capture() as captured:
        console.print(window, height=console.height)
    return captured.get().rstrip("\n").split("\n")


def test_what_fits_is_shown_whole_and_keys_do_nothing() -> None:
    window, console = window_of(10, 24)
    window.move(b"j")
    assert [row.strip() for row in seen(window, console)] == [f"row {n}" for n in range(10)]


def test_keys_scroll_a_long_page_to_its_end_and_no_further() -> None:
    window, console = window_of(100, 24)
    first = seen(window, console)
    assert first[0].strip() == "row 0"
    assert "lines 1 to 23 of 100" in first[-1]
    window.move(b"j")
    assert seen(window, console)[0].strip() == "row 1"
    for _ in range(9):
        window.move(b" ")
        last = seen(window, console)
    assert last[-2].strip() == "row 99"
    for _ in range(9):
        window.move(b"\x1b[5~")
        again = seen(window, console)
    assert again[0].strip() == "row 0"
