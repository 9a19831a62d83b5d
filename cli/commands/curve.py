"""`curve`: how the model has learned, what more labels would bring, and when to stop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, out
from cli.terminal.screen import show_json
from cli.terminal.values import share

if TYPE_CHECKING:
    from labelloop.records.curve import KeptCurve
    from labelloop.store.projects import ProjectRecord
    from operations.deployment import Deployment


@command
def curve(
    target: Annotated[float | None, typer.Option(parser=share, metavar="SHARE", help="Target accuracy, e.g. 92% or "
                                                 "0.92. Default: stop.target of the config.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also write a picture, .png or .svg.")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Recompute now instead of showing the last job's "
                                                      "curve.")] = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:  # fmt: skip
    """Show the learning curve with a forecast: labels needed for a target, and whether to stop labelling.

    Every version is tested on all random labels there are now. Each forecast has an interval. Few random labels
    make it wide, and the page says so.
    """
    from cli.connect import open_deployment
    from operations.models.curve import learning_curve

    deployment = open_deployment(state_dir)
    page = learning_curve(deployment, deployment.project(project), _curve_here, target=target, anew=anew)
    if plot:
        from cli.views.curve_plot import plot_learning_curve

        plot_learning_curve(page, plot)
    if as_json:
        show_json(page.to_json())
        return
    from cli.views.curve import curve_view

    out.print(curve_view(page))


def _curve_here(deployment: Deployment, record: ProjectRecord) -> KeptCurve | None:
    """Imports torch, so only where no curve is kept."""
    from cli.here.versions import curve_here

    return curve_here(deployment, record)
