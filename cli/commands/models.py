"""`models`, `card`, `report`, `verify`, `promote`, `reject`, `rollback`, `retrain`: versions, and which one is live."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, err, goes_on, out
from cli.terminal.screen import show_json, show_text
from cli.terminal.values import Version
from cli.terminal.values import version as version_name
from operations.people import me

if TYPE_CHECKING:
    from labelloop.records.versions import Version as KeptVersion
    from labelloop.store.projects import ProjectRecord
    from labelloop.store.registry import Registry
    from labelloop.store.reports import KeptReport
    from operations.deployment import Deployment
    from operations.models.decisions import Decided
    from retrain_worker.verify import Verified


@command
def models(
    log: Annotated[
        bool, typer.Option("--log", help="Show the deployment log instead: who decided what, when and why.")
    ] = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """List the model versions with their evidence. The champion is marked."""
    from cli.connect import open_deployment
    from labelloop.records.json import to_dict
    from labelloop.rules.approvals import state, waiting

    deployment = open_deployment(state_dir)
    registry = deployment.registry(deployment.project(project))
    if log:
        _decisions(registry, as_json=as_json)
        return
    live = registry.live()
    versions, rejected = registry.versions(), registry.rejected()
    name = live.version if live else None
    waits = {v.name for v in waiting(versions, live=name, rejected=rejected)}
    if as_json:
        hidden = ("check_features", "check_probabilities")
        show_json([{k: v for k, v in to_dict(x).items() if k not in hidden} for x in versions])
        return
    table = Table("version", "kind", "labels", "out of fold", "test", "backbone", "verdict", "state", "made", box=None)
    for version in versions:
        evaluation = version.evaluation
        mark = " ● live" if live and live.version == version.name else ""
        test = f"{evaluation.test_accuracy:.3f} of {evaluation.test_n}" if evaluation.test_accuracy is not None else ""
        accuracy = f"{evaluation.accuracy:.3f}" if evaluation.accuracy is not None else ""
        table.add_row(version.name + mark, version.kind, str(evaluation.labels), accuracy, test, version.backbone,
                      version.verdict.outcome.value, state(version, live=name, rejected=rejected, waits=waits),
                      version.created_at[:16])  # fmt: skip
    out.print(table if versions else "no version yet")


def _decisions(registry: Registry, *, as_json: bool) -> None:
    from labelloop.records.json import to_dict

    entries = registry.decisions()
    if as_json:
        show_json([to_dict(e) for e in entries])
        return
    table = Table("no", "at", "what", "version", "live before", "by", "why", box=None)
    for entry in entries:
        table.add_row(str(entry.number), entry.at[:19], entry.action, entry.rejected or entry.version,
                      entry.previous or "", entry.by, entry.why)  # fmt: skip
    out.print(table if entries else "no decision yet")


@command
def card(
    version: Version = None,
    to: Annotated[Path | None, typer.Option("--out", help="Write to this file instead of printing.")] = None,
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Print a version's model card: data, labels, training, figures, verdict, decisions, limits, config."""
    from cli.connect import open_deployment
    from operations.models.card import model_card

    deployment = open_deployment(state_dir)
    text = model_card(deployment, deployment.project(project), version)
    if to:
        to.write_text(text, encoding="utf-8")
    else:
        show_text(text)


@command
def report(
    version: Version = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="The file to write. Default: report-VERSION.html in this folder.")
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Recompute it, from features only.")] = False,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Write a version's evaluation report: one offline page with figures, intervals and pictures.

    A retrain leaves a report with robustness and attributions. A refresh's is computed now, from kept features, or
    from the images if the features were deleted.
    """
    from cli.connect import open_deployment
    from operations.models.report import evaluation_report

    deployment = open_deployment(state_dir)
    page = evaluation_report(deployment, deployment.project(project), version, _report_here, anew=anew)
    if as_json:
        show_json(page.json)
        return
    path = to or Path(f"report-{page.json['challenger']['name']}.html")
    path.write_text(page.html, encoding="utf-8")
    for note in page.json["notes"]:
        out.print(f"  {note}", highlight=False)
    out.print(f"{path}: {page.json['test']['judged']} test labels, {page.json['verdict']['outcome']}")


@command
def verify(
    version: Version = None,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Recompute a version's test and audit figures from snapshot, weights and images.

    Exit code 1 if they differ from the recorded ones. Deleted features are recomputed from the
    images. Nothing is written.
    """
    from cli.connect import open_deployment
    from cli.here.versions import verified

    deployment = open_deployment(state_dir)
    verification = verified(deployment, deployment.project(project), version)
    if as_json:
        show_json({**asdict(verification), "holds": verification.holds})
    else:
        _figures(verification)
    if not verification.holds:
        raise typer.Exit(1)


