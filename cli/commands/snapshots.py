"""`snapshots`, `snapshots diff`: what people had answered at a moment, and what they did between two."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, alone, command, group, out
from cli.terminal.screen import show_json
from cli.terminal.values import MOST, Limit

snapshots = group("snapshots", "Answers at a point in time: list the snapshots, or compare two.")

Used = Annotated[bool, typer.Option("--used", help="Only snapshots of a run or a version.")]
Quick = Annotated[bool, typer.Option("--quick", help="Without counts, faster: reads no snapshot.")]


@snapshots.callback(invoke_without_command=True, no_args_is_help=False)
def snapshots_or_list(  # noqa: PLR0913 -- a command's options are its interface
    context: typer.Context,
    limit: Limit = 15,
    used: Used = False,
    quick: Quick = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Answers at a point in time: list the snapshots (default), or compare two with `diff`."""
    if alone(context):
        listed(limit, used, quick, project, as_json, state_dir)


def list_them(
    limit: Limit = 15,
    used: Used = False,
    quick: Quick = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """List the snapshots, newest first, with the versions and runs that used them."""
    from cli.connect import open_deployment
    from cli.views.snapshots import snapshots_table
    from operations.history.snapshots import list_snapshots

    deployment = open_deployment(state_dir)
    rows = list_snapshots(deployment, deployment.project(project), limit=limit, used=used, count=not quick)
    if as_json:
        show_json([asdict(row) for row in rows])
        return
    out.print(snapshots_table(rows))


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="The start of a snapshot id, a version (v17: its "
                                          "training labels), or `latest`.")],
    after: Annotated[str, typer.Argument(metavar="[B]", help="The same. Default: the latest.")] = "latest",
    limit: Annotated[int, typer.Option(min=0, max=MOST, help="Changes to show, at most.")] = 40,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:  # fmt: skip
    """Show what people did between two snapshots: added, relabelled, removed, skipped, by class and by person."""
    from cli.connect import open_deployment
    from cli.views.snapshots import diff_view
    from operations.history.snapshots import between
    from operations.people import people

    deployment = open_deployment(state_dir)
    comparison = between(deployment, deployment.project(project), before, after)
    if as_json:
        show_json({**asdict(comparison), "counts": comparison.diff.counts})
        return
    out.print(diff_view(comparison, people(deployment), limit=limit))


listed = command(list_them, to=snapshots, name="list")
command(diff, to=snapshots)
