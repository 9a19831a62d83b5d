"""The evaluation report of a version: the one that its run left, or a new one."""

from __future__ import annotations

from collections.abc import Callable

from labelloop.records.versions import Version
from labelloop.store.projects import ProjectRecord
from labelloop.store.reports import KeptReport, kept_report
from operations.deployment import Deployment

Make = Callable[[Deployment, ProjectRecord, Version], KeptReport]


def evaluation_report(
    deployment: Deployment, record: ProjectRecord, name: str | None, make: Make, *, anew: bool
) -> KeptReport:
    """Of one version, or of the champion; NotFoundError where there is none. ``make``: where none is kept."""
    version = deployment.version(record, name)
    kept = None if anew else kept_report(deployment.within(record), version.name)
    return kept or make(deployment, record, version)
