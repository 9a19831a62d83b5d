"""The stores, Redis and the services in, one frozen picture of the loop out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from labelloop.clock import now
from labelloop.config.networks import NO_WEIGHTS
from labelloop.config.project import ProjectConfig
from labelloop.errors import LabelloopError, NotFoundError
from labelloop.objects.damage import UNREADABLE
from labelloop.queue.failed import FailedJob, FailedJobs
from labelloop.queue.heartbeat import alive
from labelloop.queue.jobs import FEATURISE, RETRAIN, JobState
from labelloop.records.curve import KeptCurve
from labelloop.records.runs import Run
from labelloop.records.snapshots import Latest
from labelloop.records.tasks import Task
from labelloop.records.versions import LogEntry, Version
from labelloop.remedies import remedy_of
from labelloop.rules.approvals import waiting
from labelloop.rules.schema import LabelRules
from labelloop.rules.stop_advice import Outlook
from labelloop.rules.uncounted import Uncounted, grouped, uncounted
from labelloop.rules.value import unread_from
from labelloop.rules.value.words import headline
from labelloop.store.curve import KEY as CURVE
from labelloop.store.curve import kept_curve
from labelloop.store.pauses import Pause
from labelloop.store.projects import ProjectRecord
from labelloop.store.requests import RequestStore
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from labelloop.studio.client import task_link
from operations import deployment as place
from operations.damaged import prefix_of
from operations.people import people, who
from operations.words import made_live

LAST_RUNS = 6
NO_WATCHER = "no watcher checks this project: is sync running?"
ROLLING = 100  # labels over which acceptance is counted


@dataclass(frozen=True, slots=True)
class Service:
    """One process or server."""

    name: str
    ok: bool
    note: str


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How often the model's answer was the person's."""

    right: int = 0
    of: int = 0

    @property
    def share(self) -> float | None:
        """In [0, 1]; None before there is anything to count."""
        return self.right / self.of if self.of else None


