"""What a person sees while the stack starts, and what other processes read of a running one (`services.json`)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from embedded.process import ServiceState, ServiceStatus
from embedded.state import write_private

SERVICES_FILE = "services.json"
COLOURS = {
    ServiceState.WAITING: "dim",
    ServiceState.STARTING: "yellow",
    ServiceState.READY: "green",
    ServiceState.RESTARTING: "magenta",
    ServiceState.FAILED: "red",
    ServiceState.STOPPED: "dim",
}

SILENCE_S = 10.0  # after which a line says what is waited for
USUAL = "usually 20 to 60 s"  # until all services are ready


class Show(Protocol):
    """Is called several times a second."""

    def __call__(self, statuses: Sequence[ServiceStatus], step: str = "") -> None:
        """``step``: what is done once all services are ready."""


def unseen(statuses: Sequence[ServiceStatus], step: str = "") -> None:
    """Where nobody looks."""


@dataclass(frozen=True)
class StackProgress:
    """The services of a stack, and whether its command has finished setting it up."""

    ready: bool
    services: tuple[ServiceStatus, ...]
    step: str = ""  # what is done now, with all services ready


def write_progress(state_dir: Path, progress: StackProgress) -> None:
    """Replaces services.json in one step."""
    services = [asdict(status) for status in progress.services]
    raw = {"ready": progress.ready, "services": services, "step": progress.step}
    write_private(state_dir / SERVICES_FILE, json.dumps(raw, indent=2) + "\n")


def read_progress(state_dir: Path) -> StackProgress | None:
    """What the stack wrote last; None if there is nothing, or nothing that can be read."""
    try:
        raw = json.loads((state_dir / SERVICES_FILE).read_bytes())
        services = [ServiceStatus(**{**item, "state": ServiceState(item["state"])}) for item in raw["services"]]
        return StackProgress(bool(raw["ready"]), tuple(services), str(raw.get("step", "")))
    except (OSError, ValueError, TypeError, KeyError):
        return None


@contextmanager
def live_progress(console: Console) -> Iterator[Show]:
    """A function for `Stack.wait_ready`: a table that moves on a terminal, a line per change elsewhere."""
    began = time.time()
    if not console.is_terminal:
        yield _Lines(console, began)
        return
    with Live(console=console, refresh_per_second=8) as live:

        def show(statuses: Sequence[ServiceStatus], step: str = "") -> None:
            live.update(status_table(statuses, began=began, step=step))

        yield show


def status_table(statuses: Sequence[ServiceStatus], *, began: float, step: str = "") -> Group:
    """One row per service; above how many are ready and the time, below the ``step``."""
    above = Text(f"{_ready(statuses)}, {time.time() - began:.0f} s ({USUAL})")
    table = Table(box=None, pad_edge=False)
    for heading in ("service", "state", "for", "restarts", ""):
        table.add_column(heading)
    for status in statuses:
        age = f"{max(0.0, time.time() - status.since):.0f} s"
        state = Text(str(status.state), style=COLOURS[status.state])
        table.add_row(status.name, state, age, str(status.restarts or ""), status.detail)
    return Group(above, table, Text(step)) if step else Group(above, table)


def _ready(statuses: Sequence[ServiceStatus]) -> str:
    return f"{sum(s.state is ServiceState.READY for s in statuses)} of {len(statuses)} services ready"


class _Lines:
    """A line per change, and one where nothing has changed for a while."""

    def __init__(self, console: Console, began: float) -> None:
        self._console, self._began = console, began
        self._seen: dict[str, ServiceState] = {}
        self._step, self._at = "", began

    def __call__(self, statuses: Sequence[ServiceStatus], step: str = "") -> None:
        for status in statuses:
            if self._seen.get(status.name) is not status.state and status.state is not ServiceState.WAITING:
                self._say(f"{status.name:<13} {status.state}" + (f" ({status.detail})" if status.detail else ""))
            self._seen[status.name] = status.state
        quiet = time.time() - self._at > SILENCE_S
        if step and (quiet or step.partition(":")[0] != self._step.partition(":")[0]):
            self._step = step
            self._say(step)
        elif quiet and not step:
            away = ", ".join(s.name for s in statuses if s.state is not ServiceState.READY)
            self._say(f"{_ready(statuses)} ({USUAL})" + (f"; still starting: {away}" if away else ""))

    def _say(self, text: str) -> None:
        self._at = time.time()
        self._console.print(f"{self._at - self._began:6.1f} s  {text}", highlight=False, markup=False, soft_wrap=True)
