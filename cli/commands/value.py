"""`value`: what pre-labels save, and what they do to people."""

from __future__ import annotations

from cli.commands.screen import show_json
from cli.commands.terminal import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, out


@command
def value(project: ProjectName = None, as_json: AsJson = False, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Show what pre-labels are worth: time saved, overrides by class and person, and who may accept them unread.

    A share of the chosen images (`queue.blind`) is shown without a pre-label, for comparison. Each share comes
    with its counts and 95 % interval. What each figure means, and what it does not: docs/value.md.
    """
    from cli.deployment import open_deployment
    from cli.value import value as find
    from cli.value_view import render

    deployment = open_deployment(state_dir)
    page = find(deployment, deployment.project(project))
    if as_json:
        show_json(page.to_json())
    else:
        out.print(render(page))
