"""`runs`, `run show`: every attempt of the project, and everything that is known of one."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, group, out
from cli.terminal.screen import show_json
from cli.terminal.values import Limit

run = group("run", "One run of the project: `labelloop run show ID`.")


class RunKind(StrEnum):
    """Kinds of runs."""

    REFRESH = "refresh"
    RETRAIN = "retrain"


class RunOutcome(StrEnum):
    """How a run ends."""

    RUNNING = "running"
    PROMOTE = "promote"
    HOLD = "hold"
    REJECT = "reject"
    FAILED = "failed"


@command
def runs(
    kind: Annotated[RunKind | None, typer.Option(help="Only runs of this kind.")] = None,
    outcome: Annotated[RunOutcome | None, typer.Option(help="Only runs with this outcome.")] = None,
    limit: Limit = 20,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """List the runs, newest first: decision, evidence and reason. Details of one: `run show`.

    "right" is the accuracy (out of fold; for a retrain on the test split), with the difference in points to the
    champion. ● marks the champion.
    """
    from cli.connect import open_deployment
    from cli.views.runs import runs_table
    from operations.history.runs import list_runs

    deployment = open_deployment(state_dir)
    rows = list_runs(deployment, deployment.project(project), kind=kind, outcome=outcome, limit=limit)
    if as_json:
        show_json([asdict(row) for row in rows])
        return
    out.print(runs_table(rows))


def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="A run from `labelloop runs`, the start of its "
                                        "id, its version (v17), or `latest`.")],
    annotations: Annotated[
        bool, typer.Option("--annotations", help="List the annotation revisions it was trained on.")
    ] = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:  # fmt: skip
    """Show everything of one run: reasons, evidence, inputs, times, its version, and what to do about it."""
    from cli.connect import open_deployment
    from cli.views.runs import run_view
    from operations.history.runs import find_run, show_run
    from operations.people import people

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    page = show_run(deployment, record, find_run(deployment, record, name), annotations=annotations)
    if as_json:
        show_json(page.to_json())
        return
    out.print(run_view(page, people(deployment) if annotations else {}))


command(show, to=run)
