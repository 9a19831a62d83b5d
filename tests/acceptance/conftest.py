"""One stack for all acceptance tests, started and stopped as a person would: with the `labelloop` command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import pytest
import yaml

from cli.connect import open_deployment
from labelloop.labels.results import LabelSchema
from labelloop.store.projects import ProjectRecord
from labelloop.studio.client import NextTask, Studio
from operations.deployment import Deployment
from operations.projects.digits import write_digits
from operations.projects.imagefolder import scan
from operations.status import ProjectStatus, StatusReader

ROOT = Path(__file__).parents[2]
LABELLOOP = Path(sys.executable).parent / "labelloop"
PER_CLASS = 40  # images


def labelloop(*words: str | Path, timeout: float = 600) -> str:
    """Run the command; its output, or a failure that shows what it said."""
    done = subprocess.run([LABELLOOP, *map(str, words)], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, (
        f"labelloop {' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout


def until(condition: Callable[[], object], seconds: float = 90, what: str = "it") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)


def send(url: str, token: str, method: str, path: str, body: Any) -> int:
    """JSON with escapes, which alone can say half of a character; the answer's status."""
    headers = {"Content-Type": "application/json", "Authorization": f"Token {token}"}
    return httpx.request(method, f"{url}/{path}", content=json.dumps(body), headers=headers, timeout=60).status_code


@dataclass(frozen=True)
class Loop:
    """The running stack and what a test does with it."""

    home: Path

    @cached_property
    def deployment(self) -> Deployment:
        return open_deployment(self.home)

    @property
    def studio(self) -> Studio:
        return self.deployment.studio

    @property
    def project(self) -> ProjectRecord:
        return next(r for r in self.deployment.projects.all() if r.title == "digits")

    @property
    def schema(self) -> LabelSchema:
        return self.project.schema

    @cached_property
    def _status_reader(self) -> StatusReader:
        return StatusReader(self.deployment)

    def picture(self) -> ProjectStatus:
        """What `status` shows of the digits, without starting a process each time."""
        return next(p for p in self._status_reader.read().projects if p.title == "digits")

    def status(self) -> dict[str, Any]:
        """What the command says, which takes seconds of a processor."""
        found: dict[str, Any] = json.loads(labelloop("status", "--json", "--state-dir", self.home))
        return next(p for p in found["projects"] if p["title"] == "digits") | {"all": found}

    def live(self) -> str | None:
        entry = self.deployment.registry(self.project).live()
        return entry.version if entry else None

    @cached_property
    def _truth(self) -> dict[str, str]:
        """Class by the hidden name of an image."""
        return {PurePosixPath(f.key).name: str(f.label) for f in scan(self.home / "digits", "")}

    def submit(self, count: int, studio: Studio | None = None) -> None:
        """Answer the next tasks rightly: a held version says that the labels were bad, not that the loop is.

        ``studio``: of somebody else than the owner.
        """
        studio = studio or self.studio
        for _ in range(count):
            task = studio.next_task(self.project.id, self.schema)
            assert task is not None
            self.answer(task, studio)

    def answer(self, task: NextTask, studio: Studio | None = None) -> None:
        """What the image really shows, as ``studio``."""
        label = self._truth[PurePosixPath(task.uri).name]
        result = self.schema.result(label)
        (studio or self.studio).annotate(task.id, result, lead_time_s=1.0, prediction=task.prediction_id)


def indulgent(home: Path) -> Path:
    """The demo's config with a gate that holds only what is proven to be worse.

    Of sixty labels two images more or less are three points: every tenth good refresh would be held, and then the next
    one comes with the next ten labels. What the gate does is tested elsewhere.
    """
    path = home / "digits.yaml"
    gate = {"tolerance": 1.0, "reference_tolerance": 1.0, "recall_drop": 1.0, "recall_floor": 0.0, "max_ece": 1.0}
    path.write_text((ROOT / "configs" / "digits.yaml").read_text() + yaml.safe_dump({"gate": gate}))
    return path


def few_digits(home: Path) -> None:
    """The demo's images, not quite a quarter of them: importing them takes longer than most tests."""
    for place in write_digits(home / "digits").iterdir():
        for spare in sorted(place.glob("*.png"))[PER_CLASS:]:
            spare.unlink()


@pytest.fixture(scope="session")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    home = tmp_path_factory.mktemp("stack")
    loop = Loop(home)
    few_digits(home)
    try:
        labelloop("up", "--detach", "--config", indulgent(home), "--state-dir", home)
        yield loop
        loop.deployment.close()
    finally:
        labelloop("down", "--state-dir", home)
