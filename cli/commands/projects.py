"""`init`, `forget`, `sync`: which Label Studio projects are looked after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cli.commands.terminal import (
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
from labelloop.errors import LabelloopError

if TYPE_CHECKING:
    from cli.doctor.finding import Finding


@command
def init(  # noqa: PLR0913 -- a command's options are its interface
    config: ConfigFile = None,
    image_uri: Annotated[
        str | None, typer.Option(help="Where images are and will appear: s3://BUCKET/PREFIX/.")
    ] = None,
    images: Images = None,
    labels: Labels = None,
    classes: Classes = "",
    adopt: Annotated[
        int | None, typer.Option("--project", min=1, max=2**31 - 1, help="Id of a Label Studio project to adopt.")
    ] = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Create or adopt a project on a running Label Studio and wire it: label config, S3 source, backend, queue order.

    Safe to repeat; says what it found, what is wrong and how to mend it.
    """
    from cli.deployment import open_deployment
    from cli.rotate import hand_over
    from cli.setup import known_project, open_source, set_up
    from cli.up import reporting
    from cli.wiring import Wish, ensure_bucket, wire
    from labelloop.config import ProjectConfig, load_config

    deployment = open_deployment(state_dir)
    if images:
        with reporting(out) as report:
            source = open_source(state_dir, images, config, None, labels=labels, classes=names(classes))
            record, findings = set_up(deployment, source, report)
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
        wish = Wish(load_config(config) if config else ProjectConfig(), uri, names(classes), adopt=known)
        record, findings = wire(deployment.studio, deployment.projects, deployment.settings, wish)
    _print_findings([*findings, *hand_over(deployment, record)])


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


def _print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        colour = {"ok": "green", "warn": "yellow", "wrong": "red"}[finding.level]
        out.print(Text.assemble(("● ", colour), (finding.what, "bold"), f"  {finding.note}"))
    if not all(f.ok for f in findings):
        raise typer.Exit(1)
