"""The whole loop under an oracle annotator: what it learned, how fast, and whether anything was lost."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from labelloop.clock import now, parse, stamp
from labelloop.labels.results import LabelSchema
from labelloop.objects.storage import S3Store
from labelloop.records.runs import Run
from labelloop.records.versions import COLD_START
from labelloop.rules.split import fold_of
from labelloop.store.projects import ProjectRecord
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment
from operations.projects.checked import TITLE
from operations.projects.drain import drain
from operations.projects.imagefolder import LabelledFile, require_labels, scan, upload
from operations.projects.setup import ImageSource, open_source, set_up, wait_ready
from operations.reporting import Report
from operations.simulation.crew import Crew, recruit
from operations.simulation.judge import accuracy_per_version, accuracy_through_predict
from operations.simulation.oracle import Oracle, Rates, Submitted
from operations.status import acceptance

HOLDOUT = 0.2  # without a test folder: this share of the images never enters the project
RUN_APPEARS_S = 4.0  # a complete batch starts a run within this long, or the loop waits for something else
RUN_ENDS_S = 60.0
LOOK_S = 0.05
PREDICT_BATCH = 50


@dataclass(frozen=True, slots=True)
class Job:
    """What to simulate."""

    labels: int
    rates: Rates
    seed: int = 0
    keep: bool = False  # go on watching the project afterwards
    people: int = 1  # who label at once, each under an account of their own
    target: float | None = None  # test accuracy: how many labels does it take?


class LiveObserver:
    """Asks the backend twenty times a second which version it answers with."""

    def __init__(self, deployment: Deployment, record: ProjectRecord) -> None:
        settings = deployment.settings
        self._client = httpx.Client(
            base_url=settings.backend_url, auth=(settings.backend_user, settings.backend_password or ""), timeout=5
        )
        self._body = {"project": record.reference, "schema": record.label_config, "hostname": settings.studio_url}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self.live_at: dict[str, str] = {}

    def __enter__(self) -> LiveObserver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        self._client.close()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                version = self._client.post("/setup", json=self._body).json().get("model_version")
            except (httpx.HTTPError, ValueError):
                continue
            if version and version != COLD_START:
                self.live_at.setdefault(str(version), now())


def simulate(
    deployment: Deployment, source: ImageSource, test: Sequence[LabelledFile], job: Job, report: Report
) -> dict[str, Any]:
    """Label ``job.labels`` images, drain, measure. Returns the JSON object that the command prints last."""
    record, _ = set_up(deployment, source, report)
    wait_ready(deployment, record, report)
    bucket = deployment.settings.image_buckets[0]
    truth = {f"s3://{bucket}/{key}": label for key, label in require_labels(source.files, "simulate").items()}
    crew = Crew([
        Oracle(studio, record.id, record.schema, truth, job.rates, job.seed + 1000 * i)
        for i, studio in enumerate(recruit(deployment, job.people))
    ])  # fmt: skip
    with LiveObserver(deployment, record) as observer:
        _label(deployment, record, crew, job.labels, report)
        crew.settle()
        _wait_idle(deployment, record)
    snapshot, _ = drain(deployment, record)
    upload(S3Store(deployment.s3, bucket), test, f"{source.prefix.rstrip('/')}-test/", lambda _: None)
    figures = {
        "labels": len(crew.submitted), "people": job.people, "labelled_twice": crew.twice,
        **_loop_figures(deployment, record, crew.submitted, observer.live_at),
        **_test_figures(deployment, record, test, report),
        **_exactness(deployment, record, snapshot),
    }  # fmt: skip
    by_version = labels_by_version(crew.submitted, observer.live_at)
    figures["labels_by_version"] = by_version
    if job.target is not None:
        figures["labels_to_target"] = labels_to(figures["test_accuracy_per_version"], by_version, job.target)
    if not job.keep:
        deployment.projects.remove(record.key)
    return figures


def prepare(  # noqa: PLR0913 -- what a run is made of
    home: Path, *, images: Path | None, test: Path | None, config: Path | None, reveal: int | None, seed: int,
    truth: Path | None = None,
) -> tuple[ImageSource, list[LabelledFile]]:  # fmt: skip
    """A project of its own for this run, and the images it is judged on. Every image needs its class."""
    source = open_source(home, images, config, reveal, labels=truth)
    require_labels(source.files, "simulate")
    mark = f"-{stamp()[4:13]}-{seed}"
    name = source.config.name[: TITLE[1] - len(mark)] + mark
    named = source.config.model_copy(update={"name": name, "seed": seed})
    files = [replace(f, key=f"{name}/{f.key.removeprefix(source.prefix)}") for f in source.files]
    source = replace(source, config=named, files=files, prefix=f"{name}/")
    if test is None:
        return hold_out(source, seed)
    held_out = scan(test, f"{name}-test/")
    require_labels(held_out, "simulate")
    return source, held_out


def hold_out(source: ImageSource, seed: int) -> tuple[ImageSource, list[LabelledFile]]:
    """A fifth of the images, by hash, as a test set of their own; never part of the project."""
    parts = round(1 / HOLDOUT)
    test = [f for f in source.files if fold_of(f"{seed}:{f.key}", parts) == 0]
    kept = [f for f in source.files if fold_of(f"{seed}:{f.key}", parts) != 0]
    prefix = f"{source.prefix.rstrip('/')}-test/"
    renamed = [replace(f, key=prefix + f.key.removeprefix(source.prefix)) for f in test]
    return replace(source, files=kept), renamed


def _label(deployment: Deployment, record: ProjectRecord, crew: Crew, labels: int, report: Report) -> None:
    """Submit; after each complete batch give the loop the seconds that a person would take."""
    runs = RunStore(deployment.within(record))
    since, patience = 0, RUN_APPEARS_S
    before = len(_refreshes(runs))
    while (done := len(crew.submitted)) < labels:
        submitted = crew.step(labels - done)
        report("label", len(crew.submitted), labels)
        if not submitted:
            if crew.is_done:
                return
            continue
        since += len(submitted)
        if since < record.config.refresh.after:
            continue
        if _await_run(runs, before, patience):
            _await_published(deployment, record)
            before, since, patience = len(_refreshes(runs)), 0, RUN_APPEARS_S
        else:  # it waits for more labels of some class: go on, and look again after each
            patience = 0.3


def _await_run(runs: RunStore, before: int, patience_s: float) -> bool:
    """True once a further refresh has ended; False where none appears."""
    began = time.monotonic()
    while time.monotonic() - began < RUN_ENDS_S:
        refreshes = _refreshes(runs)
        if len(refreshes) > before and refreshes[-1].outcome != "running":
            return True
        if len(refreshes) == before and time.monotonic() - began > patience_s:
            return False
        time.sleep(LOOK_S)
    return False


def _await_published(deployment: Deployment, record: ProjectRecord) -> None:
    live = deployment.registry(record).live()
    _until(lambda: live is None or deployment.studio.project(record.id).model_version == live.version, 10)


def _wait_idle(deployment: Deployment, record: ProjectRecord) -> None:
    """The last labels may complete a batch: let its run end."""
    runs = RunStore(deployment.within(record))
    time.sleep(2)
    _until(lambda: not any(r.outcome == "running" for r in runs.all()), RUN_ENDS_S)


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            return False
        time.sleep(LOOK_S)
    return True


def _refreshes(runs: RunStore) -> list[Run]:
    return [r for r in runs.all() if r.kind == "refresh"]


def _loop_figures(
    deployment: Deployment, record: ProjectRecord, submitted: Sequence[Submitted], live_at: dict[str, str]
) -> dict[str, Any]:
    store = deployment.within(record)
    runs = [r for r in _refreshes(RunStore(store)) if r.queued_at]
    queued, live = [], []
    for run in runs:
        before = [s.at for s in submitted if run.queued_at and s.at <= run.queued_at]
        if not before:
            continue  # of the seeds
        queued.append(_seconds(max(before), run.queued_at or ""))
        if run.version in live_at:
            live.append(_seconds(max(before), live_at[run.version]))
    latest = SnapshotStore(store).latest()
    tasks = SnapshotStore(store).load(latest.snapshot).tasks if latest else {}
    random, _ = acceptance(tasks)
    return {
        "versions": len({d.version for d in deployment.registry(record).deployments()}),
        "runs": {o: sum(r.outcome == o for r in runs) for o in sorted({r.outcome for r in runs})},
        "accepted_per_50": _accepted(submitted),
        "accepted_random_quota": _round(random.share),
        "random_quota_labels": random.of,
        "submit_to_queued_p95_s": _quantile(queued, 95),
        "submit_to_live_p50_s": _quantile(live, 50),
        "submit_to_live_p95_s": _quantile(live, 95),
    }


def labels_by_version(submitted: Sequence[Submitted], live_at: Mapping[str, str]) -> dict[str, int]:
    """Version -> labels that had been given when it began to answer."""
    return {version: sum(s.at <= at for s in submitted) for version, at in live_at.items()}


def labels_to(accuracy: Mapping[str, float], labels: Mapping[str, int], target: float) -> int | None:
    """Labels at which a version first was as good as ``target``; None: none was."""
    enough = [labels[version] for version, value in accuracy.items() if value >= target and version in labels]
    return min(enough, default=None)


def _accepted(submitted: Sequence[Submitted]) -> list[float | None]:
    """Per 50 labels: the share of shown pre-labels that were right. Low is no bad sign: the hardest come first."""
    shares = []
    for start in range(0, len(submitted), 50):
        shown = [s for s in submitted[start : start + 50] if s.seen and s.seen.label is not None]
        right = sum(s.seen is not None and s.seen.label == s.label for s in shown)
        shares.append(_round(right / len(shown)) if shown else None)
    return shares


def _test_figures(
    deployment: Deployment, record: ProjectRecord, test: Sequence[LabelledFile], report: Report
) -> dict[str, Any]:
    """Last version through /predict, as Label Studio would ask; earlier ones by their heads on the same features."""
    last = accuracy_through_predict(deployment, record, test, report)
    return {
        "test_images": len(test),
        "test_accuracy": _round(last),
        "test_accuracy_per_version": accuracy_per_version(deployment, record, test, report),
    }


def _exactness(deployment: Deployment, record: ProjectRecord, snapshot: str) -> dict[str, Any]:
    """Label Studio's own export against the drained snapshot, annotation by annotation."""
    exported = {
        (row["id"], a["id"]): (a["was_cancelled"], _label_of(a, record.schema), a["updated_at"])
        for row in deployment.studio.export(record.id)
        for a in row["annotations"]
    }
    tasks = SnapshotStore(deployment.within(record)).load(snapshot).tasks
    kept = {(t.id, a.id): (a.cancelled, a.label, a.updated_at) for t in tasks.values() for a in t.annotations}
    wrong = sum(kept.get(key) != value for key, value in exported.items())
    return {
        "annotations_in_label_studio": len(exported),
        "annotations_in_snapshot": len(kept),
        "lost": wrong + sum(key not in exported for key in kept),
    }


def _label_of(annotation: dict[str, Any], schema: LabelSchema) -> str | None:
    return None if annotation["was_cancelled"] else schema.read(annotation["result"])[0]


def _seconds(begin: str, end: str) -> float:
    return (parse(end) - parse(begin)).total_seconds()


def _quantile(values: Sequence[float], percent: int) -> float | None:
    if not values:
        return None
    if len(values) == 1:
        return _round(values[0])
    return _round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1])


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
