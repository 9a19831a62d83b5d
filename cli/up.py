"""`labelloop up`: the embedded stack with a wired project, in the foreground or detached."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cli.connect import deployment_of
from cli.terminal.reporting import Spoken, reporting
from cli.views.next_steps import line, next_steps, shortened
from embedded.background import detach
from embedded.loop import loop_services
from embedded.progress import live_progress
from embedded.stack import Stack
from embedded.state import StackState, running_stack
from labelloop.config.settings import child_environment
from labelloop.store.projects import ProjectRecord
from operations.deployment import Deployment
from operations.doctor.finding import Finding
from operations.projects.rotate import hand_over_stack_key
from operations.projects.setup import ALWAYS_SHOWN, ImageSource, notes_on, open_source, set_up, wait_ready
from operations.reporting import Report


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command was given."""

    state_dir: Path
    images: Path | None
    config: Path | None
    seeds: int | None
    labels: Path | None = None
    classes: tuple[str, ...] = ()

    def source(self) -> ImageSource:
        """The images; SettingsError."""
        return open_source(
            self.state_dir, self.images, self.config, self.seeds, labels=self.labels, classes=self.classes
        )


def make_stack(state_dir: Path, console: Console) -> Stack:
    """The three servers and labelloop's own services."""
    environ = child_environment()
    logs = state_dir.absolute() / "logs"
    return Stack(
        state_dir,
        base_env=environ,
        extra=lambda state: loop_services(state, environ, logs),
        report=lambda line: console.print(line, style="dim"),
    )


def up(options: UpOptions, console: Console) -> None:
    """Start, set up, print where to go, stay until Ctrl-C."""
    began = time.monotonic()
    source = options.source()
    with make_stack(options.state_dir, console) as stack:
        state = stack.start()
        with live_progress(console) as show:
            stack.wait_ready(show)
        deployment = deployment_of(state)
        refused = hand_over_stack_key(deployment)
        with reporting(console) as here:
            report = _also_announced(here, stack)
            record, findings = set_up(deployment, source, report)
            wait_ready(deployment, record, report)
        took_s = time.monotonic() - began
        _welcome(console, deployment, state, record, [*_about(source, record), *_notes([*refused, *findings])])
        console.print(f"ready after {took_s:.0f} s; Ctrl-C stops everything and loses nothing", style="dim")
        stack.run_forever()


def up_detached(options: UpOptions, argv: Sequence[str], console: Console) -> None:
    """The same in the background; returns once all is set up."""
    with live_progress(console) as show:
        state = detach(options.state_dir, [sys.executable, "-m", "cli.main", *argv], show=show)
    deployment = deployment_of(state)
    source = options.source()
    bucket = deployment.settings.image_buckets[0]
    records = [r for r in deployment.projects.all() if r.image_uri == f"s3://{bucket}/{source.prefix}"]
    if records:
        _welcome(
            console, deployment, state, records[0], [*_about(source, records[0]), *_notes(notes_on(source, records[0]))]
        )


def _also_announced(report: Report, stack: Stack) -> Report:
    """Also to the command that has sent us into the background, every second."""
    spoken = Spoken(every_s=1)

    def both(what: str, done: int, of: int) -> None:
        report(what, done, of)
        if text := spoken(what, done, of):
            stack.announce(text)

    return both


def _welcome(
    console: Console, deployment: Deployment, state: StackState, record: ProjectRecord, notes: Sequence[Text]
) -> None:
    """Where to go, what to press, what happens then. Lines are not broken: addresses are copied out of them."""
    hidden = state.secrets
    login = f"{hidden.studio_email}  /  {hidden.studio_password}"
    queue = f"{state.dashboard_url}   {hidden.dashboard_user} / {hidden.dashboard_password}"
    network = f"{record.config.backbone.name}: {record.network}" if record.network else record.config.backbone.name
    lines = [
        Text("labelloop is up", style="bold green"),
        *next_steps(deployment, record, state.directory, login=login),
        line("Queue", queue),
        line("API", f"{state.api_url}/docs   keys: labelloop keys add NAME"),
        line("Network", network),
        *notes,
    ]
    for text in lines:
        console.print(text, soft_wrap=True, highlight=False)


def _about(source: ImageSource, record: ProjectRecord) -> list[Text]:
    classes = record.schema.classes
    return [line("Images", f"{len(source.files)}, {len(classes)} classes: {shortened(classes)}")]


def _notes(findings: Sequence[Finding]) -> list[Text]:
    """What people should see."""
    rows = [f for f in findings if f.remedy or f.what in ALWAYS_SHOWN]
    return [Text(f"{f.what}: {f.note}", style="yellow" if f.ok else "red") for f in rows]


def is_running(state_dir: Path) -> bool:
    """True where a stack runs on this state directory."""
    return running_stack(state_dir) is not None
