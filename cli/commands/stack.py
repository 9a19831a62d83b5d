"""`up`, `down`, `status`: the stack of this machine, and what any deployment does."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, Classes, ConfigFile, Images, Labels, StateDir, command, names, out
from cli.terminal.screen import show_json
from cli.terminal.values import Seeds
from labelloop.errors import LabelloopError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from operations.status import StatusReader


@command
def up(  # noqa: PLR0913 -- a command's options are its interface
    images: Images = None,
    labels: Labels = None,
    classes: Classes = "",
    config: ConfigFile = None,
    state_dir: StateDir = DEFAULT_STATE,
    seed: Seeds = None,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background; `labelloop down` stops it.")] = False,
) -> None:
    """Start everything on this machine: Label Studio, Valkey, S3, backend, watcher, workers, and a wired project.

    Without --images the project holds scikit-learn's handwritten digits. A restart continues where it stopped.
    """
    from cli.up import UpOptions, is_running, up_detached
    from cli.up import up as run_up
    from cli.views.next_steps import command_line

    options = UpOptions(state_dir, images, config, seed, labels, names(classes))
    if not detach:
        run_up(options, out)
        return
    if is_running(state_dir):
        shows, stops = (command_line(verb, state_dir) for verb in ("status", "down"))
        raise LabelloopError(f"a stack already runs on {state_dir}; `{shows}` shows it, `{stops}` stops it")
    up_detached(options, [a for a in sys.argv[1:] if a != "--detach"], out)


@command
def down(state_dir: StateDir = DEFAULT_STATE) -> None:
    """Stop the embedded stack. Nothing is lost; `labelloop up` continues where it stopped."""
    from embedded.background import stop_running

    stopped = stop_running(state_dir)
    out.print("stopped" if stopped else f"no stack runs on {state_dir}")


@command
def status(
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
    project: Annotated[
        str | None, typer.Option("--project", help="Show one project in full: title, key or id.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print once, even on a terminal.")] = False,
) -> None:
    """Show the loop, live on a terminal: services, queue, and each project's model, accuracy and next steps."""
    from cli.terminal.scroll import watch

    @cache
    def reader() -> StatusReader:
        from cli.connect import open_deployment
        from operations.status import StatusReader

        deployment = open_deployment(state_dir)
        return StatusReader(deployment, only=deployment.project(project) if project else None)

    def page() -> RenderableType:
        from cli.views.overview import overview
        from cli.views.status import render

        return (render if project else overview)(reader().read())

    if as_json:
        show_json(reader().read().to_json())
    elif once or not out.is_terminal:
        out.print(page())
    else:
        watch(out, page)  # it shows a frame before anything is opened or read
