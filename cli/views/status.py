"""A picture of the loop in, a page for a terminal out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.views.colours import COLOURS
from labelloop.names import shown
from labelloop.queue.jobs import JobState
from labelloop.records.runs import Run
from labelloop.rules.uncounted import REMEDY, Uncounted
from operations.status import Acceptance, ProjectStatus, Status, UnreadableObject
from operations.words import ago, span

REASONS = 4  # that are shown
MOST_DAMAGED = 5


def render(status: Status) -> RenderableType:
    """The whole page."""
    parts: list[RenderableType] = [_project(p) for p in status.projects]
    parts += [_unread_record(unread) for unread in status.damaged]
    if not parts:
        parts = [Panel("no project yet: `labelloop init` adds one", title="projects")]
    return Group(*parts, _queue(status), _services(status))


def _unread_record(unread: UnreadableObject) -> Panel:
    text = Text(f"{unread.key} cannot be read: {unread.reason}; {unread.remedy}", style="bold red")
    return Panel(text, title="damaged", title_align="left")


def _project(project: ProjectStatus) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    for name, value in _rows(project):
        grid.add_row(name, value)
    parts: list[RenderableType] = [grid]
    if project.runs:
        parts += [Text(), _runs(project.runs)]
    return Panel(Group(*parts), title=Text.assemble(project.title, (f"  {project.url}", "dim")), title_align="left")


def _rows(project: ProjectStatus) -> Iterator[tuple[str, RenderableType]]:
    if project.paused:
        yield "learning", Text(f"{project.paused.in_words}; `labelloop resume` ends it", style="bold yellow")
    yield from _model_rows(project)
    yield from _people_rows(project)
    yield "serving", _serving(project)
    yield "labels", _labels(project)
    yield "next", _next(project)
    if project.order:
        yield "shown first", Text(project.order)
    yield "images", _images(project)
    for line in _left_out(project.pool):
        yield "", Text(line, style="yellow")
    yield "network", Text(project.network, style="bold red" if project.poor_network else "dim")
    if any(project.copies.get(k) for k in ("copied", "waiting", "failed")):
        yield "from elsewhere", _copies(project.copies)
    yield "pre-labels right", _acceptance(project.random_quota, project.chosen)
    if project.advice:
        yield "enough?", _enough(project)
    for refused in project.refused:
        yield "refused", Text(refused, style="bold red")
    if project.without:
        yield "learns without", _without(project)
    for damaged in project.damaged[:MOST_DAMAGED]:
        yield "damaged", Text(f"{damaged.key}: {damaged.reason}; {damaged.remedy}", style="yellow")
    if len(project.damaged) > MOST_DAMAGED:
        more = len(project.damaged) - MOST_DAMAGED
        yield "", Text(f"and {more} more: `labelloop gc --damaged --dry-run` lists them", style="yellow")
    if project.problem:
        yield "problem", Text(project.problem, style="bold red")


def _without(project: ProjectStatus) -> Text:
    """Labelled images that hold nothing up."""
    more = project.without_count - len(project.without)
    rest = f"; and {more} more" if more > 0 else ""
    return Text(f"{project.without_count} labelled images: {'; '.join(project.without)}{rest}", style="yellow")


def _model_rows(project: ProjectStatus) -> Iterator[tuple[str, RenderableType]]:
    """The champion and its evidence."""
    yield "model", _model(project)
    for reason in project.evidence:
        yield "", Text(reason, style="dim")
    if project.test_accuracy is not None:
        right = f"{project.test_accuracy:.3f} right on {project.test_n} labels of the test split"
        yield "", Text(right, style="dim")


def _people_rows(project: ProjectStatus) -> Iterator[tuple[str, RenderableType]]:
    """What waits for a person, or should make one look."""
    for name, kind, reasons in project.approvals:
        decision = f"{kind} {name}: `labelloop promote {name}` or `reject {name}`"
        yield "your decision", Text(decision, style="bold yellow")
        for reason in reasons[:2]:
            yield "", Text(reason, style="dim")
    yield from _uncounted("not counted", f"{project.unread} answers: {REMEDY}", project.uncounted)
    yield from _uncounted("unreadable", "tasks that are left out", project.unreadable)
    if project.empties.get("deleted"):
        yield "shown again", Text(f"{project.empties['deleted']} tasks whose answer was empty; it was deleted", "dim")
    if project.empties.get("problem"):
        yield "", Text(str(project.empties["problem"]), style="yellow")
    if project.aside:
        yield "not counted", Text(f"{sum(project.aside.values())} labels, beside other images", style="yellow")
        for why, count in project.aside.items():
            yield "", Text(f"{count}: {why}", style="dim")
    if project.conflicts:
        names = ", ".join(uri.rsplit("/", 1)[-1] for uri in project.conflicts[:4])
        duplicates = f"{len(project.conflicts)} duplicates with contradicting labels: {names}"
        yield "left out", Text(duplicates, style="yellow")
    for text in project.anchored:
        yield "unread?", Text(f"{text}: see `labelloop value`", style="yellow")


def _uncounted(name: str, summary: str, rows: Sequence[Uncounted]) -> Iterator[tuple[str, RenderableType]]:
    """What was left out, and why."""
    if rows:
        yield name, Text(summary, style="yellow")
    for row in rows[:REASONS]:
        yield "", Text(row.told, style="dim")
    if len(rows) > REASONS:
        yield "", Text(f"and {len(rows) - REASONS} more reasons: `labelloop status --json`", style="dim")


def _model(project: ProjectStatus) -> Text:
    if project.version is None:
        return Text("none yet: cold-start order", style="yellow")
    when = ago(project.deployed_at) if project.deployed_at else ""
    return Text.assemble((project.version, "bold green"), f"  live since {when}  ", (project.deployed_by, "dim"))


def _serving(project: ProjectStatus) -> Text:
    if not project.serving:
        return Text("no backend has loaded this project yet", style="yellow")
    wrong = {n: v for n, v in project.serving.items() if project.version and v != project.version}
    text = ", ".join(f"{name} {version or 'has no model yet'}" for name, version in project.serving.items())
    shown = f"; Label Studio shows {project.published}" if project.published else ""
    return Text(text + shown, style="yellow" if wrong else "")


def _labels(project: ProjectStatus) -> Text:
    classes = ", ".join(f"{name} {n}" for name, n in sorted(project.labels.items(), key=lambda item: -item[1])[:12])
    more = f" and {len(project.labels) - 12} more" if len(project.labels) > 12 else ""
    return Text(f"{project.annotations} annotations; train: {classes or 'none'}{more}")


def _next(project: ProjectStatus) -> Text:
    if project.until_refresh is None:
        return Text("not known: is sync running?", style="yellow")
    text = f"refresh {_when(project.until_refresh, 'refresh' in project.running)}"
    text += f", retrain {_when(project.until_retrain, 'retrain' in project.running)}"
    text += "".join(f", or {other}" for other in project.watched[1:])
    waits = project.waiting if not project.paused else "after the pause"  # who and why stands above
    return Text.assemble(text, (f"  ({waits})" if waits else "", "yellow"))


def _when(labels: int | None, running: bool) -> str:
    if running:
        return "running or queued"
    return f"after {labels} labels" if labels else "due"


def _images(project: ProjectStatus) -> RenderableType:
    pool = project.pool
    images, done, bad = (int(pool.get(k, 0)) for k in ("images", "featurised", "unreadable"))
    text = f"{images}, {done} with features" + (f", {bad} unreadable" if bad else "")
    if pool.get("importing"):
        text += ", new ones are being synced into Label Studio"
    if images and done + bad < images:
        return Group(Text(text), ProgressBar(total=images, completed=done + bad, width=40))
    return Text(text)


def _left_out(pool: Mapping[str, Any]) -> Iterator[str]:
    """Objects of the image bucket that are no tasks."""
    for why, group in (pool.get("left_out") or {}).items():
        yield f"{group['count']} left out: {why}, e.g. {shown(group['example'])}"
    if pool.get("refused"):
        one = shown(pool["refused_one"])
        yield f"{pool['refused']} not imported by Label Studio's storage, e.g. {one}: see its prefix and filter there"


def _copies(copies: Mapping[str, Any]) -> Text:
    """Images that are not in S3."""
    text = Text(f"{copies.get('copied', 0)} copied to S3")
    if copies.get("waiting"):
        text.append(f", {copies['waiting']} to be copied", style="yellow")
    if copies.get("failed"):
        text.append(f", {copies['failed']} unavailable: {copies.get('problem')}", style="yellow")
    return text


def _acceptance(random: Acceptance, chosen: Acceptance) -> Text:
    if random.share is None:
        first = "random quota: none labelled since the first model"
    else:
        first = f"random quota {random.share:.0%} ({random.right} of {random.of})"
    second = f"   chosen images {chosen.share:.0%}" if chosen.share is not None else ""
    hint = "  (chosen images are the hardest: go by the quota)" if second else ""
    return Text.assemble((first, "bold"), second, (hint, "dim"))


def _enough(project: ProjectStatus) -> Text:
    """The advice with its first reason, and the forecast where that is another."""
    why = project.advice_why[0] if project.advice_why else ""
    more = f"  {project.forecast}" if project.forecast and project.forecast != why else ""
    return Text.assemble((project.advice or "", "bold"), f": {why}", (more, "dim"))


def _runs(runs: Iterable[Run]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("decision", "", "version", "when", "why"):
        table.add_column(name, no_wrap=name != "why")
    for run in reversed(list(runs)):
        outcome = Text(run.outcome, style=COLOURS.get(run.outcome, ""))
        table.add_row(run.kind, outcome, run.version or "", ago(run.started_at), "; ".join(run.reasons[:2]))
    return table


def _queue(status: Status) -> Panel:
    depths = "  ".join(f"{name} {n}" for name, n in status.queue.items()) or "not known"
    lines: list[RenderableType] = [Text(f"waiting: {depths}")]
    lines += [_job(job) for job in status.jobs if job.status != "queued"][:8]
    if status.dashboard:
        lines.append(Text(f"rq-dashboard: {status.dashboard}", style="dim"))
    return Panel(Group(*lines), title="queue", title_align="left")


def _job(job: JobState) -> RenderableType:
    if job.status == "failed":
        return Text(f"failed: {job.kind} {job.error}", style="red")
    left = f", {span(job.eta_s)} left" if job.eta_s is not None else ""
    text = Text(f"{job.kind}: {job.stage or 'starting'} {f'{job.step}/{job.steps}' if job.steps else ''}{left}")
    if not job.steps:
        return text
    grid = Table.grid(padding=(0, 2))
    grid.add_row(text, ProgressBar(total=job.steps, completed=job.step, width=30))
    return grid


def _services(status: Status) -> Panel:
    table = Table.grid(padding=(0, 2))
    for service in status.services:
        table.add_row(Text("●", style="green" if service.ok else "red"), service.name, Text(service.note, style="dim"))
    return Panel(table, title="services", title_align="left")
