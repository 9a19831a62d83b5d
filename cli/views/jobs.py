"""The queue, or what failed in it, in; a page for a terminal out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.views.runs import took
from labelloop.queue.failed import OURS, FailedJob
from labelloop.queue.jobs import JobState
from labelloop.rules.trigger import ATTEMPTS
from operations.history.jobs import Hold, QueuePage, Retried
from operations.words import ago

CALLS = 2  # of the way to the error that are shown
COLOURS = {"started": "cyan", "queued": "", "failed": "red"}
WORDS = {"started": "running", "queued": "waiting", "failed": "failed"}


def queue_view(page: QueuePage) -> RenderableType:
    """Everything, running first."""
    parts: list[RenderableType] = [Text(f"{title}: learning is {pause}", style="bold yellow") for title, pause in
                                   page.paused.items()]  # fmt: skip
    parts.append(_depths(page))
    if page.jobs:
        parts += [Text(), _jobs(page)]
    for hold in page.holds:
        parts += [Text(), _hold(hold)]
    if any(job.status == "failed" for job in page.jobs):
        parts += [Text(), Text("for the failed ones see `labelloop queue failed`", style="cyan")]
    return Group(*parts)


def failed_view(
    jobs: Sequence[FailedJob], holds: Sequence[Hold], titles: Mapping[str, str], *, whole: bool
) -> RenderableType:
    """Each failed job with its error, why, and what to do."""
    if not jobs and not holds:
        return Text("nothing has failed in the last hour, and nothing is on hold; `labelloop runs --outcome failed` "
                    "goes further back")  # fmt: skip
    parts: list[RenderableType] = []
    for hold in holds:
        parts += [_hold(hold), Text()]
    for job in jobs:
        parts += [_failed(job, titles.get(job.project, job.project), whole=whole), Text()]
    return Group(*parts[:-1])


def retried_view(retried: Retried) -> RenderableType:
    """What will happen now."""
    lines = [f"queued again: {name}" for name in retried.requeued]
    lines += [f"out of the queue: {name}" for name in retried.derived]
    lines += [f"earlier failures no longer count: {what}" for what in retried.lifted]
    lines += [f"already queued again by the watcher: {name}" for name in retried.gone]
    parts: list[RenderableType] = [Text(line) for line in lines]
    if retried.lifted and retried.watched:
        parts.append(Text("the watcher now queues what is still needed; see `labelloop queue`", style="cyan"))
    if not retried.watched:
        parts.append(Text("no watcher runs: start sync, or nothing will be queued", style="bold red"))
    return Group(*parts)


def _depths(page: QueuePage) -> RenderableType:
    depths = []
    for name, n in page.waiting.items():
        workers = page.workers.get(name, 0)
        depths.append(f"{name} {n}" + ("" if workers else " (no worker)"))
    return Text.assemble(("waiting  ", "bold"), "   ".join(depths))


def _jobs(page: QueuePage) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for name in ("", "job", "project"):
        table.add_column(name, no_wrap=True)
    table.add_column("stage", ratio=1)
    for name in ("done", "left", "since"):
        table.add_column(name, no_wrap=True, justify="right")
    for job in page.jobs:
        table.add_row(Text(WORDS[job.status], style=COLOURS[job.status]), job.kind,
                      Text(page.titles.get(job.project, job.project)), *_progress(job))  # fmt: skip
    return table


def _progress(job: JobState) -> tuple[RenderableType, ...]:
    since = job.started_at if job.status == "started" else job.queued_at
    when = ago(since) if since else ""
    if job.status == "failed":
        return Text(job.error.removeprefix(OURS), style="red", overflow="ellipsis", no_wrap=True), "", "", when
    if job.status == "queued":
        return "", "", "", when
    done = f"{100 * job.step / job.steps:.0f} %" if job.steps else ""
    return job.stage or "starting", done, took(job.eta_s), when


def _hold(hold: Hold) -> RenderableType:
    title = f"{hold.kind} of {hold.title} is on hold: it failed {hold.failed} times"
    others = "another config or code" if hold.kind == "retrain" else "new labels"
    remedy = f"fix the cause, then `labelloop queue retry {hold.kind}`; {others} also lift the hold"
    return Group(
        Text(title, style="bold red"), _named(("why", f"{hold.reason} (run {hold.run})", ""), ("do", remedy, "cyan"))
    )  # fmt: skip


def _failed(job: FailedJob, title: str, *, whole: bool) -> RenderableType:
    when = ago(job.failed_at) if job.failed_at else ""
    where = f"  on {job.worker}" if job.worker else ""
    lines = job.error.splitlines()
    way = lines if whole else _last_calls(lines[: len(lines) - len(job.why.splitlines())])
    parts: list[RenderableType] = [
        Text.assemble((job.kind, "bold red"), f" of {title}  failed {when}", (where, "dim")),
    ]  # fmt: skip
    if way:
        parts.append(Text("\n".join(way), style="dim"))
    why = job.why or "its worker gave no reason"
    return Group(*parts, _named(("job", job.id, ""), ("why", why, ""), ("do", job.advice, "cyan"),
                                ("", _again(job), "cyan")))  # fmt: skip


def _last_calls(stack: list[str]) -> list[str]:
    """The end of a stack, whole calls."""
    calls = [i for i, line in enumerate(stack) if line.lstrip().startswith('File "')]
    return stack[calls[-CALLS] :] if len(calls) >= CALLS else stack


def _named(*rows: tuple[str, str, str]) -> Table:
    """Lines that stay behind their names where they are long: (name, text, style)."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=5)
    grid.add_column(overflow="fold")
    for name, text, style in rows:
        grid.add_row(f"  {name}", Text(text, style=style))
    return grid


def _again(job: FailedJob) -> str:
    if job.recorded:
        return f"it is retried by itself, {ATTEMPTS} times per snapshot; after that `labelloop queue retry {job.kind}`"
    return "it is retried by itself, at growing intervals; at once with `labelloop queue retry`"
