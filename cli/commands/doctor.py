"""`doctor`, `rotate`: is the wiring right from end to end, and do replaced secrets count everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, err, out
from cli.terminal.screen import show_json

if TYPE_CHECKING:
    from operations.doctor.checks import OnProgress
    from operations.doctor.diagnosis import AreaFinding
    from operations.doctor.finding import Finding

COLOURS = {"ok": "green", "warn": "yellow", "wrong": "red"}


@command
def doctor(project: ProjectName = None, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Check the wiring from end to end: Label Studio, S3, Redis, backend, workers, clocks, disks, each project.

    Changes nothing. Each problem comes with a remedy. Exit code 1 if something is wrong.
    """
    from operations.doctor.diagnosis import is_well

    with err.status("looking", spinner="dots") as status:
        findings = _findings(state_dir, project, lambda done, of: status.update(f"checked {done} of {of}"))
    if as_json:
        show_json([f.to_json() for f in findings])
    else:
        _print(findings)
    if not is_well(findings):
        raise typer.Exit(1)


@command
def rotate(project: ProjectName = None, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Give Label Studio the current S3 keys and backend password, for one project or all.

    This is the last step of a rotation. All steps: docs/operations.md.
    """
    from cli.connect import open_deployment
    from operations.projects.rotate import hand_over

    deployment = open_deployment(state_dir)
    records = [deployment.project(project)] if project else deployment.projects.all()
    findings = [finding for record in records for finding in hand_over(deployment, record)]
    for finding in findings:
        _print_one(finding)
    if not all(f.ok for f in findings):
        raise typer.Exit(1)


def _findings(state_dir: Path, project: str | None, progress: OnProgress) -> list[AreaFinding]:
    """Settings that cannot even be read are a finding, too."""
    from cli.connect import open_deployment
    from labelloop.errors import SettingsError
    from operations.doctor.diagnosis import AreaFinding, diagnose
    from operations.doctor.settings import AREA, unreadable

    try:
        deployment = open_deployment(state_dir)
    except SettingsError as error:
        return [AreaFinding(AREA, finding) for finding in unreadable(error)]
    return diagnose(deployment, project, progress)


def _print(findings: Sequence[AreaFinding]) -> None:
    area = ""
    for item in findings:
        if item.area != area:
            area = item.area
            out.print(f"\n{area}", style="bold", highlight=False)
        _print_one(item.finding)
    count = Counter(str(item.finding.level) for item in findings)
    out.print(f"\n{count['ok']} fine, {count['warn']} to check, {count['wrong']} wrong", highlight=False)


def _print_one(finding: Finding) -> None:
    from rich.padding import Padding
    from rich.text import Text

    line = Text.assemble(("● ", COLOURS[finding.level]), (finding.what, "bold"), "  ", finding.found)
    out.print(Padding(line, (0, 0, 0, 2)))
    if finding.remedy:
        out.print(Padding(Text(f"→ {finding.remedy}", style="cyan"), (0, 0, 0, 6)))
