"""`labelloop up`: the embedded stack with a wired project, in the foreground or detached."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from cli.deployment import deployment_of
from cli.doctor.finding import Finding
from cli.embedded.background import detach
from cli.embedded.loop import loop_services
from cli.embedded.progress import live_progress
from cli.embedded.stack import Stack
from cli.embedded.state import StackState, running_stack
from cli.rotate import hand_over_stack_key
from cli.setup import Report, Source, open_source, set_up, wait_ready
from labelloop.projects import ProjectRecord
from labelloop.settings import child_environment


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command was given."""

    state_dir: Path
    images: Path | None
    config: Path | None
    seeds: int | None
    labels: Path | None = None
    classes: tuple[str, ...] = ()

    def source(self) -> Source:
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
        with reporting(console) as report:
            record, findings = set_up(deployment, source, report)
            wait_ready(deployment, record, report)
        console.print(welcome(state, record, source, [*refused, *findings], took_s=time.monotonic() - began))
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
        console.print(welcome(state, records[0], source, [], took_s=None))


@contextmanager
def reporting(console: Console) -> Iterator[Report]:
    """Bars with time left on a terminal, a line per step elsewhere."""
    if not console.is_terminal:
        yield _lines(console)
        return
    count = TextColumn("{task.completed:.0f}/{task.total:.0f}")
    what = TextColumn("{task.description}", markup=False)
    columns = (what, BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=max(of, 1))
            progress.update(tasks[what], completed=done, total=max(of, 1))

        yield report


def welcome(
    state: StackState, record: ProjectRecord, source: Source, findings: Sequence[Finding], *, took_s: float | None
) -> Panel:
    """Where to go and what to press."""
    hidden = state.secrets
    lines = [
        _line("Label Studio", f"{state.studio_url}/projects/{record.id}/data"),
        _line("", f"{hidden.studio_email}  /  {hidden.studio_password}"),
        _line("", "press Label All Tasks: what the model needs most comes first"),
        _line("Status", f"labelloop status --state-dir {_shown(state.directory)}"),
        _line("Queue", f"{state.dashboard_url}   {hidden.dashboard_user} / {hidden.dashboard_password}"),
        _line("Images", f"{len(source.files)} in {record.image_uri}, classes: {', '.join(source.classes)}"),
    ]
    if record.network:
        lines.append(_line("Network", f"{record.config.backbone.name}: {record.network}"))
    lines += [Text(f"{f.what}: {f.note}", style="yellow" if f.ok else "red") for f in findings if f.remedy]
    if took_s is not None:
        lines.append(Text(f"ready after {took_s:.0f} s; Ctrl-C stops everything and loses nothing", style="dim"))
    return Panel(Text("\n").join(lines), title="labelloop is up", title_align="left", expand=False)


def _line(name: str, what: str) -> Text:
    return Text.assemble((f"{name:<15}", "bold"), what)


def is_running(state_dir: Path) -> bool:
    """True where a stack runs on this state directory."""
    return running_stack(state_dir) is not None


def _shown(directory: Path) -> Path:
    """Relative where that is shorter to type."""
    here = Path.cwd()
    return directory.relative_to(here) if directory.is_relative_to(here) else directory


def _lines(console: Console) -> Report:
    """A line when a step begins and at every quarter of it."""
    told: dict[str, int] = {}

    def report(what: str, done: int, of: int) -> None:
        quarter = 4 * done // max(of, 1)
        if told.get(what) != quarter:
            told[what] = quarter
            console.print(f"{what}: {done}/{of}")

    return report
