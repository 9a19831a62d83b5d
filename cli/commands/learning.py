"""`pause`, `resume`: a project stops learning, or goes on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from cli.commands.screen import show_json
from cli.commands.terminal import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, out
from cli.people import me


@command
def pause(
    why: Annotated[str, typer.Option(help="Shown to everybody who looks.")] = "",
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Freeze learning: no refresh, no retrain, and no run that is under way goes live. Labelling goes on.

    Labels still arrive in snapshots, pre-labels still come from the live version. `promote` and `rollback` still work.
    """
    from cli.deployment import open_deployment
    from cli.learning import pause as run_pause

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    found = run_pause(deployment, record, by=me(), why=why)
    if as_json:
        show_json(asdict(found))
        return
    was = "was already" if found.already else "is now"
    out.print(f"learning of {record.title} {was} {found.pause.told}", highlight=False)
    if found.already and why:
        out.print("its reason stays; `labelloop resume` first to give another one", highlight=False)
    out.print(f"{found.live or 'the cold-start order'} goes on answering; `labelloop resume` ends the pause")
    if not found.settled:
        out.print("a deploy may just have been under way: `labelloop status` shows what is live", style="yellow")


@command
def resume(project: ProjectName = None, as_json: AsJson = False, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Let a paused project learn again; what came meanwhile is learned at once."""
    from cli.deployment import open_deployment
    from cli.learning import resume as run_resume

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    found = run_resume(deployment, record)
    if as_json:
        show_json(asdict(found))
        return
    told = f"learns again (it was {found.was.told})" if found.was else "was not paused"
    out.print(f"{record.title} {told}", highlight=False)
    for version in found.left:
        out.print(f"{version} was retrained and passed the gate meanwhile: `labelloop promote {version}` makes it live")