@dataclass(frozen=True, slots=True)
class UnreadableObject:
    """One object of the state bucket that cannot be read, and what to do about it."""

    key: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ProjectStatus:
    """One project's loop."""

    key: str
    title: str
    url: str
    version: str | None = None
    deployed_at: str | None = None
    deployed_by: str = ""
    evidence: tuple[str, ...] = ()
    accuracy: float | None = None  # out of fold
    test_accuracy: float | None = None
    test_n: int = 0
    unread: int = 0  # annotations that do not count ...
    uncounted: tuple[Uncounted, ...] = ()  # ... and why
    empties: Mapping[str, Any] = field(default_factory=dict)  # empty answers that were taken back
    unreadable: tuple[Uncounted, ...] = ()  # tasks that cannot be read at all
    aside: Mapping[str, int] = field(default_factory=dict)  # why -> labels that do not count beside other images
    conflicts: tuple[str, ...] = ()  # duplicates of one image with contradicting labels, left out
    serving: Mapping[str, str] = field(default_factory=dict)  # backend process -> version it answers with
    refused: tuple[str, ...] = ()  # versions that a backend would not load, and why
    published: str | None = None  # version whose order Label Studio shows
    order: str | None = None  # what comes first in the queue, and why
    annotations: int = 0
    today: int = 0  # annotations since midnight, UTC
    labels: Mapping[str, int] = field(default_factory=dict)  # train split
    until_refresh: int | None = None
    until_retrain: int | None = None
    waiting: str | None = None
    watched: tuple[str, ...] = ()  # every trigger of a retrain, in words
    running: tuple[str, ...] = ()
    pool: Mapping[str, Any] = field(default_factory=dict)
    copies: Mapping[str, Any] = field(default_factory=dict)  # of images that are not in S3
    random_quota: Acceptance = Acceptance()
    chosen: Acceptance = Acceptance()
    runs: tuple[Run, ...] = ()
    network: str = ""  # that turns its images into features, and why this one
    poor_network: bool = False  # only because no weights could be had
    problem: str | None = None
    paused: Pause | None = None  # a person has frozen learning
    approvals: tuple[tuple[str, str, tuple[str, ...]], ...] = ()  # (version, kind, reasons) that wait for a person
    forecast: str | None = None  # what more labels would bring; None before the first version
    advice: str | None = None  # stop | go on | cannot tell ...
    advice_why: tuple[str, ...] = ()  # ... and why
    anchored: tuple[str, ...] = ()  # who may accept pre-labels unread, with the figures
    damaged: tuple[UnreadableObject, ...] = ()  # objects that cannot be read
    without: tuple[str, ...] = ()  # labelled images that nothing is learned from yet, and why
    without_count: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """The whole deployment at one moment."""

    at: str
    services: tuple[Service, ...]
    projects: tuple[ProjectStatus, ...]
    queue: Mapping[str, int]
    jobs: tuple[JobState, ...]
    dashboard: str | None
    damaged: tuple[UnreadableObject, ...] = ()  # records of projects

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the shares worked out."""
        data = asdict(self)
        for row, project in zip(data["projects"], self.projects, strict=True):
            row["random_quota"]["share"] = project.random_quota.share
            row["chosen"]["share"] = project.chosen.share
        return data


class StatusReader:
    """Reads the picture again and again; what is immutable is read once."""

    def __init__(self, deployment: place.Deployment, *, only: ProjectRecord | None = None) -> None:
        self._deployment, self._only = deployment, only
        self._stores: dict[str, _Stores] = {}

    def read(self) -> Status:
        """One picture. A server that is away is a row of it, never an error."""
        services: list[Service] = []
        living = _try(services, "redis", lambda: alive(self._deployment.queue.redis)) or {}
        queue = _try(services, "", self._deployment.queue.depths) or {}
        jobs = _try(services, "", self._deployment.queue.jobs) or []
        records = _try(services, "s3", self._deployment.projects.all) or []
        if self._only:
            records = [record for record in records if record.key == self._only.key]
        _try(services, "label studio", self._studio_version)
        services += _processes(living)
        failed = _try(services, "", lambda: FailedJobs(self._deployment.queue).all()) or []
        projects = tuple(self._project(r, living, failed) for r in records)
        unread = tuple(UnreadableObject(d.key, d.reason, d.remedy) for d in self._deployment.projects.damaged())
        dashboard = self._deployment.settings.dashboard_url
        return Status(now(), tuple(services), projects, queue, tuple(jobs), dashboard, unread)

    def _studio_version(self) -> str:
        return self._deployment.studio.version()

    def _project(
        self, record: ProjectRecord, living: Mapping[str, Mapping[str, Any]], failed: Sequence[FailedJob]
    ) -> ProjectStatus:
        stores = self._stores.setdefault(record.key, _Stores(self._deployment, record))
        stores.record = record  # its config may have been changed
        base = ProjectStatus(record.key, record.title, f"{self._deployment.settings.studio_link}/projects/{record.id}")
        try:
            project = stores.read(base, _sync_facts(record.key, living), _backends(record.key, living),
                                  _lost_rows(record.key, living))  # fmt: skip
            return replace(project, problem=project.problem or _without_features(record, project.pool, failed))
        except LabelloopError as error:
            return ProjectStatus(base.key, base.title, base.url, problem=str(error))


class _Stores:
    """One project's stores, kept between pictures."""

    def __init__(self, deployment: place.Deployment, record: ProjectRecord) -> None:
        store = deployment.within(record)
        self.record, self._deployment = record, deployment
        self._names: Mapping[int, str] = {}
        self.registry = deployment.registry(record)
        self.damage = damage = self.registry.damage
        self.runs, self.snapshots = RunStore(store, damage), SnapshotStore(store, damage)
        self._requests = RequestStore(store, damage)
        self._store = store
        self._outlook: tuple[KeptCurve, ProjectConfig, Outlook] | None = None  # of a curve that was read before

    def read(
        self, base: ProjectStatus, facts: Mapping[str, Any], backends: Mapping[str, Mapping[str, Any]],
        lost: Mapping[str, Any] | None = None,
    ) -> ProjectStatus:  # fmt: skip
        live = self.registry.live()
        version = self._version(live.version) if live else None
        latest, tasks = self._newest()
        plan = facts.get("plan") or {}
        evaluation = version.evaluation if version else None
        random, chosen = acceptance(tasks)
        outlook, other, waits = self._forecast(), self._other_backbone(), self._waiting(live)
        self._requests.open()
        paused, runs = self.registry.pauses.current(), tuple(self.runs.all()[-LAST_RUNS:])
        without = facts.get("without") or {}
        link = partial(task_link, self._deployment.settings.studio_link, self.record.id)
        lacking = uncounted(tasks.values(), self.record.schema, link)
        return ProjectStatus(
            base.key, base.title, base.url,
            version=live.version if live else None, deployed_at=live.at if live else None,
            deployed_by=_by(live) if live else "",
            evidence=version.verdict.reasons if version else (),
            accuracy=evaluation.accuracy if evaluation else None,
            test_accuracy=evaluation.test_accuracy if evaluation else None,
            test_n=evaluation.test_n if evaluation else 0,
            unread=sum(row.count for row in lacking), uncounted=lacking,
            unreadable=unreadable_of(facts, link), empties=facts.get("empties") or {},
            aside=plan.get("aside") or {}, conflicts=evaluation.conflicts if evaluation else (),
            serving={name: str(p.get("version") or "") for name, p in backends.items()},
            refused=tuple(f"{r['version']}: {r['reason']}" for p in backends.values() for r in p.get("refused", ())),
            published=facts.get("published"), order=facts.get("order"), annotations=latest.annotations if latest else 0,
            today=_since(tasks, now()[:10]), labels=plan.get("labels") or {}, until_refresh=plan.get("until_refresh"),
            until_retrain=plan.get("until_retrain"), waiting=plan.get("waiting"),
            watched=tuple(plan.get("watched") or ()),
            running=tuple(plan.get("running") or ()), pool=facts.get("pool") or {},
            copies=facts.get("copies") or {},
            random_quota=random, chosen=chosen, runs=runs,
            problem=facts.get("problem") or other or (None if facts else NO_WATCHER),
            network=_network(self.record), poor_network=self.record.network == NO_WEIGHTS,
            paused=paused,
            approvals=tuple((v.name, v.kind, v.verdict.reasons) for v in waits),
            forecast=outlook.sentence if outlook else None, advice=str(outlook.advice.act) if outlook else None,
            advice_why=outlook.advice.reasons if outlook else (),
            anchored=self._anchored(facts.get("unread") or ()),
            damaged=self._damaged(facts, lost or {}, *backends.values()),
            without=tuple(without.get("tasks", ())), without_count=int(without.get("count", 0)),
        )  # fmt: skip

    def _newest(self) -> tuple[Latest | None, Mapping[int, Task]]:
        """Nothing of a snapshot that cannot be read: the watcher writes it again."""
        try:
            latest = self.snapshots.latest()
            snapshot = self.snapshots.load(latest.snapshot) if latest else None
        except (*UNREADABLE, NotFoundError):
            return None, {}
        return latest, LabelRules.of(self.record.config).read(snapshot).tasks if snapshot else {}

    def _damaged(self, *processes: Mapping[str, Any]) -> tuple[UnreadableObject, ...]:
        """What we met ourselves and what the running processes did; those repaired since are left out."""
        prefix = prefix_of(self.record.key)
        reasons = {d.key: d.reason for d in self.damage.all()}
        for facts in processes:
            reasons = dict(facts.get("damaged") or ()) | reasons
        return tuple(UnreadableObject(prefix + key, reason, remedy_of(key)) for key, reason in sorted(reasons.items()))

    def _forecast(self) -> Outlook | None:
        """From the points that a worker has kept; worked out once for each of them."""
        try:
            kept, config = kept_curve(self._store), self.record.config
        except NotFoundError:
            return None
        except UNREADABLE as error:
            self.damage.note(CURVE, error)
            return None
        self.damage.resolved(CURVE)
        from operations.models.curve import outlook_of  # with SciPy, and there is no curve before the first model

        if self._outlook is None or self._outlook[:2] != (kept, config):
            self._outlook = (kept, config, outlook_of(kept, config))
        return self._outlook[2]

    def _anchored(self, warnings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """Names are asked for once, and only where there is somebody to name."""
        if warnings and not self._names:
            self._names = people(self._deployment)
        return tuple(headline(warning, who(warning.who, self._names)) for warning in map(unread_from, warnings))

    def _waiting(self, live: LogEntry | None) -> list[Version]:
        versions = waiting(
            self.registry.versions(), live=live.version if live else None, rejected=self.registry.rejected()
        )
        return [v for v in versions if v.verdict.awaits or v.kind == RETRAIN.name]

    def _other_backbone(self) -> str | None:
        """A config that names another network than the one whose features are kept."""
        try:
            initial, configured = self.registry.initial_backbone(), self.record.config.backbone.name
        except UNREADABLE:
            return None
        if initial is None or initial.name == configured:
            return None
        return f"the config names the backbone {configured}, but the project keeps {initial.name}, its first one"

    def _version(self, name: str) -> Version | None:
        try:
            return self.registry.version(name)
        except UNREADABLE:
            return None


def unreadable_of(facts: Mapping[str, Any], link: Callable[[int], str]) -> tuple[Uncounted, ...]:
    """Tasks that the watcher cannot read, by reason."""
    by_reason: dict[str, list[int]] = {}
    for number, why in facts.get("unreadable") or ():
        by_reason.setdefault(str(why), []).append(int(number))
    return grouped(by_reason, link)


def _network(record: ProjectRecord) -> str:
    name = record.config.backbone.name
    return f"{name}: {record.network}" if record.network else name


def _without_features(record: ProjectRecord, pool: Mapping[str, Any], failed: Sequence[FailedJob]) -> str | None:
    """Why images stay without features: the last job's error, which its config may have caused."""
    lacking = int(pool.get("images", 0)) - int(pool.get("featurised", 0)) - int(pool.get("unreadable", 0))
    jobs = [j for j in failed if j.kind == FEATURISE.name and j.project == record.key]
    if not jobs or lacking <= 0:
        return None
    again = f"labelloop init --config FILE --image-uri {record.image_uri}"
    advice = f"correct the project's YAML, then `{again}`" if "SettingsError" in jobs[0].why else jobs[0].advice
    return f"{lacking} images have no features: {jobs[0].why.splitlines()[0].partition(': ')[2]}. {advice}"


def _by(entry: LogEntry) -> str:
    """Who made it live; the gate's own reasons are shown as evidence."""
    return made_live(entry.action, entry.by, entry.why)


def acceptance(tasks: Mapping[int, Task]) -> tuple[Acceptance, Acceptance]:
    """(on the random quota, on chosen images), over the newest labels.

    Only the first is an estimate of how good the model is: the chosen ones are those it finds hardest.
    """
    random: list[bool] = []
    chosen: list[bool] = []
    answers = [a for t in tasks.values() for a in t.annotations if a.label is not None and not a.seed]
    for answer in sorted(answers, key=lambda a: a.created_at):
        prediction = answer.seen
        if prediction and prediction.label is not None and not prediction.chosen:  # chosen and blind: `labelloop value`
            (random if prediction.blind else chosen).append(prediction.label == answer.label)
    return _counted(random), _counted(chosen)


def _since(tasks: Mapping[int, Task], day: str) -> int:
    """Answers of people since a day began."""
    return sum(a.created_at >= day and not a.seed for t in tasks.values() for a in t.annotations)


def _counted(hits: list[bool]) -> Acceptance:
    last = hits[-ROLLING:]
    return Acceptance(sum(last), len(last))


def _processes(living: Mapping[str, Mapping[str, Any]]) -> list[Service]:
    services = [Service(name, True, _note(facts)) for name, facts in living.items()]
    for kind, what in (("sync:", "labels are not picked up"), ("worker:", "nothing is trained"),
                       ("backend:", "nothing is pre-labelled")):  # fmt: skip
        if not any(name.startswith(kind) for name in living):
            services.append(Service(kind.rstrip(":"), False, f"none is running: {what}"))
    return services


def _note(facts: Mapping[str, Any]) -> str:
    if queues := facts.get("queues"):
        return "works on " + ", ".join(queues)
    if "leads" in facts:
        return "watching" if facts["leads"] else "standing by"
    return "serving"


def _sync_facts(key: str, living: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    for name, facts in living.items():
        if name.startswith("sync:") and key in (facts.get("projects") or {}):
            return dict(facts["projects"][key])
    return {}


def _backends(key: str, living: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {
        name.removeprefix("backend:"): facts["projects"][key]
        for name, facts in living.items()
        if name.startswith("backend:") and key in (facts.get("projects") or {})
    }


def _lost_rows(key: str, living: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Rows of features that workers could not read, and that are not computed again yet."""
    workers = [facts.get("damaged") or {} for name, facts in living.items() if name.startswith("worker:")]
    return {"damaged": [row for damaged in workers for row in damaged.get(key, ())]}


def _try(services: list[Service], name: str, read: Any) -> Any:
    try:
        value = read()
    except LabelloopError as error:
        if name:
            services.append(Service(name, False, str(error)))
        return None
    if name:
        services.append(Service(name, True, str(value) if isinstance(value, str) else "answers"))
    return value
