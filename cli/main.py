"""The `labelloop` command: one function per verb, each thin."""

from __future__ import annotations

import getpass
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from labelloop.errors import LabelloopError

if TYPE_CHECKING:
    from cli.deployment import Deployment
    from cli.wiring import Finding

app = typer.Typer(
    help="Label-in-the-loop active learning for Label Studio.", no_args_is_help=True, rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)  # fmt: skip
out, err = Console(), Console(stderr=True)
P = ParamSpec("P")
R = TypeVar("R")

StateDir = Annotated[Path, typer.Option(help="Where the embedded stack keeps its data, logs and secrets.")]
ProjectName = Annotated[str | None, typer.Option("--project", help="Title, key or id; needed where there are several.")]
Images = Annotated[Path | None, typer.Option(help="A tree of class folders: DIR/cat/1.jpg, DIR/dog/2.jpg.")]
ConfigFile = Annotated[Path | None, typer.Option(help="A project's YAML, e.g. configs/intel_scenes.yaml.")]
DEFAULT_STATE = Path(".labelloop")


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Register; an expected error becomes one plain message and exit code 1."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except LabelloopError as error:
            err.print(f"[red]labelloop:[/red] {error}", highlight=False)
            raise typer.Exit(1) from error

    app.command()(guarded)
    return guarded


@command
def up(
    images: Images = None,
    config: ConfigFile = None,
    state_dir: StateDir = DEFAULT_STATE,
    seed: Annotated[int | None, typer.Option(help="Labels revealed at the start; 40 for the digits, else 0.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background; `labelloop down` stops it.")] = False,
) -> None:
    """Start everything on this machine: Label Studio, Valkey, S3, backend, watcher, workers, and a wired project.

    Without --images the project holds scikit-learn's handwritten digits. A second start finds all as it was left.
    """
    from cli.up import UpOptions, is_running, up_detached
    from cli.up import up as run_up

    options = UpOptions(state_dir, images, config, seed)
    if not detach:
        run_up(options, out)
        return
    if is_running(state_dir):
        raise LabelloopError(
            f"a stack runs on {state_dir} already; `labelloop status` shows it, `labelloop down` stops it"
        )
    up_detached(options, [a for a in sys.argv[1:] if a != "--detach"], out)


@command
def down(state_dir: StateDir = DEFAULT_STATE) -> None:
    """Stop the embedded stack in order. Nothing is lost; `labelloop up` goes on where it was."""
    from cli.embedded.background import stop_running

    stopped = stop_running(state_dir)
    out.print("stopped" if stopped else f"no stack runs on {state_dir}")


