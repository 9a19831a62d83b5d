"""Snapshots, or what happened between two, in; a page for a terminal out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from labelloop.rules.snapshot_diff import ChangeKind, TaskChange
from operations.history.snapshots import SHORT, Between, SnapshotRow
from operations.people import who
from operations.words import ago

CHANGES_SHOWN = 40
STYLES = {
    ChangeKind.ADDED: "green",
    ChangeKind.RELABELLED: "yellow",
    ChangeKind.REMOVED: "red",
    ChangeKind.SKIPPED: "magenta",
}


def snapshots_table(rows: Sequence[SnapshotRow]) -> RenderableType:
    """One line per snapshot."""
    if not rows:
        return Text("no snapshot yet: nothing is labelled, or sync is not running")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("snapshot", no_wrap=True)
    table.add_column("frozen", no_wrap=True)
    for name in ("labelled", "", "skipped", "answers"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("versions", no_wrap=True)
    table.add_column("runs on it", overflow="ellipsis", no_wrap=True, ratio=1)
    for row in rows:
        c = row.counts
        more = f"{row.more:+d}" if row.more else ""
        counts = (str(c.labelled), more, str(c.skipped), str(c.annotations)) if c else ("", "", "", "")
        shown = Text.assemble(row.id[:SHORT], (" latest" if row.latest else "", "bold green"))
        when = ago(row.at) if row.at else "no longer kept"
        table.add_row(shown, when, *counts, ", ".join(row.versions), ", ".join(row.runs))
    return table


def diff_view(comparison: Between, names: Mapping[int, str], *, limit: int = CHANGES_SHOWN) -> RenderableType:
    """What happened, newest first; people by the ``names`` of their accounts."""
    diff = comparison.diff
    parts: list[RenderableType] = [
        Text.assemble(("from ", "dim"), comparison.before[:SHORT], (" to ", "dim"), (comparison.after[:SHORT], "bold"))
    ]
    if not diff.changes:
        return Group(*parts, Text("nothing differs: the two hold the same answers"))
    counts = ", ".join(f"{n} {what}" for what, n in diff.counts.items() if n)
    answers = diff.annotations
    summary = f"{answers.added} added, {answers.changed} changed, {answers.removed} removed"
    parts += [Text(f"tasks    {counts}"), Text(f"answers  {summary}"), Text(), _classes(diff.classes)]
    if diff.people:
        parts += [Text(), _people(diff.people, names)]
    parts += [Text(), _changes(diff.changes[:limit], names)]
    if len(diff.changes) > limit:
        parts.append(Text(f"and {len(diff.changes) - limit} more: --limit shows them, --json has all", style="dim"))
    return Group(*parts)


def _classes(classes: Mapping[str, tuple[int, int]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("class", overflow="fold")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right")
    for name, (before, after) in classes.items():
        table.add_row(Text(name), str(before), str(after), f"{after - before:+d}" if after != before else "")
    return table


def _people(people: Mapping[int, Mapping[str, int]], names: Mapping[int, str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("who", overflow="fold")
    for what in ChangeKind:
        table.add_column(what.value, justify="right")
    for account, counts in people.items():
        table.add_row(Text(who(account, names)), *(str(counts.get(what.value, "")) for what in ChangeKind))
    return table


def _changes(changes: Sequence[TaskChange], names: Mapping[int, str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("task", justify="right", no_wrap=True)
    for name in ("what", "class", "when", "who", "image"):
        table.add_column(name, no_wrap=name in {"what", "when"}, overflow="ellipsis" if name == "image" else "fold")
    for c in changes:
        by = "seed" if c.seed else ", ".join(who(a, names) for a in c.by) or "unknown"
        table.add_row(
            str(c.task), Text(c.what.value, style=STYLES.get(c.what, "")), Text(_class(c)), ago(c.at), Text(by),
            Text(c.uri.rsplit("/", 1)[-1]),
        )  # fmt: skip
    return table


def _class(change: TaskChange) -> str:
    """The class, or the two between which it went."""
    if change.before is None or change.before == change.after:
        return change.after or ""
    return f"{change.before} → {change.after or '–'}"
