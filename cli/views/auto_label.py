"""What was labelled alone, or why nothing was, in; a page for a terminal out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from labelloop.rules.auto_label.rule import percent
from labelloop.store.auto_labels import KeptPart, Manifest
from operations.data.auto_label import AutoLabelled, Row
from operations.history.snapshots import SHORT

LOOKS = 2  # from this look on it is said that each look costs


def auto_label_view(proposal: AutoLabelled) -> RenderableType:
    """Promise, bound and coverage; classes; sureness; what stays for people."""
    manifest = proposal.manifest
    title = Text.assemble(
        ("auto-label ", "dim"), (manifest.version, "bold"), f" on snapshot {manifest.snapshot[:SHORT]}"
    )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _facts(manifest):
        grid.add_row(name, value)
    parts: list[RenderableType] = [title, grid, Text(), _rows("the model says", proposal.by_class, "at or above it")]
    parts += [Text(), _rows("sureness", proposal.by_sureness, "audit"), Text()]
    return Group(*parts, *(Text(line) for line in notes(proposal)))


def notes(proposal: AutoLabelled) -> Iterator[str]:
    """What the figures do not say by themselves."""
    manifest, ground = proposal.manifest, proposal.ground
    if proposal.unread:
        yield proposal.unread
    if left := manifest.images - manifest.labelled:
        yield f"{left} images stay for people, hardest first"
    if ground.later:
        yield (
            f"{ground.later} audit labels do not count yet: unanswered images stand before them in the random order, "
            "and come next as the random quota (`queue.quota`)"
        )
    if ground.seen:
        yield f"{ground.seen} audit labels do not count: their pre-label was visible"
    if proposal.refused:
        more = max((part.further or 0 for part in manifest.parts), default=0)
        few = ", too few: new images bring more (`buckets.audit`)" if more > ground.open_audit else ""
        yield f"{ground.open_audit} audit images have no answer yet{few}"
    if manifest.look >= LOOKS:
        yield f"look {manifest.look} at this project's audit labels: asked until it says yes, a promise is worth less"


def _facts(manifest: Manifest) -> Iterator[tuple[str, RenderableType]]:
    promised = f"{percent(manifest.precision)} of the labels or more are right, judged by people's labels"
    yield "promised", Text(f"{promised}; at a confidence of {percent(manifest.confidence)}")
    coverage = f"{manifest.coverage:.1%}, {manifest.labelled} of {manifest.images} images that nobody has labelled"
    yield "coverage", Text(coverage, style="bold green") if manifest.labelled else Text("none", style="bold red")
    for part in manifest.parts:
        yield _name(part, manifest), Text(part.why, style="yellow") if part.why else Text(_part(part))
    yield "audit", Text(f"{manifest.audit} labels, drawn at random from {manifest.drawn_from} images")


def _name(part: KeptPart, manifest: Manifest) -> str:
    if len(manifest.parts) == 1:
        return "refused" if part.why else "evidence"
    return part.classes[0] if len(part.classes) == 1 else "other classes"


def _part(part: KeptPart) -> str:
    return (
        f"{part.threshold:.3f} sure or more: {part.labelled} of {part.images} images; {part.wrong} of {part.audit} "
        f"audit images wrong, so {part.bound:.1%} or more are right"
    )


def _rows(name: str, rows: Sequence[Row], audit: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(name)
    for heading in ("pool", "labelled", audit, "right among them"):
        table.add_column(heading, justify="right")
    for row in rows:
        right = f"{row.right} ({row.right / row.audit:.0%})" if row.audit else ""
        table.add_row(Text(row.name), str(row.pool), str(row.labelled), str(row.audit), right)
    return table
