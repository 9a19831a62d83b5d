"""`export`, `auto-label`, `duplicates`: the labelled data, labels for the rest, images that show the same."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, err, out
from cli.terminal.screen import show_json
from cli.terminal.values import MOST, Version, share_within
from labelloop.errors import LabelloopError
from operations.people import me

if TYPE_CHECKING:
    from labelloop.store.projects import ProjectRecord
    from operations.data.auto_label import AutoLabelled
    from operations.data.auto_label_push import Pushed
    from operations.data.export import Exported
    from operations.deployment import Deployment

SHOWN = 10  # images that could not be copied


class Form(StrEnum):
    """What an export looks like."""

    CSV = "csv"
    JSON = "json"
    FOLDERS = "folders"


class SplitName(StrEnum):
    """What an image's label is used for."""

    TRAIN = "train"
    TEST = "test"
    AUDIT = "audit"


@command
def export(  # noqa: PLR0913 -- a command's options are its interface
    form: Annotated[Form, typer.Option("--format", help="csv: a row per task. json: with all answers. folders: "
                                       "manifest.json of class folders.")],
    path: Annotated[Path, typer.Option("--out", help="The file, or the folder for folders. Replaced atomically.")],
    at: Annotated[str | None, typer.Option(help="A version (v17: its training labels), or the start of a "
                                           "snapshot id. Default: the latest.")] = None,
    bucket: Annotated[SplitName | None, typer.Option(help="Only images of this split.")] = None,
    with_skipped: Annotated[bool, typer.Option("--with-skipped", help="Include tasks without a class.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="With folders: also copy the images. Resumes where it stopped.")
                    ] = False,
    drain: Annotated[bool, typer.Option("--drain", help="First bring the snapshot fully up to date.")] = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:  # fmt: skip
    """Export the labelled data: one class per task, the answer that counts, who gave it, and what they saw.

    In csv, a text that a spreadsheet would take for a formula (it begins with = + - @ or a tab) gets a leading ', and
    so does one that begins with '. Remove exactly one ' when you read it back.
    """
    from cli.connect import open_deployment
    from cli.terminal.reporting import reporting
    from labelloop.export.labels import ExportFilter
    from labelloop.images.reader import ImageReader
    from labelloop.records.images import Split
    from operations.data.export import collect, write_csv, write_json
    from operations.data.export_folders import write_folders
    from operations.projects.drain import drain as run_drain

    if copy and form is not Form.FOLDERS:
        raise LabelloopError("--copy needs --format folders: a csv or json file holds no images")
    if drain and at:
        raise LabelloopError("--drain reads the newest labels, --at older ones: give one of them")
    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    if drain:
        run_drain(deployment, record)
    selection = ExportFilter(Split(bucket.value) if bucket else None, with_skipped)
    data = collect(deployment, record, selection, at=at)
    if form is Form.FOLDERS:
        reader = ImageReader(deployment.s3, deployment.settings.image_buckets) if copy else None
        with reporting(err) as report:
            done = write_folders(data, path, reader, report)
    else:
        done = (write_csv if form is Form.CSV else write_json)(data, path)
    if as_json:
        show_json(asdict(done))
    else:
        _print_export(done)
    if done.problems:
        raise typer.Exit(1)


def _print_export(done: Exported) -> None:
    out.print(f"{done.path}: {done.labelled} labelled tasks of snapshot {done.snapshot[:12]}", highlight=False)
    if done.tasks != done.labelled:
        out.print(f"and {done.tasks - done.labelled} without a class")
    if done.copied or done.kept or done.removed:
        out.print(f"images: {done.copied} copied, {done.kept} already there, {done.removed} removed")
    for uri, why in list((done.problems or {}).items())[:SHOWN]:
        err.print(f"not copied: {uri}: {why}", highlight=False)
    if done.problems:
        err.print(f"{len(done.problems)} images could not be copied; the manifest says why", style="red")


@command
def auto_label(  # noqa: PLR0913 -- a command's options are its interface
    version: Version = None,
    precision: Annotated[float, typer.Option(parser=share_within(0.5, 0.9999), metavar="SHARE", help="Promised "
                                               "share of right labels.")] = 0.95,
    confidence: Annotated[float, typer.Option(parser=share_within(0.5, 0.9999), metavar="SHARE", help="Confidence "
                                                "of the promise, over the draw of audit labels.")] = 0.95,
    per_class: Annotated[bool, typer.Option("--per-class", help="Promise it for each class with enough audit "
                                            "labels. Costs coverage.")] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Also write a file: one JSON object per line, "
                                            "with FILE.manifest.json beside it.")] = None,
    push: Annotated[bool, typer.Option("--push", help="Also push predictions into Label Studio as model version "
                                                      "auto-v17.")
                    ] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Only delete such predictions from Label "
                                           "Studio.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be labelled. Write nothing.")] = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:  # fmt: skip
    """Label the rest of the pool with the model, as far as audit labels prove the promised precision.

    These labels go into a separate file in object storage, never among people's answers. Without enough evidence
    nothing is labelled, and you see what is missing. What is promised and what is not: docs/auto-label.md.
    """
    from cli.connect import open_deployment
    from cli.terminal.reporting import reporting
    from cli.views.auto_label import auto_label_view
    from labelloop.rules.auto_label.rule import Promise
    from operations.data.auto_label import AutoLabelRequest, keep, propose, write_out
    from operations.data.auto_label_push import check_room
    from operations.data.auto_label_push import push as run_push

    if dry_run and (push or to or withdraw):
        raise LabelloopError("--dry-run writes nothing: remove it, or remove --push, --out and --withdraw")
    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    if withdraw:
        _withdraw(deployment, record, as_json=as_json)
        return
    if push:
        check_room(deployment, record)  # before anybody waits
    request = AutoLabelRequest(Promise(precision, confidence, per_class), version, me())
    with reporting(err) as report:
        proposal = propose(deployment, record, request, report)
        if not dry_run:
            keep(deployment, record, proposal)
        if to and proposal.labels:
            write_out(proposal, to)
        pushed = run_push(deployment, record, proposal, report) if push and proposal.labels else None
    if as_json:
        show_json(proposal.manifest.to_json() | {"pushed": asdict(pushed) if pushed else None})
    else:
        out.print(auto_label_view(proposal), highlight=False)
        _print_written(proposal, to, pushed, dry_run=dry_run)
    if not proposal.labels:
        raise typer.Exit(1)


