"""`gc`, `backup`, `restore`: what keeps a deployment alive for years."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, err, out
from cli.terminal.screen import show_json
from labelloop.errors import LabelloopError

if TYPE_CHECKING:
    from labelloop.store.projects import ProjectRecord
    from operations.damaged import DamagedObject
    from operations.deployment import Deployment
    from operations.upkeep.backup import BackedUp
    from operations.upkeep.gc import Heap, Tidying
    from operations.upkeep.restored import Restored


@command
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted; delete nothing.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Also show what is kept, and why.")] = False,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Only move unreadable objects to damaged/ beside them.")
    ] = False,
    project: Annotated[str | None, typer.Option("--project", help="Title, key or id. Default: all.")] = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Delete unused data: old versions, snapshots between them, features of old backbones, leftovers.

    This runs once a day by itself (`retention:` in the project's YAML). The deployment log stays, and nothing
    younger than a day is deleted.
    """
    from cli.connect import open_deployment
    from cli.terminal.reporting import reporting
    from operations.upkeep.gc import tidy

    deployment = open_deployment(state_dir)
    records = [deployment.project(project)] if project else deployment.projects.all()
    if damaged:
        _set_aside(deployment, records, dry_run=dry_run, as_json=as_json)
        return
    tidied, failed = [], []
    with reporting(err) as report:
        for record in records:
            try:
                tidied.append(tidy(deployment, record, report, dry_run=dry_run))
            except LabelloopError as error:  # the others can be tidied all the same
                failed.append(f"{record.title}: {error}")
    if as_json:
        show_json([asdict(one) for one in tidied])
    else:
        for one in tidied:
            _show(one, dry_run=dry_run, keep=keep)
    if failed:
        raise LabelloopError("\n".join(failed))


def _set_aside(
    deployment: Deployment, records: Sequence[ProjectRecord], *, dry_run: bool, as_json: bool
) -> None:  # fmt: skip
    from operations.damaged import damaged_objects, set_aside

    rows = []
    for record in records:
        unreadable = damaged_objects(deployment, record)
        moved = [] if dry_run else set_aside(deployment, record, unreadable)
        rows += [{**asdict(item), "moved": item.spare and not dry_run} for item in unreadable]
        if not as_json:
            _show_damaged(record.title, unreadable, moved)
    if as_json:
        show_json(rows)


def _show_damaged(title: str, unreadable: Sequence[DamagedObject], moved: Sequence[str]) -> None:
    out.print(f"{title}: {len(unreadable)} unreadable objects, {len(moved)} moved to damaged/", highlight=False)
    for item in unreadable:
        kept = "" if item.spare else " (stays)"
        out.print(f"  {item.key}{kept}: {item.reason}; {item.remedy}", highlight=False, markup=False, soft_wrap=True)


@command
def backup(
    path: Annotated[Path, typer.Option("--out", help="The file to write, e.g. digits.tar.")],
    features: Annotated[
        bool, typer.Option("--with-features/--without-features", help="Features are large and can be recomputed.")
    ] = True,
    images: Annotated[bool, typer.Option("--with-images", help="Include the images as stored in S3.")] = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Write a project to one file: labels, label config, models, deployment log, features; every hash verified.

    The loop may keep running. The file appears when it is complete. It holds no secret, but people's answers and
    e-mails. Read it with `labelloop restore`.
    """
    from cli.connect import open_deployment
    from cli.terminal.reporting import reporting
    from operations.upkeep.backup import BackupParts
    from operations.upkeep.backup import backup as run_backup

    deployment = open_deployment(state_dir)
    with reporting(err) as report:
        done = run_backup(deployment, deployment.project(project), path, BackupParts(features, images), report)
    if as_json:
        show_json(asdict(done))
    else:
        _show_backup(done)
    if done.damaged:
        raise typer.Exit(1)


@command
def restore(
    path: Annotated[Path, typer.Argument(help="A file that `labelloop backup` wrote.")],
    title: Annotated[str | None, typer.Option(help="Restore into a new Label Studio project with this name.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite versions and log entries created since the backup.")
    ] = False,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Restore a project from a file. The whole file is verified before anything is written.

    If Label Studio still has the project, missing and damaged objects in object storage are replaced, and newer objects
    stay. Otherwise, or with --title, a new project gets labels, models and log, and serves its champion at once.
    """
    from cli.connect import open_deployment
    from cli.terminal.reporting import reporting
    from operations.upkeep.restore import restore as run_restore

    deployment = open_deployment(state_dir)
    with reporting(err) as report:
        done = run_restore(deployment, path, title=title, force=force, report=report)
    if as_json:
        show_json(asdict(done))
    else:
        _show_restore(done)


def _show_backup(done: BackedUp) -> None:
    from operations.upkeep.gc import size_text

    images = f", {done.images} images" if done.images else ""
    out.print(
        f"{done.project} is in {done.path} ({size_text(done.bytes)}): {done.objects} objects, "
        f"{done.tasks} tasks with {done.annotations} answers{images}; live: {done.live or 'nothing'}", highlight=False,
    )  # fmt: skip
    for line in done.damaged:
        out.print(Text.assemble(("left out: ", "red"), line))


def _show_restore(done: Restored) -> None:
    if done.anew:
        what = f"{done.tasks} tasks with {done.annotations} answers, {done.put} objects, {done.images} images"
    else:
        what = f"{done.put} objects replaced, {done.intact} intact, {done.newer} newer than the backup"
    out.print(f"{done.project} ({done.key}): {what}; live: {done.live or 'nothing'}", highlight=False)
    for line in done.notes:
        out.print(f"  {line}", highlight=False)


def _show(tidied: Tidying, *, dry_run: bool, keep: bool) -> None:
    last = f"last cleanup {tidied.before[:16].replace('T', ' ')} UTC" if tidied.before else "never cleaned up before"
    out.print(Text.assemble((tidied.project, "bold"), f" ({tidied.key}), {last}"))
    if tidied.removed:
        out.print(_table("to delete" if dry_run else "deleted", tidied.removed))
    else:
        out.print("nothing to delete")
    if keep:
        out.print(_table("stays", tidied.kept))


def _table(title: str, heaps: Sequence[Heap]) -> Table:
    from operations.upkeep.gc import size_text

    table = Table(title, "objects", "size", "why", box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.columns[1].justify = table.columns[2].justify = "right"
    for heap in heaps:
        table.add_row(heap.what, str(heap.count), size_text(heap.bytes), heap.why)
    total = sum(h.count for h in heaps), size_text(sum(h.bytes for h in heaps))
    table.add_row(Text("together", style="bold"), str(total[0]), total[1], "")
    return table
