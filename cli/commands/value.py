"""`value`: what pre-labels save, and what they do to people."""

from __future__ import annotations

from cli.commands.screen import show_json
from cli.commands.terminal import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, out


@command
def value(project: ProjectName = None, as_json: AsJson = False, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Tell what pre-labels are worth: time saved, overrides by class and person, and who may accept them unread.

    A share of the chosen images (`queue.blind`) is shown without its pre-label, so that the two can be compared. Behind
    each share stand its counts and its 95 % interval. What each figure means and cannot tell: docs/value.md.
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