def _print_written(proposal: AutoLabelled, to: Path | None, pushed: Pushed | None, *, dry_run: bool) -> None:
    manifest = proposal.manifest
    if dry_run or not proposal.labels:
        return
    out.print(f"auto-labels/{manifest.version}/{manifest.id}.jsonl: {manifest.lines} lines", highlight=False)
    if to:
        out.print(f"{to}: same labels", highlight=False)
    if pushed:
        out.print(f"Label Studio: {pushed.predictions} predictions of {pushed.version}", highlight=False)
        out.print(f"{pushed.left_out} not pushed: shown blind, answered or removed in the meantime")


def _withdraw(deployment: Deployment, record: ProjectRecord, *, as_json: bool) -> None:
    from operations.data.auto_label_push import withdraw

    deleted = withdraw(deployment, record)
    if as_json:
        show_json(deleted)
        return
    predictions = ", ".join(f"{count} predictions of {version}" for version, count in deleted.items())
    out.print(f"deleted from Label Studio: {predictions or 'nothing to delete'}", highlight=False)


@command
def duplicates(
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="Groups to show, at most.")] = 30,
    regroup: Annotated[bool, typer.Option("--regroup", help="Decide groups and splits again, of all images whose "
                                          "labels have judged no model.")] = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:  # fmt: skip
    """List related images with their labels: contradictions first, then images in quarantine.

    Related images are in one split. Those proven to be one picture count once. A picture with two classes is a
    question: which one is right?
    """
    from rich.table import Table

    from cli.connect import open_deployment
    from operations.data.duplicates import duplicates as find

    deployment = open_deployment(state_dir)
    if regroup:
        _regroup(deployment, deployment.project(project), as_json=as_json)
        return
    groups = find(deployment, deployment.project(project))
    if as_json:
        show_json([asdict(g) | {"contradicts": g.contradicts, "why": g.why} for g in groups])
        return
    table = Table("split", "task", "class", "image", "what becomes of it", box=None)
    for group in groups[:limit]:
        for i, member in enumerate(group.members):
            table.add_row(
                "" if i else group.bucket, str(member.task or ""), member.label or "", member.uri,
                "" if i else group.why, end_section=i == len(group.members) - 1,
            )  # fmt: skip
    out.print(table if groups else "no two images are related")
    if len(groups) > limit:
        out.print(f"{len(groups) - limit} more groups: --limit {len(groups)}")


def _regroup(deployment: Deployment, record: ProjectRecord, *, as_json: bool) -> None:
    from operations.data.regroup import regroup

    done = regroup(deployment, record)
    if as_json:
        show_json(asdict(done))
        return
    out.print(f"{done.images} images of {done.groups} groups are decided again within a minute: `labelloop status`")
    if done.kept:
        out.print(f"{done.kept} images stay: their labels have judged a model, or their files were overwritten")