@command
def status(
    state_dir: StateDir = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print once, also on a terminal.")] = False,
) -> None:
    """Show the loop, live on a terminal: services, live version and its evidence, what comes next, last decisions."""
    from rich.live import Live

    from cli.deployment import open_deployment
    from cli.status import StatusReader
    from cli.status_view import render

    reader = StatusReader(open_deployment(state_dir))
    if as_json:
        print(json.dumps(reader.read().to_json(), ensure_ascii=False))
    elif once or not out.is_terminal:
        out.print(render(reader.read()))
    else:
        with Live(console=out, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
            try:
                while True:
                    live.update(render(reader.read()), refresh=True)
                    time.sleep(1)
            except KeyboardInterrupt:
                return


@command
def init(
    config: ConfigFile = None,
    image_uri: Annotated[
        str | None, typer.Option(help="Where images are and will appear: s3://BUCKET/PREFIX/.")
    ] = None,
    images: Images = None,
    adopt: Annotated[int | None, typer.Option("--project", help="Id of a Label Studio project to adopt.")] = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Create or adopt a project on a running Label Studio and wire it: label config, S3 source, backend, queue order.

    Safe to repeat; says what it found, what is wrong and how to mend it.
    """
    from cli.deployment import open_deployment
    from cli.setup import known_project, open_source, set_up
    from cli.up import reporting
    from cli.wiring import Wish, ensure_bucket, wire
    from labelloop.config import ProjectConfig, load_config

    deployment = open_deployment(state_dir)
    if images:
        with reporting(out) as report:
            _, findings = set_up(deployment, open_source(state_dir, images, config, None), report)
    else:
        if image_uri is None:
            raise LabelloopError("init needs --image-uri s3://BUCKET/PREFIX/ (or --images DIR to upload a folder)")
        bucket = image_uri.removeprefix("s3://").partition("/")[0]
        if not image_uri.startswith("s3://") or bucket not in deployment.settings.image_buckets:
            raise LabelloopError(
                f"{image_uri} is not in an allowed bucket: LABELLOOP_IMAGE_BUCKETS lists "
                f"{', '.join(deployment.settings.image_buckets)}"
            )
        ensure_bucket(deployment.s3, deployment.settings.state_bucket)
        uri = image_uri.rstrip("/") + "/"
        known = adopt if adopt is not None else known_project(deployment, uri)
        wish = Wish(load_config(config) if config else ProjectConfig(), uri, adopt=known)
        _, findings = wire(deployment.studio, deployment.projects, deployment.settings, wish)
    _print_findings(findings)


@command
def forget(
    key: Annotated[str, typer.Argument(help="A project's key, title or id, as `labelloop status` shows it.")],
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Stop looking after a project. Its labels, models and snapshots stay in object storage; `init` brings it back."""
    from cli.deployment import open_deployment

    deployment = open_deployment(state_dir)
    record = deployment.project(key)
    deployment.projects.remove(record.key)
    out.print(f"{record.title} ({record.key}) is no longer looked after")


@command
def sync(
    drain: Annotated[bool, typer.Option("--drain", help="Read everything, freeze, and print the snapshot.")] = False,
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Bring the snapshot up to date with Label Studio, exactly (`--drain`)."""
    from cli.deployment import open_deployment
    from cli.drain import drain as run_drain

    if not drain:
        raise LabelloopError("the watcher runs as a service (`python -m sync`); this command only drains: add --drain")
    deployment = open_deployment(state_dir)
    snapshot, annotations = run_drain(deployment, deployment.project(project))
    out.print(f"snapshot {snapshot}: {annotations} annotations")


@command
def retrain(
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it has ended, with progress.")] = False,
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Ask for a fine-tune of the backbone now."""
    from cli.deployment import open_deployment
    from cli.retrain import ask, wait_for

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    request = ask(deployment, record, by=getpass.getuser())
    out.print(f"asked for a retrain of {record.title}; `labelloop status` shows how it goes")
    if wait:
        run = wait_for(deployment, record, request, out)
        out.print(f"[bold]{run.outcome}[/bold] {run.version or ''}")
        for reason in run.reasons:
            out.print(f"  {reason}", highlight=False)
        if run.outcome == "failed":
            raise typer.Exit(1)


@command
def models(
    project: ProjectName = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for machines.")] = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """List the model versions with their evidence; the live one is marked."""
    from cli.deployment import open_deployment
    from labelloop.records import to_dict

    deployment = open_deployment(state_dir)
    registry = deployment.registry(deployment.project(project))
    live = registry.live()
    versions = registry.versions()
    if as_json:
        hidden = ("check_features", "check_probabilities")
        print(json.dumps([{k: v for k, v in to_dict(x).items() if k not in hidden} for x in versions]))
        return
    table = Table("version", "kind", "labels", "out of fold", "test", "backbone", "verdict", "made", box=None)
    for version in versions:
        found = version.evaluation
        mark = " ● live" if live and live.version == version.name else ""
        test = f"{found.test_accuracy:.3f} of {found.test_n}" if found.test_accuracy is not None else ""
        accuracy = f"{found.accuracy:.3f}" if found.accuracy is not None else ""
        table.add_row(version.name + mark, version.kind, str(found.labels), accuracy, test, version.backbone,
                      version.verdict.outcome.value, version.created_at[:16])  # fmt: skip
    out.print(table if versions else "no version yet")


@command
def promote(
    version: Annotated[str, typer.Argument(help="A version that `labelloop models` lists, e.g. v7.")],
    why: Annotated[str, typer.Option(help="Kept in the deployment log.")] = "by hand",
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Make a version the live one, whatever the gate said."""
    _deploy(state_dir, project, lambda _registry: version, "promote", why)


@command
def rollback(
    why: Annotated[str, typer.Option(help="Kept in the deployment log.")] = "by hand",
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Go back to the version that was live before."""
    _deploy(state_dir, project, lambda registry: registry.rollback_target(), "rollback", why)


@command
def simulate(  # noqa: PLR0913 -- a command's options are its interface
    images: Images = None,
    labels: Annotated[int, typer.Option(min=1, help="Labels to give, the random quota included.")] = 200,
    test: Annotated[Path | None, typer.Option(help="Class folders that never train; else a fifth is held out.")] = None,
    config: ConfigFile = None,
    state_dir: Annotated[Path | None, typer.Option(help="A running stack's; else one is started for the time.")] = None,
    skip_rate: Annotated[float, typer.Option(min=0, max=0.9, help="Share of tasks that are skipped.")] = 0.0,
    change_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of labels given wrong, corrected later.")
    ] = 0.0,
    delete_rate: Annotated[float, typer.Option(min=0, max=0.5, help="Labels taken back, per label given.")] = 0.0,
    reveal: Annotated[int | None, typer.Option(help="Seed labels before; 40 for the digits, else 0.")] = None,
    seed: Annotated[int, typer.Option(help="Of the annotator, the held-out images and the model.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Go on watching the project afterwards.")] = False,
) -> None:
    """Label with an annotator who knows the truth, through Label Studio's API, and measure the loop.

    Prints progress, a table, and as its last line one JSON object.
    """
    from cli.oracle import Rates
    from cli.simulate import Job, prepare
    from cli.simulate import simulate as run
    from cli.up import reporting

    with _deployment_for(state_dir) as (deployment, home):
        source, held_out = prepare(home, images=images, test=test, config=config, reveal=reveal, seed=seed)
        with reporting(err) as report:
            job = Job(labels, Rates(skip_rate, change_rate, delete_rate), seed, keep)
            figures = run(deployment, source, held_out, job, report)
    table = Table(box=None, show_header=False)
    for name, value in figures.items():
        table.add_row(name, json.dumps(value) if isinstance(value, dict | list) else str(value))
    out.print(table)
    print(json.dumps(figures))
    if figures["lost"]:
        raise typer.Exit(1)


@contextmanager
def _deployment_for(state_dir: Path | None) -> Iterator[tuple[Deployment, Path]]:
    """The running stack, or one of its own for as long as it is needed."""
    from cli.deployment import deployment_of, open_deployment
    from cli.embedded.progress import live_progress
    from cli.up import is_running, make_stack

    wanted = state_dir or DEFAULT_STATE
    if is_running(wanted):
        yield open_deployment(wanted), wanted
        return
    with tempfile.TemporaryDirectory(prefix="labelloop-") as folder:
        home = state_dir or Path(folder)
        with make_stack(home, err) as stack:
            state = stack.start()
            with live_progress(err) as show:
                stack.wait_ready(show)
            yield deployment_of(state), home


def _deploy(state_dir: Path, name: str | None, choose: Callable[[Any], str | None], action: str, why: str) -> None:
    from cli.deployment import open_deployment
    from labelloop.queue import DEPLOY_CHANNEL, publish

    deployment = open_deployment(state_dir)
    record = deployment.project(name)
    registry = deployment.registry(record)
    target = choose(registry)
    if target is None:
        raise LabelloopError("there is no earlier version to go back to; `labelloop models` lists what there is")
    registry.head(registry.version(target))  # unknown or damaged: refused here, before any backend has to
    live = registry.live()
    entry = registry.deploy(
        target, expected=live.version if live else None, action=action, by=getpass.getuser(), why=why
    )
    publish(deployment.queue.redis, DEPLOY_CHANNEL, record.key)
    out.print(f"{entry.version} is live (was {entry.previous or 'nothing'}); backends follow within a second")


def _print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        out.print(
            f"[{'green' if finding.ok else 'red'}]●[/] [bold]{finding.what}[/bold]  {finding.note}", highlight=False
        )
    if not all(f.ok for f in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
