"""A deployment in, everything that was looked at out: first what all else needs, then the rest at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labelloop.store.projects import ProjectRecord
from operations.deployment import Deployment
from operations.doctor import (
    answers,
    backend,
    clocks,
    disk,
    models,
    processes,
    project,
    queue,
    settings,
    storage,
    studio,
)
from operations.doctor.checks import DoctorCheck, OnProgress, look_at, runnable
from operations.doctor.finding import Finding, Level
from operations.doctor.scene import Scene

FIRST = (settings.checks, studio.first, storage.first, queue.first, backend.first)
THEN = (
    studio.checks, storage.checks, models.checks, queue.checks, backend.checks, processes.checks, clocks.checks,
    disk.checks,
)  # fmt: skip
PROJECT = (
    project.checks,
    answers.of_project,
    storage.of_project,
    backend.of_project,
    processes.of_project,
    models.of_project,
)


@dataclass(frozen=True, slots=True)
class AreaFinding:
    """A finding under its heading."""

    area: str
    finding: Finding

    def to_json(self) -> dict[str, str]:
        """Plain JSON types."""
        f = self.finding
        return {"area": self.area, "what": f.what, "level": f.level, "found": f.found, "remedy": f.remedy}


def diagnose(
    deployment: Deployment, name: str | None = None, progress: OnProgress = lambda _done, _of: None
) -> list[AreaFinding]:
    """Look at everything, or for projects at one alone; LabelloopError where there is no project of that name."""
    scene = Scene(deployment)
    try:
        first = look_at([check for checks in FIRST for check in checks(scene)], progress)
        rows = _under(first)
        failed = [check.what for check, findings in first.items() if not all(f.ok for f in findings)]
        records = [] if storage.REACHED in failed else _records(scene, name)
        further = [check for checks in THEN for check in checks(scene)]
        further += [check for record in records for checks in PROJECT for check in checks(scene, record)]
        kept, left_out = runnable(further, failed)
        rows += _under(look_at(kept, progress))
    finally:
        scene.close()
    return [*_together(rows), *[AreaFinding("left out", finding) for finding in left_out]]


def is_well(findings: Sequence[AreaFinding]) -> bool:
    """True where nothing is wrong; warnings do not count."""
    return all(f.finding.level is not Level.WRONG for f in findings)


def _records(scene: Scene, name: str | None) -> list[ProjectRecord]:
    return [scene.deployment.project(name)] if name else scene.records()


def _under(looked: Mapping[DoctorCheck, Sequence[Finding]]) -> list[AreaFinding]:
    return [AreaFinding(check.area, finding) for check, findings in looked.items() for finding in findings]


def _together(findings: Sequence[AreaFinding]) -> list[AreaFinding]:
    """Each area's findings side by side, areas in the order of their first one."""
    areas = list(dict.fromkeys(f.area for f in findings))
    return sorted(findings, key=lambda f: areas.index(f.area))
