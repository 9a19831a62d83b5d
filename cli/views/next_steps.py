"""A wired project in, where to go, what to press and what happens then, out: how `up` and `init` end."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rich.text import Text

from embedded.state import DEFAULT_STATE
from labelloop.errors import StudioError
from labelloop.rules.trigger import FIRST
from labelloop.store.projects import ProjectRecord
from labelloop.studio.wiring import StudioWiring
from operations.deployment import Deployment

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
UNKNOWN = "on the page Organization of Label Studio, Add Members"


def next_steps(deployment: Deployment, record: ProjectRecord, state_dir: Path, *, login: str = "") -> list[Text]:
    """One claim a line. ``login``: where it is ours to show."""
    url = deployment.settings.studio_link
    after, first = record.config.refresh.after, min(record.config.refresh.after, FIRST)
    seconds = f"live within seconds: {command_line('status', state_dir)} shows it"
    live = deployment.registry(record).live()
    then = f"every {after} answers make a new model, {seconds}"
    if live is None:
        then = f"{first} answers make the first model, every {after} more a new one, {seconds}"
    rows = [
        ("Open", f"{url}/projects/{record.id}/data"),
        ("Log in", login),
        ("Press", "Label All Tasks: the image that the model learns most from comes first"),
        ("Then", then),
        ("Invite", invitation(deployment, url)),
    ]
    return [line(name, what) for name, what in rows if what]


def invitation(deployment: Deployment, url: str) -> str:
    """How a second person gets in."""
    try:
        link = StudioWiring(deployment.studio.http).invitation(url)
    except StudioError:  # an account that may not, or a Label Studio that signs people in elsewhere
        return UNKNOWN
    host = urlsplit(url)
    if host.hostname not in LOOPBACK:
        return link
    return f"{link} (from elsewhere, first: ssh -L {host.port}:{host.hostname}:{host.port} THIS-MACHINE)"


def line(name: str, what: str) -> Text:
    """A row of the panel."""
    return Text.assemble((f"{name:<10}", "bold"), what)


def command_line(verb: str, state_dir: Path) -> str:
    """As it can be typed here, where nobody has activated the environment."""
    program = Path(sys.executable).parent / "labelloop"
    activated = Path(shutil.which("labelloop") or "/").resolve() == program.resolve()
    name = "labelloop" if activated or not program.exists() else str(relative(program))
    where = relative(state_dir.absolute())
    return f"{name} {verb}" + ("" if where == DEFAULT_STATE else f" --state-dir {shlex.quote(str(where))}")


def relative(path: Path) -> Path:
    """Relative where that is shorter to type."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def shortened(classes: Sequence[str], most: int = 8) -> str:
    """The first of many."""
    return ", ".join(classes[:most]) + (f" and {len(classes) - most} more" if len(classes) > most else "")
