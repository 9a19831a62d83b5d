"""Versions looked at again, here and now: their report, their figures, their curve."""

from __future__ import annotations

from cli.here.context import context_of
from labelloop.records.curve import KeptCurve
from labelloop.records.versions import Version
from labelloop.store.projects import ProjectRecord
from labelloop.store.reports import KeptReport
from operations.deployment import Deployment
from retrain_worker.evidence.curve import follow
from retrain_worker.reporting import report_of_version
from retrain_worker.verify import Verified, verify


def verified(deployment: Deployment, record: ProjectRecord, name: str | None) -> Verified:
    """The figures of a version, computed again, beside those recorded; of the champion where ``name`` is None."""
    context = context_of(deployment)
    return verify(context, context.project(record.key), deployment.version(record, name))


def report_here(deployment: Deployment, record: ProjectRecord, version: Version) -> KeptReport:
    """The evaluation report of a version, made from its features."""
    context = context_of(deployment)
    report = report_of_version(context, context.project(record.key), version)
    return KeptReport(report.json, report.html)


def curve_here(deployment: Deployment, record: ProjectRecord) -> KeptCurve | None:
    """From kept features; the worker's next job finds it. None before the first version."""
    return follow(context_of(deployment).project(record.key))
