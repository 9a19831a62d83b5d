"""`curve`: how the model has learned, what more labels would bring, and when to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.commands.screen import show_json
from cli.commands.terminal import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, out
from cli.commands.values import share


@command
def curve(
    target: Annotated[float | None, typer.Option(parser=share, metavar="SHARE", help="Accuracy that is wanted, e.g. "
                                                 "92% or 0.92; else that of the config (stop.target).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw it: a file that ends in .png or .svg.")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Judge all versions now, not as the last job did.")] = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:  # fmt: skip
    """Show the learning curve with a forecast: labels to a target, and whether to go on labelling.

    Every version is judged on all random labels there are now. Each forecast comes with its interval; few random labels
    make it wide, and that is said.
    """
    from cli.curve import learning_curve
    from cli.deployment import open_deployment

    deployment = open_deployment(state_dir)
    page = learning_curve(deployment, deployment.project(project), target=target, anew=anew)
    if plot:
        from cli.curve_plot import plot_learning_curve

        plot_learning_curve(page, plot)
    if as_json:
        show_json(page.to_json())
        return
    from cli.curve_view import curve_view

    out.print(curve_view(page))
