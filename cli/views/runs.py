"""Runs in short, or one in full, in; a page for a terminal out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cli.views.colours import COLOURS
from labelloop.records.evidence import Comparison, Evaluation
from operations.history.run_page import RunPage, Span, TrainedRevisions
from operations.history.run_rows import RunRow
from operations.people import who
from operations.words import ago, made_live

CONFLICTS_SHOWN = 8


def runs_table(rows: Sequence[RunRow]) -> RenderableType:
    """One line per run; the first reason as far as the terminal is wide."""
    if not rows:
        return Text("no matching run; next one: `labelloop status`")
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", expand=True)
    for name in ("run", "kind", "outcome", ""):
        table.add_column(name, no_wrap=True)
    for name in ("labels", "right", "took", "ago"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("why", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        version = Text(row.version or "", style="bold green" if row.live else "")
        table.add_row(
            row.short, row.kind, Text(row.outcome, style=COLOURS.get(row.outcome, "")),
            version.append(" ●" if row.live else ""), _labels(row), row.evidence, took(row.duration_s),
            ago(row.started_at).removesuffix(" ago"), Text(row.reason),
        )  # fmt: skip
    return table


def took(seconds: float | None) -> str:
    """A length of time, fine where it is short."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d}"


def run_view(page: RunPage, names: Mapping[int, str]) -> RenderableType:
    """One run, whole; people by the ``names`` of their accounts."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _rows(page):
        grid.add_row(name, value)
    parts: list[RenderableType] = [_title(page), grid]
    if page.trained:
        parts += [Text(), _trained(page.trained, names)]
    return Group(*parts)


def _labels(row: RunRow) -> str:
    if row.labels is None:
        return ""
    return f"{row.labels} +{row.new_labels}" if row.new_labels else str(row.labels)


def _title(page: RunPage) -> Text:
    run = page.run
    title = Text.assemble(("run ", "dim"), (run.id, "bold"), f"  {run.kind} of {page.project}  ")
    title.append(run.outcome, style=f"bold {COLOURS.get(run.outcome, '')}")
    if run.version:
        title.append(f" {run.version}", style="bold green" if page.live else "bold")
    return title.append(" ● live", style="bold green") if page.live else title


def _rows(page: RunPage) -> Iterable[tuple[str, RenderableType]]:
    run, version = page.run, page.version
    for i, reason in enumerate(run.reasons or ("not ended yet",)):
        yield ("why" if i == 0 else ""), Text(reason)
    if page.evaluation:
        yield from _evidence(page.evaluation)
    yield "snapshot", Text(run.snapshot)
    if page.learned_from != run.snapshot:
        yield (
            "",
            Text(f"the head was trained on {page.learned_from}, the newest when the backbone was ready", style="dim"),
        )
    code = run.code or (version.code if version else "not recorded")
    yield "config", Text(f"{run.config}   attempt {run.attempt}   labelloop {code}")
    yield "worker", Text(run.worker or "not recorded")
    yield "time", Text(_times(page))
    if version:
        yield "version", Text(_version(page))
        yield "parent", Text(version.parent or "none: the first")
    for i, span in enumerate(page.spans):
        yield ("live" if i == 0 else ""), Text(_span(span))
    if run.version and not page.spans:
        yield "live", Text("never was")
    for i, row in enumerate(page.uncounted):
        yield ("not counted" if i == 0 else ""), Text(row.told, style="yellow")
    for i, hint in enumerate(page.hints):
        yield ("next" if i == 0 else ""), Text(hint, style="cyan")


def _evidence(evaluation: Evaluation) -> Iterable[tuple[str, RenderableType]]:
    new = f", {evaluation.new_labels} of them new or changed since the champion" if evaluation.new_labels else ""
    yield "learned", Text(f"{evaluation.labels} train labels of {len(evaluation.classes)} classes{new}")
    if evaluation.accuracy is not None:
        low, high = evaluation.accuracy_low, evaluation.accuracy_high
        bounds = f" ({low:.3f} to {high:.3f})" if low is not None else ""
        yield "accuracy", Text(f"{evaluation.accuracy:.3f}{bounds} out of fold on {evaluation.judged_on} labels; "
                               f"largest class alone {evaluation.majority:.3f}")  # fmt: skip
    if evaluation.ece is not None:
        loss = f", log loss {evaluation.log_loss:.3f}" if evaluation.log_loss is not None else ""
        yield "sureness", Text(f"off by {100 * evaluation.ece:.1f} points on average (ECE){loss}")
    if evaluation.test_accuracy is not None:
        yield "test", Text(f"{evaluation.test_accuracy:.3f} right on {evaluation.test_n} labels of the test split")
    for name, compared in (("", evaluation.test_comparison), ("champion", evaluation.comparison),
                           ("reference", evaluation.reference)):  # fmt: skip
        if compared and compared.n:
            yield name, Text(_compared(compared))
    if evaluation.waiting:
        few = ", ".join(f"{name} {n}" for name, n in sorted(evaluation.waiting.items()))
        yield "waiting", Text(f"classes with too few labels: {few}", style="yellow")
    if conflicts := evaluation.conflicts:
        shown = ", ".join(uri.rsplit("/", 1)[-1] for uri in conflicts[:CONFLICTS_SHOWN])
        more = f" and {len(conflicts) - CONFLICTS_SHOWN} more" if len(conflicts) > CONFLICTS_SHOWN else ""
        yield "conflicts", Text(f"left out, the same image with several labels: {shown}{more}", style="yellow")


def _compared(comparison: Comparison) -> str:
    return (
        f"{comparison.challenger:.3f} against {comparison.champion:.3f} ({comparison.on}, {comparison.n}): "
        f"{100 * comparison.difference:+.1f} points, 95 % interval {100 * comparison.low:+.1f} to "
        f"{100 * comparison.high:+.1f}, {comparison.changed} predictions differ"
    )


def _times(page: RunPage) -> str:
    run = page.run
    parts = [f"queued {_clock(run.queued_at)}, waited {took(page.waited_s)}"] if run.queued_at else []
    parts.append(f"started {_clock(run.started_at)}")
    if run.ended_at:
        parts.append(f"ended {_clock(run.ended_at)}, took {took(page.took_s)}")
    return f"{', '.join(parts)} ({ago(run.started_at)})"


def _version(page: RunPage) -> str:
    version = page.version
    assert version is not None
    recipe = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in version.recipe.items())
    return f"{version.name}   backbone {version.backbone}   {recipe}"


def _span(span: Span) -> str:
    until = f"until {_day(span.until)}" if span.until else "until now"
    return f"{_day(span.since)} {until}, {made_live(span.action, span.by, span.why)}"


def _trained(trained: TrainedRevisions, names: Mapping[int, str]) -> RenderableType:
    """The revisions that trained, after a line that says what became of the others."""
    uses = ", ".join(f"{n} {use}" for use, n in trained.uses.items())
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("task", "annotation"):
        table.add_column(name, justify="right")
    for name in ("updated", "label", "who"):
        table.add_column(name)
    for r in trained.revisions:
        if r.use == "trained":
            table.add_row(str(r.task), str(r.annotation), _moment(r.updated_at), Text(r.label or ""),
                          Text(who(r.by, names)))  # fmt: skip
    head: list[Text] = [Text.assemble(("annotations  ", "bold"), f"{uses} (snapshot {trained.snapshot[:12]})")]
    head += [Text(trained.note, style="yellow")] if trained.note else []
    return Group(*head, table)


def _clock(moment: str | None) -> str:
    """Time of day, to the millisecond; the page gives the day by how long ago it was."""
    return moment[11:23] if moment else "?"


def _day(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _moment(moment: str) -> str:
    return moment[:19].replace("T", " ")
