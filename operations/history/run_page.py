"""One run, its version and the deployment log in; everything a person asks about it out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from labelloop.records.evidence import Evaluation
from labelloop.records.runs import AGAIN, Run
from labelloop.records.versions import LogEntry, Version
from labelloop.rules.revisions import Revision, tally
from labelloop.rules.uncounted import Uncounted
from operations.history.run_rows import evaluation_of, seconds


@dataclass(frozen=True, slots=True)
class Span:
    """A time for which the version was live. ``until`` None: it is."""

    since: str
    until: str | None
    action: str  # deploy | promote | rollback
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class TrainedRevisions:
    """Which annotation revisions a fit learned from."""

    snapshot: str
    uses: Mapping[str, int]
    revisions: tuple[Revision, ...]
    note: str = ""  # why the list may differ from what was recorded


@dataclass(frozen=True, slots=True)
class Project:
    """What the page needs to know of the project now."""

    title: str
    deployments: Sequence[LogEntry]
    rollback_target: str | None


@dataclass(frozen=True, slots=True)
class RunPage:
    """One run, whole."""

    project: str
    run: Run
    evaluation: Evaluation | None
    version: Version | None
    learned_from: str  # snapshot whose labels the head was fitted on
    waited_s: float | None
    took_s: float | None
    live: bool
    spans: tuple[Span, ...]
    hints: tuple[str, ...]
    trained: TrainedRevisions | None = None
    uncounted: tuple[Uncounted, ...] = ()  # answers of its snapshot that do not count

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, without the version's arrays."""
        data = asdict(self)
        data["run"].pop("detail")
        if self.version:
            for name in ("check_features", "check_probabilities", "evaluation", "verdict"):
                data["version"].pop(name)
            data["version"]["name"] = self.version.name
        return data


def run_page(
    run: Run, version: Version | None, project: Project, trained: TrainedRevisions | None = None,
    uncounted: tuple[Uncounted, ...] = (),
) -> RunPage:  # fmt: skip
    """Put together what is known."""
    live = bool(run.version and project.deployments and project.deployments[-1].version == run.version)
    return RunPage(
        project=project.title, run=run, evaluation=evaluation_of(run) or (version.evaluation if version else None),
        version=version, learned_from=version.snapshot if version else run.snapshot,
        waited_s=seconds(run.queued_at, run.started_at), took_s=seconds(run.started_at, run.ended_at), live=live,
        spans=spans(run.version, project.deployments) if run.version else (), hints=hints(run, live, project),
        trained=trained, uncounted=uncounted,
    )  # fmt: skip


def spans(version: str, deployments: Sequence[LogEntry]) -> tuple[Span, ...]:
    """When a version was live, oldest first."""
    ends = [d.at for d in deployments[1:]] + [None]
    return tuple(
        Span(d.at, until, d.action, d.by, d.why)
        for d, until in zip(deployments, ends, strict=False)
        if d.version == version
    )


def trained(snapshot: str, rows: tuple[Revision, ...], recorded: int | None) -> TrainedRevisions:
    """The list, and whether it is as long as the run's own count."""
    uses = tally(rows)
    now = uses.get("trained", 0)
    note = ""
    if recorded is not None and recorded != now:
        note = f"the run counted {recorded} labels, today's view of images and classes gives {now}: one has changed"
    return TrainedRevisions(snapshot, uses, rows, note)


def hints(run: Run, live: bool, project: Project) -> tuple[str, ...]:
    """What a person may do with it."""
    texts: list[str] = []
    if run.outcome == "running":
        texts.append("progress: `labelloop queue`")
    if run.outcome == "failed":
        texts.append(f"fix the cause, then `labelloop queue retry {run.kind}`; stack trace: `labelloop queue failed`")
    if run.detail.get(AGAIN):
        texts.append("stopped by a pause: its labels are learned after `labelloop resume`")
    texts += _deploying(run, live, project)
    if run.outcome in {"hold", "reject"} and not run.version:
        texts.append("nothing to do: the next run uses these labels again")
    if run.done:
        texts.append(
            f"its labels: `labelloop export --format csv --out labels.csv --at {run.version or run.snapshot[:12]}`"
        )
    return tuple(texts)


def _deploying(run: Run, live: bool, project: Project) -> list[str]:
    if not run.version:
        return []
    if not live:
        return [f"`labelloop promote {run.version}` makes it live, regardless of the gate"]
    if project.rollback_target:
        return [f"it is the champion; `labelloop rollback` goes back to {project.rollback_target}"]
    return ["it is the champion; there is no earlier version to go back to"]
