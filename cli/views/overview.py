"""A picture of the loop in, at most eight lines of each project out: what fits a terminal of 80×24.

`status_view` shows everything of a project (`labelloop status --project NAME`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from labelloop.queue.jobs import JobState
from labelloop.rules.intervals import wilson
from operations.status import ProjectStatus, Service, Status
from operations.words import ago, span

WAITING_LINES = 2  # of what waits for a person
JOB_LINES = 3
FEW = 10  # random labels: fewer say nothing of the accuracy
KINDS = ("sync", "worker", "backend")  # processes, as their heartbeats are called


def overview(status: Status) -> RenderableType:
    """Services and queue, then a block for each project."""
    parts: list[RenderableType] = [*_services(status.services), *_queue(status)]
    for record in status.damaged:
        parts.append(Text(f"{record.key} cannot be read: {record.reason}; {record.remedy}", style="red"))
    if not status.projects:
        parts += [Text(), Text("No project yet: `labelloop init` makes one.")]
    for project in status.projects:
        parts += [Text(), _block(project, status.jobs)]
    return Group(*parts)


def _line(text: Text) -> Text:
    """One line, whatever it holds."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _services(services: Sequence[Service]) -> Iterator[Text]:
    """All that is well in one line, each that is not in one of its own."""
    line = Text()
    for name, count in _counted(services):
        line.append("● ", style="green").append(f"{name}{f' ×{count}' if count > 1 else ''}  ")
    yield _line(line)
    for service in services:
        if not service.ok:
            yield _line(Text.assemble(("● ", "red"), (f"{service.name}: {service.note}", "red")))


def _counted(services: Sequence[Service]) -> list[tuple[str, int]]:
    """Processes by kind: there may be many of each."""
    names = [s.name.partition(":")[0] for s in services if s.ok]
    return [(name, names.count(name)) for name in dict.fromkeys(names)]


def _queue(status: Status) -> Iterator[Text]:
    waiting = ", ".join(f"{count} {name}" for name, count in status.queue.items() if count)
    failed = sum(job.status == "failed" for job in status.jobs)
    running = [job for job in status.jobs if job.status == "started"]
    line = Text.assemble(("Queue  ", "bold"), f"{len(running)} running, waiting: {waiting or 'nothing'}")
    if failed:
        line.append(f", {failed} failed: `labelloop queue`", style="red")
    yield _line(line)
    for job in running[:JOB_LINES]:
        yield _line(Text(f"       {_doing(job)}"))
    if len(running) > JOB_LINES:
        yield Text(f"       and {len(running) - JOB_LINES} more: `labelloop queue`", style="dim")


def _doing(job: JobState) -> str:
    step = f" {job.step}/{job.steps}" if job.steps else ""
    left = f", {span(job.eta_s)} left" if job.eta_s is not None else ""
    return f"{job.kind}: {job.stage or 'starting'}{step}{left}"


def _block(project: ProjectStatus, jobs: Sequence[JobState]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, width=8)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for name, value in _rows(project, jobs):
        grid.add_row(name, _line(value))
    return Group(_line(Text.assemble((project.title, "bold"), (f"  {project.url}", "dim"))), grid)


def _rows(project: ProjectStatus, jobs: Sequence[JobState]) -> Iterator[tuple[str, Text]]:
    if project.version is None and project.problem and not project.annotations:
        yield "problem", Text(project.problem, style="red")
        return
    yield "model", _model(project)
    yield "accuracy", _accuracy(project)
    yield "labels", Text(f"{project.today} today, {project.annotations} in all")
    yield "now", _now(project, jobs)
    yield "next", _next(project)
    yield from _waits(project)


def _model(project: ProjectStatus) -> Text:
    if project.version is None:
        return Text("none yet: cold-start order", style="yellow")
    when = f", live since {ago(project.deployed_at)}" if project.deployed_at else ""
    return Text.assemble((project.version, "bold green"), when, (f"  {project.network}", "dim"))


def _accuracy(project: ProjectStatus) -> Text:
    """On labels drawn at random: the champion's on the test split, else what people saw lately."""
    if project.test_accuracy is not None and project.test_n >= FEW:
        return _share(round(project.test_accuracy * project.test_n), project.test_n)
    quota = project.random_quota
    if quota.of >= FEW:
        return _share(quota.right, quota.of)
    return Text(f"{max(project.test_n, quota.of)} random labels, needs {FEW}", style="dim")


def _share(right: int, n: int) -> Text:
    low, high = wilson(right, n)
    return Text.assemble((f"{right / n:.0%}", "bold"), f" on {n} random labels (95 %: {low:.0%} to {high:.0%})")


def _now(project: ProjectStatus, jobs: Sequence[JobState]) -> Text:
    if project.paused:
        return Text(f"paused: {project.paused.in_words}; `labelloop resume` ends it", style="yellow")
    running = [job for job in jobs if job.project == project.key and job.status == "started"]
    lacking = int(project.pool.get("images", 0)) - int(project.pool.get("featurised", 0))
    lacking -= int(project.pool.get("unreadable", 0))
    images = f"{lacking} images have no features yet" if lacking > 0 else ""
    doing = "; ".join(filter(None, [*map(_doing, running), images]))
    return Text(doing or "nothing runs", style="cyan" if running else "")


def _next(project: ProjectStatus) -> Text:
    if project.until_refresh is None:
        return Text("not known: is sync running?", style="yellow")
    text = Text(f"new model {_due(project.until_refresh, 'refresh' in project.running)}, "
                f"retrain {_due(project.until_retrain, 'retrain' in project.running)}")  # fmt: skip
    if project.waiting and not project.paused:
        text.append(f" ({project.waiting})", style="yellow")
    return text


def _due(labels: int | None, running: bool) -> str:
    if running:
        return "running"
    return f"after {labels} labels" if labels else "due"


def _waits(project: ProjectStatus) -> Iterator[tuple[str, Text]]:
    """What waits for a person, the most urgent first; the rest is counted."""
    lines = list(_waiting(project))
    for number, line in enumerate(lines[:WAITING_LINES]):
        more = len(lines) - WAITING_LINES if number == WAITING_LINES - 1 else 0
        rest = f"; {more} more: status --project" if more > 0 else ""
        yield ("for you" if not number else ""), Text(line, style="yellow").append(rest, style="dim")


def _waiting(project: ProjectStatus) -> Iterator[str]:
    if project.problem:
        yield project.problem
    for name, kind, _ in project.approvals:
        yield f"decide on {kind} {name}: `labelloop promote {name}` or `reject {name}`"
    yield from project.refused
    if project.damaged:
        yield f"{len(project.damaged)} objects cannot be read, e.g. {project.damaged[0].key}"
    if project.unread:
        yield f"{project.unread} answers not counted: {project.uncounted[0].told}"
    if project.unreadable:
        yield f"tasks left out: {project.unreadable[0].told}"
    if project.conflicts:
        yield f"{len(project.conflicts)} duplicates with contradicting labels"
    if project.without_count:
        yield f"{project.without_count} labelled images have no features"
    yield from project.anchored
    if project.poor_network:
        yield f"network {project.network}"
    for why, row in (project.pool.get("left_out") or {}).items():
        yield f"{row['count']} objects left out: {why}"
    if project.advice == "stop":
        yield f"enough labels? {project.advice_why[0] if project.advice_why else 'see `labelloop curve`'}"
