"""`schema`: what becomes of labels whose class was renamed or removed in Label Studio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, agree, command, out
from cli.terminal.screen import show_json
from labelloop.errors import SettingsError

if TYPE_CHECKING:
    from operations.projects.schema import Effect, SchemaView


@command
def schema(  # noqa: PLR0913 -- a command's options are its interface
    maps: Annotated[
        list[str] | None, typer.Option("--map", help="OLD=NEW: labels of OLD count as NEW. May be repeated.")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="A class whose labels do not count. May be repeated.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Undo the decision on a class that is offered again.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change. Change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Show the classes. Decide on labels whose class was renamed or removed in Label Studio.

    Until you decide, nothing new is learned and the champion keeps serving. Labels in Label Studio do not change:
    the decision is kept in the project's config (`label_map`).
    """
    from cli.connect import open_deployment
    from labelloop.rules.migration import Wishes
    from operations.projects.schema import SchemaReader, write

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    reader = SchemaReader(deployment, record)
    wishes = Wishes(_pairs(maps or ()), tuple(drop or ()), tuple(keep or ()))
    if not wishes:
        _show(reader.view(), as_json=as_json)
        return
    effect = reader.effect(wishes)
    _show_effect(effect, as_json=as_json)
    if dry_run:
        return
    if not yes:
        agree("this counts from the next refresh on", "add --yes. Nothing was changed")
    write(deployment, record, effect.label_map)
    if not as_json:
        out.print("saved; the next refresh uses it")


def _pairs(words: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        old, equals, new = word.partition("=")
        if not (old and equals and new):
            raise SettingsError(f"--map wants OLD=NEW, not {word!r}")
        if old in pairs:
            raise SettingsError(f"{old!r} is mapped twice")
        pairs[old] = new
    return pairs


def _show(view: SchemaView, *, as_json: bool) -> None:
    from operations.projects.schema import SPLITS

    if as_json:
        show_json(view.to_json())
        return
    table = Table("class", "offered", *SPLITS, f"head {view.version or ''}".strip(), "", box=None)
    for row in view.rows:
        counts = [str(row.labels.get(b, "")) for b in SPLITS]
        state = Text(row.state, style="yellow" if row.name in view.undecided else "")
        table.add_row(row.name, "yes" if row.offered else "no", *counts, "knows" if row.in_head else "", state)
    out.print(table)
    if not view.undecided:
        out.print("\nnothing to decide")
        return
    out.print("\nLearning waits for a decision on the labels of these classes. Likely:")
    for p in view.proposals:
        what = f"{p.kind.value} {p.old} to {p.new}" if p.new else f"{p.kind.value} {p.old}"
        out.print(Text.assemble("  ", (what, "bold"), f"  {p.option}   ", (p.why, "dim")))
    options = " ".join(p.option for p in view.proposals)
    out.print(f"\n  labelloop schema {options} --dry-run", highlight=False, soft_wrap=True)


def _show_effect(effect: Effect, *, as_json: bool) -> None:
    from dataclasses import asdict

    from operations.projects.schema import SPLITS

    if as_json:
        show_json(asdict(effect))
        return
    table = Table("class", *SPLITS, box=None)
    for name in sorted({*effect.before, *effect.after}):
        before, after = effect.before.get(name, {}), effect.after.get(name, {})
        cells = [(before.get(b, 0), after.get(b, 0)) for b in SPLITS]
        texts = [Text.assemble(f"{old} → ", (str(new), "bold")) if old != new else str(old or "") for old, new in cells]
        table.add_row(name, *texts)
    out.print(table)
    if effect.undecided:
        left = ", ".join(f"{name} ({n})" for name, n in effect.undecided.items())
        out.print(f"still to be decided: {left}", style="yellow", highlight=False)
