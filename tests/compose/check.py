"""The compose stack from nothing on a real engine: `make compose-check`, ARGS=--stand-ins where nothing can be pulled.

A label becomes a new model version, a worker is added, the backends are replaced one by one while somebody asks for
predictions. Everything is removed afterwards (--keep leaves it). No part of CI: it needs an engine and 20 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedded.ports import pick_port
from labelloop.labels.results import parse_label_config
from labelloop.studio.client import Studio
from operations.projects.digits import write_digits
from operations.projects.imagefolder import scan

ROOT = Path(__file__).parents[2]
PER_CLASS = 20
FIRST = 40  # labels until the first version should be live
MORE = 10  # single labels, one of which must make a version
QUICK = "name: check\nrefresh: {after: 1}\n"


@dataclass
class Stack:
    """One compose project of its own: other stacks of this machine are left alone."""

    folder: Path
    files: tuple[str, ...]
    seen: dict[str, Any] = field(default_factory=dict)
    project: str = "labelloop-check"

    def __post_init__(self) -> None:
        example = (ROOT / ".env.example").read_text()
        filled = re.sub(r"=change-me", lambda _: "=" + secrets.token_hex(20), example)
        self.port = pick_port()
        ports = f"\nSTUDIO_PORT={self.port}\nDASHBOARD_PORT={pick_port()}\n"
        self.env_file = self.folder / ".env"
        self.env_file.write_text(re.sub(r"^(STUDIO|DASHBOARD)_PORT=.*\n", "", filled, flags=re.M) + ports)
        found = re.search(r"^LABELLOOP_STUDIO_TOKEN=(.*)$", filled, flags=re.M)
        assert found
        self.token = found[1]

    @property
    def options(self) -> list[str]:
        """What every compose command of this stack begins with."""
        files = [word for name in self.files for word in ("-f", name)]
        return ["-p", self.project, "--env-file", str(self.env_file), *files]

    def compose(self, *words: str, quiet: bool = False) -> str:
        """One docker compose command; what it prints."""
        if not quiet:
            print("$ docker compose", " ".join(words), flush=True)
        done = subprocess.run(
            ["docker", "compose", *self.options, *words], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        return done.stdout.decode()

    def status(self) -> dict[str, Any]:
        """What `labelloop status --json` says."""
        said = self.compose("exec", "-T", "sync", "labelloop", "status", "--json", quiet=True)
        found: dict[str, Any] = json.loads(said)
        return found

    def version(self) -> str | None:
        """The project's live version."""
        return next((p["version"] for p in self.status()["projects"]), None)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Remember how long something took."""
        began = time.monotonic()
        yield
        self.seen[f"{what}_s"] = round(time.monotonic() - began, 1)
        print(f"  {what}: {self.seen[f'{what}_s']} s", flush=True)


def wait_for(what: str, happened: Callable[[], bool], seconds: float = 300) -> None:
    """Poll; an AssertionError where it takes too long."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(1)


def few_digits(folder: Path) -> Path:
    """A small tree of class folders, and a config under which every label counts."""
    tree, few = write_digits(folder / "all"), folder / "photos"
    for file in sorted(tree.glob("*/*.png")):
        place = few / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        if len(list(place.iterdir())) < PER_CLASS:
            (place / file.name).write_bytes(file.read_bytes())
    (folder / "check.yaml").write_text(QUICK)
    for path in (folder, *folder.rglob("*")):  # the containers' user is not ours
        path.chmod(0o755 if path.is_dir() else 0o644)
    return few


def bring_up(stack: Stack) -> None:
    """Images built, every service healthy, a project wired and in order."""
    with stack.timed("build"):
        stack.compose("build")
    with stack.timed("up"):
        stack.compose("up", "-d", "--wait", "--wait-timeout", "600")
    photos = few_digits(stack.folder / "shared")
    with stack.timed("init"):
        print(
            stack.compose(
                "run", "--rm", "-T", "-v", f"{photos}:/images:ro", "-v", f"{photos.parent}/check.yaml:/check.yaml:ro",
                "sync", "labelloop", "init", "--images", "/images", "--config", "/check.yaml",
            )
        )  # fmt: skip