def _figures(verification: Verified) -> None:
    table = Table(verification.version, "recorded", "computed again", "", box=None)
    for figure in verification.figures:
        verdict = "differs" if figure.differs else "only reported" if figure.recorded is None else "as recorded"
        table.add_row(figure.name, _figure(figure.recorded), _figure(figure.found), verdict)
    out.print(table)
    for note in verification.notes:
        out.print(f"  {note}", highlight=False)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


@command
def promote(
    version: Annotated[str, typer.Argument(parser=version_name, metavar="VERSION", help="A version from `labelloop "
                                           "models`, e.g. v7.")],
    why: Annotated[str, typer.Option(help="Reason, kept in the deployment log.")] = "by hand",
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:  # fmt: skip
    """Make a version the champion, regardless of the gate."""
    from cli.connect import open_deployment
    from operations.models.decisions import promote as decide

    deployment = open_deployment(state_dir)
    _tell(decide(deployment, deployment.project(project), version, by=me(), why=why))


@command
def reject(
    version: Annotated[str, typer.Argument(parser=version_name, metavar="VERSION", help="A version that waits for "
                                           "approval, e.g. v7.")],
    why: Annotated[str, typer.Option(help="Reason, kept in the deployment log.")] = "by hand",
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:  # fmt: skip
    """Reject a version. It is not offered again, and the log keeps who rejected it and why."""
    from cli.connect import open_deployment
    from operations.models.decisions import reject as decide

    deployment = open_deployment(state_dir)
    decided = decide(deployment, deployment.project(project), version, by=me(), why=why)
    out.print(f"{version} is rejected; {decided.version or 'nothing'} stays champion")


@command
def rollback(
    why: Annotated[str, typer.Option(help="Reason, kept in the deployment log.")] = "by hand",
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Go back to the previous champion. Unreadable versions are skipped and named."""
    from cli.connect import open_deployment
    from operations.models.decisions import rollback as decide

    deployment = open_deployment(state_dir)
    _tell(decide(deployment, deployment.project(project), by=me(), why=why))


@command
def retrain(
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it ends, with progress.")] = False,
    project: ProjectName = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Fine-tune the backbone now."""
    from cli.connect import open_deployment
    from cli.terminal.reporting import reporting
    from operations.models.retrain import ask, wait_for

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    request = ask(deployment, record, by=me())
    out.print(f"retrain of {record.title} requested; progress: `labelloop status`")
    if wait:
        ends = f"`labelloop queue cancel retrain --project {record.key}` cancels it"
        going = f"the retrain of {record.title} is still queued or running and"
        with goes_on(going, ends), reporting(err) as report:
            run = wait_for(deployment, record, request, report, _say)
        out.print(Text.assemble((run.outcome, "bold"), f" {run.version or ''}"))
        for reason in run.reasons:
            out.print(f"  {reason}", highlight=False)
        if run.outcome == "failed":
            raise typer.Exit(1)


def _report_here(deployment: Deployment, record: ProjectRecord, version: KeptVersion) -> KeptReport:
    """Imports torch, so only where no report is kept."""
    from cli.here.versions import report_here

    return report_here(deployment, record, version)


def _say(text: str) -> None:
    out.print(text, style="yellow")


def _tell(decided: Decided) -> None:
    for name, reason in decided.skipped:
        out.print(f"{name} is skipped: {reason}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if not decided.changed:
        out.print(f"{decided.version} is already live: nothing changed", highlight=False)
        return
    out.print(f"{decided.version} is live (was {decided.previous or 'nothing'}); backends follow within a second")
    if decided.paused:
        out.print(decided.paused, style="yellow", highlight=False)
