"""`init`, `forget`, `sync`: which Label Studio projects are looked after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cli.terminal.app import (
    DEFAULT_STATE,
    Classes,
    ConfigFile,
    Images,
    Labels,
    ProjectName,
    StateDir,
    command,
    names,
    out,
)
from cli.terminal.values import ProjectId, Seeds
from labelloop.errors import LabelloopError
from labelloop.names import shown, unfit

if TYPE_CHECKING:
    from operations.doctor.finding import Finding


@command
def init(  # noqa: PLR0913 -- a command's options are its interface
    config: ConfigFile = None,
    image_uri: Annotated[str | None, typer.Option(help="Location of the images: s3://BUCKET/PREFIX/.")] = None,
    images: Images = None,
    labels: Labels = None,
    classes: Classes = "",
    adopt: ProjectId = None,
    state_dir: StateDir = DEFAULT_STATE,
    seed: Seeds = None,
) -> None:
    """Create or adopt a project on a running Label Studio and wire it: label config, S3 source, backend, queue order.

    Safe to repeat. Says what is wrong and how to fix it.
    """
    from cli.connect import open_deployment
    from cli.terminal.reporting import reporting
    from cli.views.next_steps import next_steps
    from labelloop.config.project import ProjectConfig, load_config
    from operations.network import choose_network
    from operations.projects.rotate import hand_over
    from operations.projects.setup import known_project, open_source, set_up
    from operations.projects.wiring import Wish, check_wish, ensure_bucket, wire

    if images and (image_uri or adopt):
        raise LabelloopError("--images uploads a folder into a new project: remove --image-uri and --project")
    if seed is not None and not images:
        raise LabelloopError("--seed reveals labels of an uploaded folder: also give --images DIR")
    deployment = open_deployment(state_dir)
    if images:
        with reporting(out) as report:
            source = open_source(state_dir, images, config, seed, labels=labels, classes=names(classes))
            record, findings = set_up(deployment, source, report)
    else:
        uri = _allowed(image_uri, deployment.settings.image_buckets)
        adopted = adopt if adopt is not None else known_project(deployment, uri)
        chosen = load_config(config) if config else ProjectConfig()
        wish = Wish(chosen, uri, names(classes), adopted, lambda: choose_network(deployment, uri))
        check_wish(wish, deployment.settings)
        ensure_bucket(deployment.s3, deployment.settings.state_bucket)
        record, findings = wire(deployment.studio, deployment.projects, deployment.settings, wish)
    findings = [*findings, *hand_over(deployment, record)]
    _print_findings(findings)
    for step in next_steps(deployment, record, state_dir):
        out.print(step, soft_wrap=True)
    if not all(f.ok for f in findings):
        out.print("Fix what is red, then run the same command again.")
        raise typer.Exit(1)


def _allowed(image_uri: str | None, buckets: Sequence[str]) -> str:
    """The address, ending in a slash; it is read from no other bucket than those that are listed."""
    if image_uri is None:
        raise LabelloopError("init needs --image-uri s3://BUCKET/PREFIX/ (or --images DIR to upload a folder)")
    bucket, _, prefix = image_uri.removeprefix("s3://").partition("/")
    if not image_uri.startswith("s3://") or bucket not in buckets:
        raise LabelloopError(
            f"{shown(image_uri)} is not in an allowed bucket: LABELLOOP_IMAGE_BUCKETS lists {', '.join(buckets)}"
        )
    if why := unfit(prefix):
        raise LabelloopError(f"{shown(image_uri)} cannot be watched: {why}. Choose another prefix")
    return image_uri.rstrip("/") + "/"


@command
def forget(
    key: Annotated[str, typer.Argument(help="A project's key, title or id, as `labelloop status` shows it.")],
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Stop managing a project. Its labels, models and snapshots stay in object storage. `init` brings it back."""
    from cli.connect import open_deployment
    from operations.history.jobs import end_jobs
    from operations.people import me

    deployment = open_deployment(state_dir)
    record = deployment.project(key)
    deployment.projects.remove(record.key)
    ended = end_jobs(deployment, record, by=me())
    out.print(f"{record.title} ({record.key}) is not managed any longer" + (f"; {ended} jobs end" if ended else ""))


@command
def sync(
    drain: Annotated[bool, typer.Option("--drain", help="Read everything and print the snapshot.")] = False,
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Bring the snapshot fully up to date with Label Studio (`--drain`)."""
    from cli.connect import open_deployment
    from operations.projects.drain import drain as run_drain

    if not drain:
        raise LabelloopError("add --drain: this command only drains, the watcher is a service (`python -m sync`)")
    deployment = open_deployment(state_dir)
    snapshot, annotations = run_drain(deployment, deployment.project(project))
    out.print(f"snapshot {snapshot}: {annotations} annotations")


def _print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        colour = {"ok": "green", "warn": "yellow", "wrong": "red"}[finding.level]
        out.print(Text.assemble(("● ", colour), (finding.what, "bold"), f"  {finding.note}"))