def label(stack: Stack) -> None:
    """As a person does, over Label Studio's API: the first version, then one for a single label."""
    studio = Studio(f"http://127.0.0.1:{stack.port}", stack.token)
    project = 1
    schema = parse_label_config(studio.project(project).label_config)
    truth = {f"s3://images/{file.key}": file.label for file in scan(stack.folder / "shared/photos", "check/")}

    def submit() -> None:
        task = studio.next_task(project, schema)
        assert task, "the queue is empty"
        studio.annotate(task.id, schema.result(truth[task.uri]), lead_time_s=1.0, prediction=task.prediction_id)

    def shown() -> str:
        return studio.project(project).model_version or ""

    with stack.timed("first_version"):
        for _ in range(FIRST):
            submit()
        wait_for("a first version", lambda: stack.version() is not None)
    for given in range(1, MORE + 1):
        wait_for("an idle stack", lambda: is_idle(stack))
        before, began = shown(), time.monotonic()
        submit()
        while shown() == before and time.monotonic() < began + 20:
            time.sleep(0.2)
        if shown() != before:
            took = round(time.monotonic() - began, 1)
            stack.seen["one_label"] = {"before": before, "after": shown(), "seconds": took, "labels_tried": given}
            return
    raise AssertionError(f"none of {MORE} single labels made a new version")


def is_idle(stack: Stack) -> bool:
    """No job, and Label Studio shows the live version's order."""
    status = stack.status()
    return not status["jobs"] and all(p["published"] == p["version"] for p in status["projects"])


def add_worker(stack: Stack) -> None:
    """`up --scale`: a second worker beats beside the first."""
    with stack.timed("scale"):
        stack.compose(
            "up", "-d", "--no-deps", "--no-recreate", "--scale", "worker-features=2", "--wait", "worker-features"
        )
        wait_for("a second worker", lambda: features_workers(stack) == 2)
    stack.seen["features_workers"] = features_workers(stack)


def features_workers(stack: Stack) -> int:
    """How many say that they work on the queue `features`."""
    return sum(s["name"].startswith("worker:") and "features" in s["note"] for s in stack.status()["services"])


def replace_under_load(stack: Stack) -> None:
    """rolling-restart.sh while four clients ask for predictions without a pause."""
    name = f"{stack.project}-hammer"
    script = Path(__file__).parent / "hammer.py"
    stack.compose("run", "-d", "--name", name, "-v", f"{script}:/app/hammer.py:ro", "sync", "python", "hammer.py")
    try:
        time.sleep(15)
        with stack.timed("rolling_restart"):
            subprocess.run([ROOT / "deploy/compose/rolling-restart.sh", *stack.options], check=True)
        time.sleep(5)
        subprocess.run(["docker", "stop", "--time", "120", name], check=True, stdout=subprocess.DEVNULL)
        logs = subprocess.run(["docker", "logs", name], check=True, stdout=subprocess.PIPE).stdout.decode()
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=False, stdout=subprocess.DEVNULL)
    stack.seen["hammer"] = json.loads(logs.strip().splitlines()[-1])
    assert stack.seen["hammer"]["calls"] > 100, "hardly anybody asked"
    assert stack.seen["hammer"]["failures"] == 0, stack.seen["hammer"]["first_failures"]


def main() -> None:
    """All of it, one after the other; what was seen goes to stdout as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stand-ins", action="store_true", help="build what cannot be pulled")
    parser.add_argument("--keep", action="store_true", help="leave the stack running")
    options = parser.parse_args()
    stand_ins = ("deploy/compose/stand-ins.yml",) if options.stand_ins else ()
    folder = Path(tempfile.mkdtemp(prefix="labelloop-check-"))
    stack = Stack(folder, ("docker-compose.yml", *stand_ins))
    try:
        for step in (bring_up, label, add_worker, replace_under_load):
            print(f"── {step.__name__}", flush=True)
            step(stack)
    finally:
        print(json.dumps(stack.seen, indent=2), flush=True)
        if not options.keep:
            stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "30")
            shutil.rmtree(folder)
        else:
            print("docker compose", *stack.options, file=sys.stderr)


if __name__ == "__main__":
    main()
