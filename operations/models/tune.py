"""Begin a search, follow it, make its winner the project's config."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from labelloop.config.yaml_file import read_yaml
from labelloop.errors import LabelloopError, NotEnoughLabelsError, NotFoundError
from labelloop.queue.channels import NUDGE_CHANNEL, publish
from labelloop.queue.heartbeat import alive
from labelloop.queue.jobs import TRIAL
from labelloop.store.projects import ProjectRecord
from labelloop.store.snapshots import SnapshotStore
from labelloop.store.studies import Search, Study, StudyStore, Trial, best, missing, parse_search
from operations.deployment import Deployment
from operations.reporting import Report

LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class StudyResults:
    """A search and what is known of its trials."""

    study: Study
    trials: Sequence[Trial]

    @property
    def best(self) -> Trial | None:
        return best(self.trials)

    @property
    def left(self) -> int:
        """Trials that have not ended."""
        return len(missing(self.study, self.trials))


def read_search(path: Path, trials: int | None) -> Search:
    """A YAML file of configs/tune; SettingsError names what is wrong with it."""
    more = {"trials": trials} if trials else {}
    return parse_search({**read_yaml(path), **more}, str(path))


def comparison(backbones: Sequence[str]) -> Search:
    """One trial per network, all under the project's settings."""
    space = {"backbone.name": {"choice": list(dict.fromkeys(backbones))}}
    base = {"backbone": {"options": {}, "pretrained": "auto"}}
    return parse_search({"sampler": "grid", "pruner": "none", "space": space, "base": base}, "--backbones")


def begin(deployment: Deployment, record: ProjectRecord, search: Search, *, by: str) -> Study:
    """On the newest snapshot. The watcher queues the trials, whatever becomes of this process."""
    store = deployment.within(record)
    latest = SnapshotStore(store).latest()
    if latest is None:
        raise NotEnoughLabelsError("nothing is labelled yet: a search needs labelled images")
    study = StudyStore(store).begin(search, snapshot=latest.snapshot, config=record.config, by=by)
    publish(deployment.queue.redis, NUDGE_CHANNEL, {"action": "tune", "project": record.key})
    return study


def find(deployment: Deployment, record: ProjectRecord, name: str | None) -> StudyResults:
    """The study whose name begins so; the newest where none is named. NotFoundError says which there are."""
    studies = StudyStore(deployment.within(record))
    names = [n for n in studies.names() if name is None or n.startswith(name)]
    if not names or (name is not None and len(names) > 1):
        listed = ", ".join(studies.names()) or "none; `labelloop tune run FILE` begins one"
        raise NotFoundError(f"no one study is called {name or 'anything'}; studies: {listed}")
    return StudyResults(studies.get(names[-1]), studies.trials(names[-1]))


def follow(
    deployment: Deployment, record: ProjectRecord, study: Study, report: Report, say: Callable[[str], None]
) -> StudyResults:
    """Report progress until every trial has ended. ``say``: a new best one."""
    announced: int | None = None
    while True:
        results = find(deployment, record, study.name)
        of = results.study.rules.count
        leader = results.best
        report("trials", of - results.left, of)
        for job in deployment.queue.jobs():
            if job.kind == TRIAL.name and job.project == record.key and job.status == "started":
                report(f"{job.stage or 'starting'} ({job.worker or 'worker'})", job.step, job.steps or 1)
        if leader and leader.number != announced:
            announced = leader.number
            say(f"best so far: trial {leader.number}, {leader.accuracy:.4f}  {params_text(leader.params)}")
        if not results.left:
            return results
        _require_workers(deployment)
        time.sleep(LOOK_S)


def _require_workers(deployment: Deployment) -> None:
    living = alive(deployment.queue.redis)
    if living and not any(n.startswith("sync:") for n in living):
        raise LabelloopError("no watcher is running, no trial will be queued: start sync (`python -m sync`)")


def apply(
    deployment: Deployment, record: ProjectRecord, results: StudyResults, number: int | None
) -> Mapping[str, Any]:
    """Make one trial's settings (the best one's) the project's; what has changed, by dotted name.

    What the search did not set stays as it is by now: a study may be weeks old.
    """
    trial = results.best if number is None else next((t for t in results.trials if t.number == number), None)
    if trial is None:
        raise NotFoundError(f"study {results.study.name} has no such complete trial; `labelloop tune show` lists them")
    newest = deployment.projects.get(record.key)
    kept = results.study.over(newest.config, trial.params)
    deployment.projects.put(replace(newest, config=kept))
    publish(deployment.queue.redis, NUDGE_CHANNEL, {"action": "config", "project": record.key})
    return differences(newest.config.model_dump(mode="json"), kept.model_dump(mode="json"))


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> new value."""
    changes: dict[str, Any] = {}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            changes |= differences(old, value, f"{prefix}{name}.")
        elif value != old:
            changes[f"{prefix}{name}"] = value
    return changes


def as_yaml(changes: Mapping[str, Any]) -> str:
    """The same as a piece of a project's config."""
    whole: dict[str, Any] = {}
    for name, value in changes.items():
        whole = _nested(whole, name.split("."), value)
    return yaml.safe_dump(whole, sort_keys=False)


def _nested(into: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**into, path[0]: value}
    return {**into, path[0]: _nested(into.get(path[0], {}), path[1:], value)}


def params_text(params: Mapping[str, Any]) -> str:
    """In one line, names cut to what distinguishes them."""
    return ", ".join(f"{name.split('.', 1)[1]} {_short(value)}" for name, value in params.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
