"""`queue`, `queue failed`, `queue retry`, `queue discard`, `queue cancel`: what runs, what waits, what has failed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, StateDir, alone, command, group, out
from cli.terminal.screen import show_json
from operations.people import me

if TYPE_CHECKING:
    from labelloop.store.projects import ProjectRecord
    from operations.deployment import Deployment

queue = group("queue", "Show, retry, discard and cancel jobs.")

OneOrAll = Annotated[str | None, typer.Option("--project", help="Title, key or id. Default: all projects.")]
Jobs = Annotated[list[str] | None, typer.Argument(metavar="[JOB]…", help="Job ids, unique parts of them, or "
                                                  "`refresh`, `retrain` for all of a kind.")]  # fmt: skip
Everything = Annotated[bool, typer.Option("--all", help="All failed jobs.")]


@queue.callback(invoke_without_command=True, no_args_is_help=False)
def queue_or_list(
    context: typer.Context,
    project: OneOrAll = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """List running jobs (progress, time left), waiting and failed ones; retry, discard or cancel them."""
    if alone(context):
        listed(project, as_json, state_dir)


def list_jobs(project: OneOrAll = None, as_json: AsJson = False, state_dir: StateDir = DEFAULT_STATE) -> None:
    """List the jobs: running with progress and time left, waiting, failed."""
    from cli.views.jobs import queue_view
    from operations.history.jobs import read_queue

    page = read_queue(*_open(state_dir, project))
    if as_json:
        show_json(asdict(page))
        return
    out.print(queue_view(page))


def failed(
    whole: Annotated[bool, typer.Option("--whole", help="Show the full stack of each error.")] = False,
    project: OneOrAll = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Show each failed job's error, its cause, and what to do. The queue keeps them for an hour, `runs` for good."""
    from cli.views.jobs import failed_view
    from operations.history.jobs import failed_jobs, holds

    deployment, records = _open(state_dir, project)
    jobs = failed_jobs(deployment, records)
    held = [h for r in records for h in holds(deployment, r)]
    if as_json:
        rows = [asdict(j) | {"why": j.why, "advice": j.advice} for j in jobs]
        show_json({"jobs": rows, "holds": [asdict(h) for h in held]})
        return
    out.print(failed_view(jobs, held, {r.key: r.title for r in records}, whole=whole))


def retry(
    jobs: Jobs = None,
    everything: Everything = False,
    project: OneOrAll = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Try failed jobs again, once the cause is fixed; lifts the hold of runs that failed too often."""
    from cli.views.jobs import retried_view
    from operations.history.jobs import retry as run_retry

    retried = run_retry(*_open(state_dir, project), jobs or [], everything=everything, by=me())
    if as_json:
        show_json(asdict(retried))
        return
    out.print(retried_view(retried))


def discard(
    jobs: Jobs = None,
    everything: Everything = False,
    project: OneOrAll = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Forget failed jobs. Their run records stay; what is still wanted is derived again all the same."""
    from operations.history.jobs import discard as run_discard

    discarded = run_discard(*_open(state_dir, project), jobs or [], everything=everything)
    if as_json:
        show_json({"discarded": discarded})
        return
    for name in discarded:
        out.print(f"discarded: {name}", highlight=False)


def cancel(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB…", help="Job ids, or unique parts of them.")],
    project: OneOrAll = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """End jobs that run or wait: a retrain, a trial. The same inputs are not run again; new labels bring the next."""
    from operations.history.jobs import cancel as run_cancel

    for name in run_cancel(*_open(state_dir, project), jobs, by=me()):
        out.print(f"stops at its next step: {name}", highlight=False)


def _open(state_dir: Path, project: str | None) -> tuple[Deployment, list[ProjectRecord]]:
    from cli.connect import open_deployment

    deployment = open_deployment(state_dir)
    return deployment, [deployment.project(project)] if project else deployment.projects.all()


listed = command(list_jobs, to=queue, name="list")
for verb in (failed, retry, discard, cancel):
    command(verb, to=queue)
