"""`pause`, `resume`: a project stops learning, or goes on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, out
from cli.terminal.screen import show_json
from operations.people import me


@command
def pause(
    why: Annotated[str, typer.Option(help="Shown in status and doctor.")] = "",
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Pause learning: no refresh, no retrain, and no running run goes live. Labelling continues.

    New labels are still stored, and the champion still pre-labels. `promote` and `rollback` still work.
    """
    from cli.connect import open_deployment
    from operations.models.learning import pause as run_pause

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    paused = run_pause(deployment, record, by=me(), why=why)
    if as_json:
        show_json(asdict(paused))
        return
    was = "was already" if paused.already else "is now"
    out.print(f"learning of {record.title} {was} {paused.pause.in_words}", highlight=False)
    if paused.already and why:
        out.print("the reason is unchanged; to change it, run `labelloop resume` first", highlight=False)
    out.print(f"{paused.live or 'the cold-start order'} keeps serving; `labelloop resume` ends the pause")
    if not paused.settled:
        out.print("a deploy may have been running: check `labelloop status`", style="yellow")


@command
def resume(project: ProjectName = None, as_json: AsJson = False, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Resume learning. Labels given during the pause are learned at once."""
    from cli.connect import open_deployment
    from operations.models.learning import resume as run_resume

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    resumed = run_resume(deployment, record)
    if as_json:
        show_json(asdict(resumed))
        return
    outcome = f"learns again (it was {resumed.was.in_words})" if resumed.was else "was not paused"
    out.print(f"{record.title} {outcome}", highlight=False)
    for version in resumed.left:
        out.print(
            f"{version} was retrained and passed the gate during the pause: `labelloop promote {version}` makes it live"
        )
