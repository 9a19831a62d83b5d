"""`tune`, `compare`, `lr-find`: which settings, which network, which learning rate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, err, goes_on, group, out
from cli.terminal.app import names as words
from cli.terminal.screen import show_json, show_text
from cli.terminal.values import MOST
from labelloop.errors import LabelloopError
from operations.people import me

if TYPE_CHECKING:
    from labelloop.store.projects import ProjectRecord
    from labelloop.store.studies import Study
    from operations.deployment import Deployment
    from operations.models.tune import StudyResults

tune = group("tune", "Search for better settings with Optuna. Trials run on any number of workers.")

StudyName = Annotated[str | None, typer.Argument(metavar="[STUDY]", help="A name or its start. Default: the newest.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Show progress until it ends. Ctrl-C leaves it running.")]
Plot = Annotated[Path | None, typer.Option(help="Write a picture, e.g. study.png or study.svg.")]


def run(
    search: Annotated[Path, typer.Argument(help="The search space, e.g. configs/tune/kidu.yaml.")],
    trials: Annotated[int | None, typer.Option(min=1, max=MOST, help="Number of trials; overrides the file.")] = None,
    wait: Wait = True,
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Begin a search on the newest labels. It is judged by the validation part alone: test images stay unseen."""
    from cli.connect import open_deployment
    from cli.views.tune import study_view
    from operations.models.tune import begin, read_search

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    study = begin(deployment, record, read_search(search, trials), by=me())
    out.print(f"study {study.name} started: {study.rules.count} trials; progress: `labelloop tune show`")
    if wait:
        with goes_on(f"study {study.name} is queued and", _ends(study.name, record.key)):
            results = _followed(deployment, record, study)
        out.print(study_view(results))
        out.print("`labelloop tune apply` applies the best settings to the project")


def show(
    study: StudyName = None,
    plot: Plot = None,
    every: Annotated[bool, typer.Option("--all", help="Show all trials, not only the best 30.")] = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Show the trials of a search, the best one first."""
    from cli.connect import open_deployment
    from cli.views.tune import study_view
    from operations.models.tune import find

    deployment = open_deployment(state_dir)
    results = find(deployment, deployment.project(project), study)
    if plot:
        from cli.views.tune_plot import plot_study

        plot_study(results, plot)
    if as_json:
        show_json({"study": asdict(results.study), "trials": [asdict(t) for t in results.trials]})
        return
    out.print(study_view(results, every=every))


def listed(project: ProjectName = None, state_dir: StateDir = DEFAULT_STATE) -> None:
    """List the searches of a project."""
    from cli.connect import open_deployment
    from labelloop.store.studies import StudyStore
    from operations.models.tune import find

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    names = StudyStore(deployment.within(record)).names()
    for name in names:
        results = find(deployment, record, name)
        of, best = results.study.rules.count, results.best
        leader = f"best {best.accuracy:.4f} (trial {best.number})" if best else "no complete trial"
        state = "cancelled" if results.study.cancelled else f"{of - results.left} of {of} ended"
        out.print(f"{name}  {state}  {leader}  by {results.study.by}", highlight=False)
    if not names:
        out.print("no search yet: start one with `labelloop tune run configs/tune/kidu.yaml`")


def apply(
    study: StudyName = None,
    trial: Annotated[int | None, typer.Option(min=0, max=MOST, help="Trial to apply instead of the best one.")] = None,
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Make the best trial's settings the project's; the next retrain follows them, and the gate judges it."""
    from cli.connect import open_deployment
    from operations.models import tune as search

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    changes = search.apply(deployment, record, search.find(deployment, record, study), trial)
    if not changes:
        out.print("the project already has these settings")
        return
    out.print("the project's config is now as follows; also put this into its YAML file:\n")
    show_text(search.as_yaml(changes))
    out.print("a retrain follows by itself (retrain.on_change), or run `labelloop retrain`")


def cancel(study: StudyName = None, project: ProjectName = None, state_dir: StateDir = DEFAULT_STATE) -> None:
    """End a search: no further trial begins, running ones end after their epoch."""
    from cli.connect import open_deployment
    from labelloop.store.studies import StudyStore
    from operations.models.tune import find

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    name = find(deployment, record, study).study.name
    StudyStore(deployment.within(record)).cancel(name)
    out.print(f"study {name} is cancelled; its results stay")


def _ends(study: str, project: str) -> str:
    return f"`labelloop tune cancel {study} --project {project}` cancels it"


command(run, to=tune)
command(show, to=tune)
command(listed, to=tune, name="list")
command(apply, to=tune)
command(cancel, to=tune)


@command
def compare(
    backbones: Annotated[str, typer.Option(help="Names of timm or built-in networks, separated by commas.")],
    plot: Plot = None,
    wait: Wait = True,
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Fine-tune several networks on the same labels: accuracy, loss, time, size and latency in one table."""
    from cli.connect import open_deployment
    from cli.views.tune import study_view
    from operations.models.tune import begin, comparison

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    names = list(words(backbones))
    if not names:
        raise LabelloopError("--backbones lists no network: name some, e.g. --backbones resnet18,mobilenetv3_small_100")
    study = begin(deployment, record, comparison(names), by=me())
    out.print(f"study {study.name} started: {len(names)} networks; progress: `labelloop tune show`")
    if not wait:
        return
    with goes_on(f"study {study.name} is queued and", _ends(study.name, record.key)):
        results = _followed(deployment, record, study)
    out.print(study_view(results))
    if plot:
        from cli.views.tune_plot import plot_study

        plot_study(results, plot)


@command
def lr_find(
    plot: Plot = None,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Find a learning rate: a few dozen steps with a rising rate, and where the loss falls fastest."""
    from cli.connect import open_deployment
    from cli.terminal.reporting import reporting
    from operations.models.lr_find import ask, wait_for

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    job = ask(deployment, record, by=me())
    going, ends = "the range test is still queued or running and", f"`labelloop queue cancel {job}` cancels it"
    with goes_on(going, ends), reporting(err) as report:
        curve = wait_for(deployment, record, job, report)
    if plot:
        from cli.views.tune_plot import plot_curve

        plot_curve(curve, plot)
    if as_json:
        show_json(curve.to_json())
        return
    if curve.suggestion is None:
        out.print("the loss never falls: more labels, or another optimiser?")
    else:
        out.print(f"retrain.learning_rate: {curve.suggestion:.2g}  (now {record.config.retrain.learning_rate:.2g}; "
                  f"{curve.optimiser}, batches of {curve.batch_size}, {len(curve.rates)} steps)")  # fmt: skip


def _followed(deployment: Deployment, record: ProjectRecord, study: Study) -> StudyResults:
    from cli.terminal.reporting import reporting
    from operations.models.tune import follow

    with reporting(err) as report:
        return follow(deployment, record, study, report, lambda text: err.print(text, highlight=False, markup=False))
