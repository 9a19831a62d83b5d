"""What a person sees while the stack starts, and what other processes read of a running one (`services.json`)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.embedded.process import ServiceStatus, State
from cli.embedded.state import write_private

SERVICES_FILE = "services.json"
COLOURS = {
    State.WAITING: "dim",
    State.STARTING: "yellow",
    State.READY: "green",
    State.RESTARTING: "magenta",
    State.FAILED: "red",
    State.STOPPED: "dim",
}

Show = Callable[[Sequence[ServiceStatus]], None]


@dataclass(frozen=True)
class Progress:
    """The services of a stack, and whether its command has finished setting it up."""

    ready: bool
    services: tuple[ServiceStatus, ...]


def write_progress(state_dir: Path, progress: Progress) -> None:
    """Replaces services.json in one step."""
    raw = {"ready": progress.ready, "services": [asdict(status) for status in progress.services]}
    write_private(state_dir / SERVICES_FILE, json.dumps(raw, indent=2) + "\n")


def read_progress(state_dir: Path) -> Progress | None:
    """What the stack wrote last; None if there is nothing, or nothing that can be read."""
    try:
        raw = json.loads((state_dir / SERVICES_FILE).read_bytes())
        services = [ServiceStatus(**{**item, "state": State(item["state"])}) for item in raw["services"]]
        return Progress(bool(raw["ready"]), tuple(services))
    except (OSError, ValueError, TypeError, KeyError):
        return None


@contextmanager
def live_progress(console: Console) -> Iterator[Show]:
    """A function for `Stack.wait_ready`: a table that moves on a terminal, a line per change elsewhere."""
    began = time.time()
    if not console.is_terminal:
        yield _line_per_change(console, began)
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield lambda statuses: live.update(status_table(statuses, began=began))


def status_table(statuses: Sequence[ServiceStatus], *, began: float | None = None) -> Table:
    """One row per service; with `began`, the elapsed time stands above."""
    elapsed = "" if began is None else f"starting, {time.time() - began:.0f} s"
    table = Table(title=elapsed or None, title_justify="left", box=None, pad_edge=False)
    for heading in ("service", "state", "for", "restarts", ""):
        table.add_column(heading)
    for status in statuses:
        age = f"{max(0.0, time.time() - status.since):.0f} s"
        state = Text(str(status.state), style=COLOURS[status.state])
        table.add_row(status.name, state, age, str(status.restarts or ""), status.detail)
    return table


def _line_per_change(console: Console, began: float) -> Show:
    seen: dict[str, State] = {}

    def show(statuses: Sequence[ServiceStatus]) -> None:
        for status in statuses:
            if seen.get(status.name) is not status.state and status.state is not State.WAITING:
                detail = f" ({status.detail})" if status.detail else ""
                elapsed = time.time() - began
                line = f"{elapsed:6.1f} s  {status.name:<13} {status.state}{detail}"
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            seen[status.name] = status.state

    return show
