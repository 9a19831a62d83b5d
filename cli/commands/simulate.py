"""`simulate`: the loop under an annotator who knows the truth."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli.terminal.app import DEFAULT_STATE, ConfigFile, Images, agree, command, err, out
from cli.terminal.screen import show_json
from cli.terminal.values import MOST, Seeds, share, share_within
from labelloop.errors import NotFoundError

if TYPE_CHECKING:
    from operations.deployment import Deployment


@command
def simulate(  # noqa: PLR0913 -- a command's options are its interface
    images: Images = None,
    labels: Annotated[int, typer.Option(min=1, max=MOST, help="Labels to give, including the random quota.")] = 200,
    truth: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns file,label. Default: labels.csv or the folders of --images."),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="A folder like --images that never trains. Default: a fifth of the images.")
    ] = None,
    config: ConfigFile = None,
    state_dir: Annotated[Path | None, typer.Option(help="A running stack's. Default: a temporary one.")] = None,
    skip_rate: Annotated[
        float, typer.Option(parser=share_within(0, 0.9), metavar="SHARE", help="Share of tasks to skip.")
    ] = 0.0,
    change_rate: Annotated[
        float, typer.Option(parser=share, metavar="SHARE", help="Share of wrong labels, corrected later.")
    ] = 0.0,
    delete_rate: Annotated[
        float, typer.Option(parser=share_within(0, 0.5), metavar="SHARE", help="Labels withdrawn, per label given.")
    ] = 0.0,
    people: Annotated[int, typer.Option(min=1, max=50, help="Annotators, each with an account.")] = 1,
    target: Annotated[
        float | None,
        typer.Option(parser=share, metavar="SHARE", help="Test accuracy to reach; reports the labels it took."),
    ] = None,
    reveal: Seeds = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of the annotator, the held-out images and the model.")
    ] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the project watched afterwards.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before adding images to a stack with projects.")
    ] = False,
) -> None:
    """Measure the loop with simulated annotators who know the truth, through Label Studio's API.

    Prints progress, a table, and one JSON object as the last line.
    """
    from cli.terminal.reporting import reporting
    from operations.simulation.oracle import Rates
    from operations.simulation.simulate import Job, prepare
    from operations.simulation.simulate import simulate as run

    with _deployment_for(state_dir) as (deployment, home):
        source, held_out = prepare(home, images=images, truth=truth, test=test, config=config, reveal=reveal,
                                   seed=seed)  # fmt: skip
        _agree(deployment, len(source.files) + len(held_out), yes=yes)
        with reporting(err) as report:
            job = Job(labels, Rates(skip_rate, change_rate, delete_rate), seed, keep, people, target)
            figures = run(deployment, source, held_out, job, report)
    table = Table(box=None, show_header=False)
    for name, value in figures.items():
        table.add_row(name, json.dumps(value) if isinstance(value, dict | list) else str(value))
    out.print(table)
    show_json(figures)
    if figures["lost"]:
        raise typer.Exit(1)


def _agree(deployment: Deployment, images: int, *, yes: bool) -> None:
    """People work in a stack that holds projects: what is added to it there is theirs to decide."""
    try:
        titles = [record.title for record in deployment.projects.all()]
    except NotFoundError:  # a new stack: its bucket is made with the first project
        titles = []
    if yes or not titles:
        return
    first = ", ".join(titles[:3]) + (f" and {len(titles) - 3} more" if len(titles) > 3 else "")
    what = f"this stack holds {first}; simulate adds a project of its own with {images} images, which stay"
    agree(what, "give --yes, or another --state-dir for a separate stack")


@contextmanager
def _deployment_for(state_dir: Path | None) -> Iterator[tuple[Deployment, Path]]:
    """The running stack, or one of its own for as long as it is needed."""
    from cli.connect import deployment_of, open_deployment
    from cli.up import is_running, make_stack
    from embedded.progress import live_progress

    directory = state_dir or DEFAULT_STATE
    if is_running(directory):
        yield open_deployment(directory), directory
        return
    with tempfile.TemporaryDirectory(prefix="labelloop-") as folder:
        home = state_dir or Path(folder)
        with make_stack(home, err) as stack:
            state = stack.start()
            with live_progress(err) as show:
                stack.wait_ready(show)
            yield deployment_of(state), home
