"""`value`: what pre-labels save, and what they do to people."""

from __future__ import annotations

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, out
from cli.terminal.screen import show_json


@command
def value(project: ProjectName = None, as_json: AsJson = False, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Show what pre-labels are worth: time saved, overrides by class and person, and who may accept them unread.

    A share of the chosen images (`queue.blind`) is shown without a pre-label, for comparison. Each share comes
    with its counts and 95 % interval. What each figure means, and what it does not: docs/value.md.
    """
    from cli.connect import open_deployment
    from cli.views.value import render
    from operations.models.value import value as find

    deployment = open_deployment(state_dir)
    page = find(deployment, deployment.project(project))
    if as_json:
        show_json(page.to_json())
    else:
        out.print(render(page))
