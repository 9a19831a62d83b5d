"""Two projects with every kind of object there is; backend, watcher and worker in one process, on one store.

Label Studio is the fake of the tests, the queue runs its jobs when it is told to; all else is what runs in life.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import operations.status
from labelloop.config.project import ProjectConfig, parse_config
from labelloop.config.settings import load_settings
from labelloop.errors import NotEnoughLabelsError
from labelloop.labels.results import make_label_config
from labelloop.objects.storage import MemoryStore
from labelloop.records.json import canonical
from labelloop.records.runs import TRANSIENT, WITHOUT
from labelloop.store.configs import keep_config
from labelloop.store.pauses import PauseStore
from labelloop.store.projects import ProjectRecord, ProjectStore, project_store
from labelloop.store.registry import Draft, Registry
from labelloop.store.requests import RequestStore
from labelloop.upkeep.tidying import Tidier
from ml_backend.backend import Backend
from ml_backend.live import LiveModels, Pace
from ml_backend.metrics import Metrics
from ml_backend.predict import Predictor
from ml_backend.projects import Directory
from operations.damaged import DamagedObject, damaged_artefacts, damaged_objects, damaged_records
from operations.deployment import Deployment
from operations.status import Status, StatusReader
from retrain_worker.context import Context, ProjectContext
from retrain_worker.evidence.curve import follow, follow_quietly
from retrain_worker.featurise import featurise
from retrain_worker.jobs import TRANSIENT_ERRORS
from retrain_worker.refresh import refresh
from retrain_worker.score import score
from sync.project import Deps
from sync.watcher import Watcher
from tests.fakes.studio import FakeStudio
from tests.unit.worlds.backend import World
from tests.unit.worlds.learning import Images, digits, no_redis

HERE = Path(__file__).parents[1] / "formats"
EXOTIC = ("study", "trial", "lr_curve", "auto_labels", "mirror", "task_groups")  # as a past release has written them
CLASSES = ("0", "1")
CONFIG = {
    "backbone": {"name": "pixels", "options": {"projection": 8}}, "buckets": {"test": 0.3, "audit": 0.05},
    "refresh": {"after": 10, "throttle_s": 0.0}, "retrain": {"automatic": False},
    "head": {"pool": False},
}  # fmt: skip
VICTIM, OTHER = 1, 2
RETRY_S = 0.2  # in life a minute
IMAGES, LABELLED = 70, 36


def _numbers(data: bytes) -> bytes:
    """Every text a number, and the other way round."""
    try:
        parsed = json.loads(data)
    except ValueError:
        return b"7"
    return canonical(_swapped(parsed))


def _swapped(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: v if k == "format" else _swapped(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_swapped(v) for v in value]
    return 7 if isinstance(value, str) else "x" if isinstance(value, int | float) else value


DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: bytes(b ^ 0xA5 for b in data) or b"\xff",
    "{}": lambda _: b"{}",
    "[1]": lambda _: b"[1]",
    "truncated": lambda data: data[: len(data) // 2],
}
HOSTILE: Mapping[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "deep": lambda _: b"[" * 100_000,
    "numbers": _numbers,
    "null": lambda _: b"null",
    "50 MB": lambda _: b" " * 50_000_000,
    "huge number": lambda _: b'{"number": 1' + b"0" * 5000 + b"}",
}


@contextmanager
def lease(_name: str) -> Iterator[int]:
    yield 1


class Studios:
    """Label Studio with two projects: the first argument of every call says which."""

    def __init__(self, studios: Mapping[int, FakeStudio], config: str) -> None:
        self.of, self._config = studios, config

    def project(self, number: int) -> Any:
        return replace(self.of[number].project(number), label_config=self._config)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda number, *args, **options: getattr(self.of[number], name)(number, *args, **options)


@dataclass
class Queue:
    """Jobs wait until `Loop.work` runs them."""

    redis: Any = None
    jobs: dict[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)

    def enqueue(self, kind: Any, job: str, payload: Mapping[str, Any], **_: Any) -> bool:
        waits = job in self.jobs
        self.jobs.setdefault(job, (kind.name, payload))
        return not waits

    def active(self, kind: Any, project: str) -> list[str]:
        return [j for j, (name, payload) in self.jobs.items() if (name, payload["project"]) == (kind.name, project)]

    def reap(self) -> list[str]:
        return []

    def depths(self) -> dict[str, int]:
        return {}


class Here(Deployment):
    """What the commands see."""

    def registry(self, record: ProjectRecord) -> Registry:
        return Registry(self.within(record), lease)

    @property
    def studio(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(version=lambda: "fake", people=dict)


def here(world: World) -> Here:
    """The commands over a store with models alone."""
    nothing: Any = SimpleNamespace()
    return Here(nothing, nothing, world.store, nothing, ProjectStore(world.store, "main"))


class Loop:
    """All processes, as they are after a start."""

    def __init__(self, store: MemoryStore, base: Base, folder: Path) -> None:
        self.store, self.base, self.queue = store, base, Queue()
        self.errors: list[str] = []
        self._lost_rows: Mapping[str, Any] = {}  # all that a worker has told
        self.projects = ProjectStore(store, "main")
        studio: Any = base.studios
        queue: Any = self.queue
        deps = Deps(studio, store, ProjectStore(store, "main"), queue, lambda _uri: lambda: iter(()))
        heart: Any = SimpleNamespace(facts={})
        held: Any = SimpleNamespace(hold=lambda: True)
        self.watcher = Watcher(deps, heartbeat=heart, lease=held)
        self._heart = heart
        self.worker = Context(load_settings({}), no_redis(), store, base.images)
        self.folder = folder
        metrics = Metrics()
        directory = Directory(ProjectStore(store, "main"))
        live = LiveModels(store, directory.all, metrics, pace=Pace(0.02, RETRY_S))
        self.backend = Backend(directory, live, Predictor(base.images, metrics), metrics)
        self.backend.start()

    def close(self) -> None:
        self.backend.stop()

    # --- the services

    def watch(self) -> None:
        """One round, in which everything is due."""
        self.watcher._listed_at = self.watcher._healed_at = float("-inf")
        for item in self.watcher._watched.values():
            item.watch._due.clear()
            item.due = item.rests_until = item.backoff.until = 0.0
            item.watch.planner._tried.clear()
        self.watcher._round([{}])

    def work(self, numbers: Collection[int] = (VICTIM, OTHER)) -> None:
        """All jobs of these projects that wait."""
        keys = {self.base.records[n].key for n in numbers}
        while job := next((j for j, (_, p) in self.queue.jobs.items() if p["project"] in keys), None):
            kind, payload = self.queue.jobs[job]
            try:
                self._run(kind, payload)
            except Exception as error:  # as a worker does: a failed job, never a dead process
                self.errors.append(f"{kind}: {type(error).__name__}: {error}")
            self._lost_rows = self.worker.lost_rows() or self._lost_rows
            del self.queue.jobs[job]

    def settle(self, rounds: int = 4, numbers: Collection[int] = (VICTIM, OTHER)) -> None:
        """Until little moves."""
        for _ in range(rounds):
            self.watch()
            self.work(numbers)

    def waits(self, number: int) -> list[str]:
        """Kinds of the jobs that wait for a project."""
        key = self.base.records[number].key
        return [kind for kind, payload in self.queue.jobs.values() if payload["project"] == key]

    def project(self, key: str) -> ProjectContext:
        is_known = key in self.worker._contexts
        project = self.worker.project(key)
        if not is_known:
            project.registry = Registry(project.store, lease)
            project.cache = self.folder / key
            project.recompute = lambda uris: self._again(key, sorted(uris))
        return project

    def _again(self, key: str, uris: list[str]) -> None:
        self.queue.jobs[f"again_{key}"] = ("featurise", {"project": key, "uris": uris})

    def _run(self, kind: str, payload: Mapping[str, Any]) -> None:
        project = self.project(payload["project"])
        match kind:
            case "featurise":
                featurise(self.worker, project, payload["uris"])
            case "score":
                score(self.worker, project, payload["version"])
                follow_quietly(project)
            case "refresh":
                self._refresh(project, payload)
            case "tidy":
                Tidier(project.store, project.registry, project.runs, project.record.config.retention).tidy()

    def _refresh(self, project: ProjectContext, payload: Mapping[str, Any]) -> None:
        """As `retrain_worker.jobs` does it, without Redis."""
        run = project.runs.start("refresh", snapshot=payload["snapshot"], config=project.record.config.hash,
                                 attempt=payload["attempt"], worker="w", answers=payload["answers"])  # fmt: skip
        try:
            keep_config(project.store, project.record.config)
            project.registry.pauses.check()
            judged = refresh(self.worker, project, payload["snapshot"])
        except NotEnoughLabelsError as error:
            project.runs.end(run, "hold", (str(error),))
        except Exception as error:
            detail = {TRANSIENT: True} if isinstance(error, TRANSIENT_ERRORS) else {}
            project.runs.end(run, "failed", (str(error),), detail=detail)
            raise
        else:
            without = {WITHOUT: list(judged.without)} if judged.without else {}
            project.runs.end(run, judged.verdict.outcome.value, judged.verdict.reasons, version=judged.version,
                             detail=without)  # fmt: skip

    # --- what people see

    def predict(self, number: int) -> list[dict[str, Any]]:
        record = self.base.records[number]
        uri = self.base.uris[number][0]
        return self.backend.predict(record.reference, "", [{"id": 1, "data": {"image": uri}}])

    def ready(self, limit_s: float = 20.0) -> bool:
        until = time.monotonic() + limit_s
        while self.backend.not_ready() and time.monotonic() < until:
            time.sleep(0.01)
        return not self.backend.not_ready()

    def deployment(self) -> Here:
        s3: Any = None
        queue: Any = SimpleNamespace(redis=no_redis(), depths=dict, jobs=list)
        settings = load_settings({"LABELLOOP_STUDIO_URL": "http://127.0.0.1:1"})
        return Here(settings, s3, self.store, queue, ProjectStore(self.store, "main"))

    def status(self) -> Status:
        """With the heartbeats of this very moment."""
        beats = {"sync:x": dict(self._heart.facts), "backend:x": {"projects": self.backend.live.facts()},
                 "worker:x": {"damaged": self._lost_rows}}  # fmt: skip
        before, operations.status.alive = operations.status.alive, lambda _redis: beats
        try:
            return StatusReader(self.deployment()).read()
        finally:
            operations.status.alive = before

    def told(self) -> set[str]:
        """Keys that `status` names."""
        status = self.status()
        return {d.key for d in (*status.damaged, *(d for p in status.projects for d in p.damaged))}

    def diagnosed(self) -> set[str]:
        """Keys that `doctor` names."""
        here = self.deployment()
        damaged = [*damaged_records(here), *(d for r in here.projects.all() for d in _all_damaged(here, r))]
        return {d.key for d in damaged}

    def runs(self, number: int) -> int:
        """Runs that came to a verdict."""
        store = project_store(self.store, self.base.records[number].key)
        from labelloop.store.runs import RunStore

        return sum(run.done for run in RunStore(store).all())


@dataclass
class Base:
    """What the bucket holds before anything is damaged, and Label Studio beside it."""

    objects: dict[str, bytes]
    records: dict[int, ProjectRecord]
    uris: dict[int, list[str]]
    truth: dict[str, str]
    images: Images
    studios: Studios

    def label(self, number: int, count: int) -> None:
        """So many more answers."""
        studio = self.studios.of[number]
        open_tasks = [t for t in studio._tasks.values() if t.label is None]
        for task in open_tasks[:count]:
            studio.annotate(task.id, self.truth[task.uri])

    def kinds(self) -> dict[str, str]:
        """Kind -> the key (in the bucket) of the one that matters most."""
        key = self.records[VICTIM].key
        newest: dict[str, str] = {}
        for name in sorted(self.objects):
            inner = name.removeprefix(f"projects/{key}/")
            if inner != name and fault_known(inner):
                newest[_kind(inner)] = name
        return {"project record": f"index/{key}.json", **newest}


def fault_known(key: str) -> bool:
    """Whether an object is of a kind that is looked after."""
    return not key.startswith("mirror/") or key.startswith("mirror/index/")


def _kind(key: str) -> str:  # noqa: PLR0911 -- one line for each shape of a key
    """The part of a key that all of its kind share."""
    parts = key.split("/")
    if parts[0] == "copies":
        return "copy of " + _kind(key.removeprefix("copies/").removesuffix(".gz"))
    if len(parts) == 1:
        return key
    if parts[0] == "features":
        return f"features/{parts[2]}"
    if parts[0] == "studies":
        return "study" if key.endswith("study.json") else "trial"
    if parts[0] in {"models", "snapshots"} or parts[:2] == ["mirror", "index"]:
        return key if key.endswith("latest.json") else "/".join(parts[:2])
    if parts[0] in {"backbones", "reports", "checkpoints"}:
        return f"{parts[0]}/{parts[-1] if parts[0] != 'reports' else '*.' + key.rpartition('.')[2]}"
    return parts[0]


def build(folder: Path) -> Base:
    """Set up both projects and let them learn twice."""
    truth: dict[str, str] = {}
    images = Images()
    records, uris, studios = {}, {}, {}
    label_config = make_label_config(CLASSES)
    chosen = [(data, label) for data, label in digits() if label in CLASSES]
    for place, number in enumerate((VICTIM, OTHER)):
        records[number] = ProjectRecord(
            "main", number, 0, f"p{number}", config_of(place), label_config, f"s3://images/p{number}/"
        )
        uris[number] = []
        studios[number] = FakeStudio(records[number].schema)
        for i, (data, label) in enumerate(chosen[place * IMAGES : (place + 1) * IMAGES]):
            uri = f"s3://images/p{number}/{i:04d}.png"
            images.kept[uri], truth[uri] = data, label
            uris[number].append(uri)
            studios[number].add_task(uri)
    base = Base({}, records, uris, truth, images, Studios(studios, label_config))
    store = MemoryStore()
    for record in records.values():
        ProjectStore(store, "main").put(record)
    loop = Loop(store, base, folder)
    try:
        for number in (VICTIM, OTHER):
            base.label(number, LABELLED)
        loop.settle(8)
        for number in (VICTIM, OTHER):
            _past(loop, number)
    finally:
        loop.close()
    base.objects = dict(_all(store))
    return base


def config_of(place: int) -> ProjectConfig:
    """Networks of their own: a process that serves both must not have one's weights by the other's."""
    return parse_config({**CONFIG, "backbone": {"name": "pixels", "options": {"projection": 8 + place}}}, "test")


def _past(loop: Loop, number: int) -> None:
    """A second version, and one of everything that a loop does not make by itself."""
    project = loop.project(loop.base.records[number].key)
    live = project.registry.live()
    assert live is not None, loop.errors
    v1 = project.registry.version(live.version)
    project.registry.deploy_new(Draft(
        kind="refresh", backbone=v1.backbone, head=project.registry.head(v1), snapshot=v1.snapshot, config=v1.config,
        code="1", parent=v1.name, reference=None, recipe=v1.recipe, evaluation=v1.evaluation, verdict=v1.verdict,
        check_features=project.features(v1.backbone).rows(list(project.features(v1.backbone).index.places)[:4]),
    ), by="test", why="")  # fmt: skip
    score(loop.worker, project, "v2")
    follow(project)
    project.store.put("deleted.json", canonical([]))
    project.store.put("set-up.json", canonical({"images": IMAGES, "seeds": 0}))
    project.store.put("reports/v2.json", canonical({"challenger": {"name": "v2"}}))
    project.store.put("reports/v2.html", b"<html><body>v2</body></html>")
    project.store.put("checkpoints/abc/note.json", canonical({"epoch": 1}))
    Tidier(project.store, project.registry, project.runs, project.record.config.retention).tidy()
    for name in EXOTIC:
        file = json.loads((HERE / f"{name}.json").read_text())
        data = canonical(file["data"]) if "data" in file else b"\n".join(map(canonical, file["lines"]))
        project.store.put(file["key"], data)


def _all(store: MemoryStore) -> Iterator[tuple[str, bytes]]:
    for info in list(store.list("")):
        yield info.key, store.get(info.key)


@contextmanager
def loop_of(base: Base, folder: Path) -> Iterator[tuple[MemoryStore, Callable[[], Loop]]]:
    """A copy of the bucket, and how to start a loop on it; Label Studio is put back afterwards."""
    store = MemoryStore()
    for key, data in base.objects.items():
        store.put(key, data)
    kept = {n: (dict(s._tasks), list(s._moves), s._ids, dict(s._predictions), s.model_version)
            for n, s in base.studios.of.items()}  # fmt: skip
    started: list[Loop] = []

    def start() -> Loop:
        started.append(Loop(store, base, folder / f"cache-{len(started)}"))
        return started[-1]

    try:
        yield store, start
    finally:
        for loop in started:
            loop.close()
        for n, s in base.studios.of.items():
            s._tasks, s._moves, s._ids, s._predictions, s.model_version = kept[n]


def _all_damaged(here: Deployment, record: ProjectRecord) -> Iterator[DamagedObject]:
    yield from damaged_objects(here, record)
    yield from damaged_artefacts(here, record)[0]


def ask(store: MemoryStore, number: int, base: Base) -> None:
    """A wish that is open, for the kind that has none otherwise."""
    RequestStore(project_store(store, base.records[number].key)).add("retrain", by="anna")


def pause(store: MemoryStore, number: int, base: Base) -> None:
    """Learning is paused."""
    PauseStore(project_store(store, base.records[number].key)).pause(by="anna")
