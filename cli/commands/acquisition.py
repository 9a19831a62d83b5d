"""`replay`: what each order of labelling would have cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, ConfigFile, Images, ProjectName, StateDir, command, err, names, out
from cli.terminal.screen import show_json
from cli.terminal.values import MOST

if TYPE_CHECKING:
    from operations.reporting import Report
    from retrain_worker.replay.history import ReplayHistory

USUAL = "random,margin,cluster-margin,herding,auto"


@command
def replay(  # noqa: PLR0913 -- a command's options are its interface
    images: Images = None,
    test: Annotated[Path | None, typer.Option(help="A folder like --images to test on. Default: a part of it.")] = None,
    strategies: Annotated[str, typer.Option(help="Separated by commas, or `all`.")] = USUAL,
    labels: Annotated[int, typer.Option(min=20, max=MOST, help="Labels to give, at most.")] = 600,
    seeds: Annotated[
        int, typer.Option(min=2, max=1000, help="Runs, each on another pool. Intervals are over seeds.")
    ] = 10,
    plain_head: Annotated[bool, typer.Option("--plain-head", help="Use a head that learns from labels only.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a picture, e.g. replay.png or replay.svg.")] = None,
    config: ConfigFile = None,
    keep: Annotated[Path, typer.Option(help="Where to cache features of --images.")] = Path(".labelloop-features"),
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Replay known labels under each strategy: labels saved compared with random order.

    With --images the labels are those of class folders. Without, they are the project's labels so far, and
    only its labelled images take part. Nothing is labelled and nothing changes.
    """
    from cli.terminal.reporting import reporting
    from cli.views.replay import as_json as to_json
    from cli.views.replay import plot_replay, replay_view
    from labelloop.rules.acquisition import STRATEGIES, strategy
    from retrain_worker.replay.arm import by_policy
    from retrain_worker.replay.rounds import RANDOM, ReplayPlan
    from retrain_worker.replay.rounds import replay as run

    chosen = (*STRATEGIES, "auto") if strategies == "all" else names(strategies)
    for name in chosen:
        if name != "auto":
            strategy(name)
    with reporting(err) as report:
        history = _history(images, test, config, keep, project, state_dir, report)
        choosers = {name: by_policy(name) for name in dict.fromkeys((RANDOM, *chosen))}
        replayed = run(history, choosers, ReplayPlan(seeds, labels, with_pool=not plain_head), report)
    if plot:
        plot_replay(replayed, plot)
    if as_json:
        show_json(to_json(replayed))
        return
    out.print(replay_view(replayed))


def _history(  # noqa: PLR0913 -- the options that say what is replayed
    images: Path | None, test: Path | None, config: Path | None, keep: Path, project: str | None, state_dir: Path,
    report: Report,
) -> ReplayHistory:  # fmt: skip
    from cli.here.replay_data import history_of_folders, history_of_project

    if images is None:
        from cli.connect import open_deployment

        deployment = open_deployment(state_dir)
        return history_of_project(deployment, deployment.project(project), keep)
    from labelloop.config.project import ProjectConfig, load_config
    from labelloop.config.settings import load_settings

    chosen = load_config(config) if config else ProjectConfig()
    return history_of_folders(images, test, chosen, load_settings(), keep=keep, report=report)
