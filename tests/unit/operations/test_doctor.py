"""Each rule of `labelloop doctor`: what is fine, what is not, and that a remedy comes with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labelloop.clock import now
from labelloop.code import code_version
from labelloop.config.project import ProjectConfig
from labelloop.config.settings import load_settings
from labelloop.errors import SettingsError, StorageError
from labelloop.labels.results import make_label_config
from labelloop.objects.damage import Damaged
from labelloop.objects.storage import MemoryStore
from labelloop.queue.jobs import JobState
from labelloop.records.api_keys import ApiKey, Scope
from labelloop.records.runs import Run
from labelloop.store.projects import ProjectRecord
from labelloop.store.requests import Request
from labelloop.studio.client import StudioProject
from labelloop.studio.wiring import ConnectedBackend, SourceStorage, Webhook
from operations.doctor import (
    answers,
    backend,
    clocks,
    disk,
    models,
    order,
    processes,
    project,
    queue,
    settings,
    storage,
    studio,
)
from operations.doctor.checks import DoctorCheck, look_at, runnable
from operations.doctor.finding import Finding, Level, fine, warn, wrong
from tests.unit.worlds.backend import World

URL = "http://backend:9090"
RECORD = ProjectRecord("main", 7, 1700000000, "cats", ProjectConfig(), make_label_config(["a", "b"]), "s3://images/c/")
STUDIO = StudioProject(7, "cats", 1700000000, RECORD.label_config, "v3", "Uncertainty sampling", 1)
BACKEND = ConnectedBackend(1, URL, "labelloop", connected=True, error="", authenticates=True)
HOOK = Webhook(1, f"{URL}/webhook", 7, active=True, payload=True, all_events=True)
SOURCE = SourceStorage(1, "images", "c", "http://s3:8333", presigned=False, status="completed", trouble="")


def run(kind: str, outcome: str, snapshot: str = "s") -> Run:
    return Run(f"{now()}-{kind}", kind, snapshot, RECORD.config.hash, 1, now(), "w", outcome=outcome, reasons=("bad",))


def job(status: str, queued_at: str, kind: str = "refresh") -> JobState:
    return JobState(f"{kind}_x", kind, RECORD.key, status, queued_at=queued_at)


def expect(finding: Finding, level: Level, *words: str) -> None:
    """The level, the words, and a remedy exactly where one is needed."""
    assert finding.level is level, finding
    assert bool(finding.remedy) is (level is not Level.OK), finding
    for word in words:
        assert word in f"{finding.found} → {finding.remedy}"


# --- how checks are run


def test_one_that_hangs_and_one_that_breaks_hold_up_nobody() -> None:
    gate = threading.Event()

    def hang() -> Finding:
        gate.wait(30)
        return fine("hangs", "never seen")

    def breaks() -> Finding:
        raise ZeroDivisionError("oops")

    def refuses() -> Finding:
        raise StorageError("s3 is away")

    checks = [
        DoctorCheck("a", "hangs", hang, limit_s=0.2), DoctorCheck("a", "breaks", breaks),
        DoctorCheck("a", "refuses", refuses), DoctorCheck("a", "well", lambda: [fine("x", "1"), fine("y", "2")]),
    ]  # fmt: skip
    steps: list[tuple[int, int]] = []
    began = time.monotonic()
    findings = look_at(checks, lambda done, of: steps.append((done, of)))
    gate.set()
    assert time.monotonic() - began < 5
    hung, broken, refused = (findings[c][0] for c in checks[:3])
    expect(hung, Level.WRONG, "no answer within")
    expect(broken, Level.WRONG, "ZeroDivisionError")
    expect(refused, Level.WRONG, "s3 is away")
    assert [f.what for f in findings[checks[3]]] == ["x", "y"]
    assert steps[-1] == (4, 4)


def test_what_needs_a_server_that_is_away_is_left_out_and_said_so() -> None:
    def check(name: str, *needs: str) -> DoctorCheck:
        return DoctorCheck("a", name, lambda: fine(name, ""), needs)

    kept, findings = runnable([check("free"), check("one", "Redis"), check("two", "Redis", "S3")], ["Redis"])
    assert [c.what for c in kept] == ["free"]
    expect(findings[0], Level.WARN, "2 checks", "Redis")
    assert "S3" not in findings[0].found
    assert runnable([check("one", "Redis")], [])[1] == []


def test_a_finding_tells_itself_in_one_line() -> None:
    assert fine("a", "b").note == "b"
    assert warn("a", "b", "c").ok
    assert not wrong("a", "b", "c").ok
    assert wrong("a", "b", "c").note == "b: c"


# --- settings


def of(**variables: str) -> Any:
    return load_settings({f"LABELLOOP_{name}": value for name, value in variables.items()})


@pytest.mark.parametrize(
    ("finding", "level", "word"),
    [
        (settings.names({"LABELLOOP_S3_ENDPOIN": "x"}), Level.WARN, "did you mean LABELLOOP_S3_ENDPOINT"),
        (settings.names({"LABELLOOP_S3_ENDPOINT": "x", "LABELLOOP_REDIS_URL_FILE": "f"}), Level.OK, "2 set"),
        (settings.overruled({"LABELLOOP_S3_SECRET_KEY": "x"}, {"LABELLOOP_S3_SECRET_KEY": "y"}), Level.WRONG,
         "LABELLOOP_S3_SECRET_KEY is set in this shell"),
        (settings.overruled({"LABELLOOP_S3_SECRET_KEY_FILE": "x"}, {"LABELLOOP_S3_SECRET_KEY": "y"}), Level.WRONG,
         "LABELLOOP_S3_SECRET_KEY is set"),
        (settings.overruled({"LABELLOOP_S3_SECRET_KEY": "y", "LABELLOOP_LOG": "text"},
                            {"LABELLOOP_S3_SECRET_KEY": "y"}), Level.OK, "nothing"),
        (settings.doubles({"LABELLOOP_REDIS_URL": "x", "LABELLOOP_REDIS_URL_FILE": "f"}), Level.WARN, "file counts"),
        (settings.doubles({"LABELLOOP_REDIS_URL": "x"}), Level.OK, "twice"),
        (settings.log_form({"LABELLOOP_LOG": "jsno"}), Level.WARN, "taken as text"),
        (settings.log_form({}), Level.OK, "json"),
        (settings.backend_password(of()), Level.WARN, "everybody"),
        (settings.backend_password(of(BACKEND_PASSWORD="new\nold")), Level.WARN, "former"),
        (settings.backend_password(of(BACKEND_PASSWORD="new")), Level.OK, "set"),
        (settings.redis_password(of(REDIS_URL="redis://queue:6379/0")), Level.WARN, "queue"),
        (settings.redis_password(of(REDIS_URL="redis://127.0.0.1:6379/0")), Level.OK, "loopback"),
        (settings.redis_password(of(REDIS_URL="redis://:p@queue:6379/0")), Level.OK, "set"),
        (settings.buckets(of(STATE_BUCKET="b", IMAGE_BUCKETS="a,b")), Level.WARN, "b is the state bucket"),
        (settings.buckets(of()), Level.OK, "state in labelloop"),
        (settings.addresses(of(STUDIO_URL="http://ls:8080", BACKEND_URL="http://localhost:9")), Level.WRONG,
         "LABELLOOP_BACKEND_URL is a loopback"),
        (settings.addresses(of(STUDIO_URL="http://localhost:8080")), Level.OK, "this machine"),
        (settings.addresses(of(STUDIO_URL="http://ls:8080", BACKEND_URL="http://b:9")), Level.OK, "same"),
    ],
)  # fmt: skip
def test_settings(finding: Finding, level: Level, word: str) -> None:
    expect(finding, level, word)


def test_half_a_key_pair_is_refused_and_a_misspelt_half_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELLOOP_S3_SECRET_KE", "k")
    with pytest.raises(SettingsError, match="LABELLOOP_S3_SECRET_KEY is missing") as caught:
        of(S3_ACCESS_KEY="k")
    refused, misspelt = settings.unreadable(caught.value)
    expect(refused, Level.WRONG, "both, or neither")
    expect(misspelt, Level.WARN, "did you mean LABELLOOP_S3_SECRET_KEY?")


# --- Label Studio and its projects


@pytest.mark.parametrize(
    ("finding", "level", "word"),
    [
        (studio.release("1.23.2", "http://ls"), Level.OK, "1.23.2"),
        (studio.release("1.22.0", "http://ls"), Level.WARN, "tried with"),
        (studio.import_speed(True), Level.OK, "without recounting"),
        (studio.import_speed(False), Level.WARN, "fflag_fix_back_4620"),
        (studio.import_speed(None), Level.OK, "not known"),
        (project.version_fits("v3", "v3", [BACKEND]), Level.OK, "v3"),
        (project.version_fits("v2", "v3", [BACKEND]), Level.WRONG, "goes by v2, champion is v3"),
        (project.version_fits(None, "v3", [BACKEND]), Level.WRONG, "random"),
        (project.version_fits("labelloop", "v3", [BACKEND]), Level.WRONG, "title"),
        (project.sampling(STUDIO), Level.OK, "lowest"),
        (project.sampling(replace(STUDIO, sampling="Sequential sampling")), Level.WRONG, "Sequential"),
        (project.trains(STUDIO), Level.OK, "off"),
        (project.trains(replace(STUDIO, trains_on_submit=True)), Level.WRONG, "every submit waits"),
        (project.predicts(STUDIO), Level.OK, "only where none"),
        (project.predicts(replace(STUDIO, predicts_by_itself=True)), Level.WARN, "evaluate_predictions"),
        (project.shows(STUDIO), Level.OK, "shown"),
        (project.shows(replace(STUDIO, shows_predictions=False)), Level.WRONG, "not shown"),
        (project.overlap(replace(STUDIO, maximum_annotations=3)), Level.OK, "3 annotations"),
        (answers.empty_answers(replace(STUDIO, label_config=make_label_config(["cat", "dog"]))), Level.OK, "asks for"),
        (
            answers.empty_answers(
                replace(STUDIO, label_config=make_label_config(["cat", "dog"]).replace('required="true"', ""))
            ),
            Level.WARN,
            'required="true"',
        ),
        (project.webhooks([HOOK], URL), Level.OK, "one, to"),
        (project.webhooks([], URL), Level.WARN, "polling"),
        (project.webhooks([replace(HOOK, active=False)], URL), Level.WARN, "not active"),
        (project.webhooks([HOOK, replace(HOOK, id=2)], URL), Level.WRONG, "2 of ours"),
        (project.webhooks([HOOK, replace(HOOK, url="http://x/y", project=None)], URL), Level.WARN, "http://x/y"),
        (project.webhooks([HOOK, replace(HOOK, url="http://x/y", active=False)], URL), Level.OK, "one"),
        (project.webhooks([replace(HOOK, payload=False)], URL), Level.WARN, "no payload"),
        (project.bucket(RECORD, ["images"]), Level.OK, "s3://images/c/"),
        (project.bucket(RECORD, ["others"]), Level.WRONG, "LABELLOOP_IMAGE_BUCKETS"),
    ],
)
def test_label_studio(finding: Finding, level: Level, word: str) -> None:
    expect(finding, level, word)


def test_an_order_that_nobody_follows_is_seen_by_what_was_answered() -> None:
    inside = [order.PlacedAnswer(i % 10, i % 10) for i in range(30)]
    random = [order.PlacedAnswer(i % 10, 40 + i) for i in range(30)]
    expect(order.followed(inside), Level.OK, "30 of the last 30")
    expect(order.followed(random), Level.WARN, "projects_projectmember")
    expect(order.followed(random[:5]), Level.OK, "too few")


# --- S3, Redis, backend


class Careless(MemoryStore):
    """A server that ignores If-None-Match."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        super().put(key, data)


class Forgetful(MemoryStore):
    """A server that does not delete."""

    def delete(self, key: str) -> None:
        """Do nothing."""


def test_the_state_bucket_is_probed_and_left_as_it_was() -> None:
    store = MemoryStore()
    expect(storage.probe(store), Level.OK)
    expect(storage.conditional(store), Level.OK)
    assert list(store.list("")) == []
    expect(storage.conditional(Careless()), Level.WRONG, "If-None-Match is ignored")
    expect(storage.probe(Forgetful()), Level.WRONG, "still there")


@pytest.mark.parametrize(
    ("finding", "level", "word"),
    [
        (storage.source(SOURCE, RECORD), Level.OK, "completed"),
        (storage.source(None, RECORD), Level.WRONG, "no source storage"),
        (storage.source(replace(SOURCE, status="failed", trouble="no bucket"), RECORD), Level.WRONG, "no bucket"),
        (storage.tried("", "http://s3"), Level.OK, "http://s3"),
        (storage.tried("URL resolves to a reserved network address", "http://s3"), Level.WRONG, "USE_DEFAULT_BANNED"),
        (storage.tried("Wrong credentials", "http://s3"), Level.WRONG, "Wrong credentials"),
        (storage.in_browser(SOURCE), Level.OK, "streamed"),
        (storage.in_browser(replace(SOURCE, presigned=True)), Level.WARN, "pre-signed"),
        (storage.in_browser(replace(SOURCE, presigned=True, endpoint="http://127.0.0.1:9")), Level.WARN, "pre-signed"),
        (storage.in_browser(replace(SOURCE, presigned=True, endpoint="https://s3.example.org")), Level.OK, "s3.ex"),
        (storage.in_browser(replace(SOURCE, presigned=True, endpoint=None)), Level.OK, "AWS"),
        (queue.release({"valkey_version": "8.1.0", "redis_version": "7.2.4"}), Level.OK, "Valkey 8.1.0"),
        (queue.release({"redis_version": "5.0.7"}), Level.WRONG, "too old"),
        (queue.eviction({"maxmemory_policy": "allkeys-lru"}), Level.WRONG, "noeviction"),
        (queue.eviction({"maxmemory_policy": "noeviction"}), Level.OK, "noeviction"),
        (queue.append_only({"aof_enabled": 0}), Level.WARN, "appendonly yes"),
        (queue.append_only({"aof_enabled": 1}), Level.OK, "on"),
        (queue.waiting([job("queued", now())]), Level.OK, "none for long"),
        (queue.waiting([job("queued", "2020-01-01T00:00:00.000000Z")]), Level.WRONG, "retrain_worker refresh"),
        (queue.failed([job("failed", now())]), Level.WARN, "1 in the last hour"),
        (queue.failed([]), Level.OK, "none"),
        (backend.health(backend.TimedReply(200, 0.01, ""), URL), Level.OK, "10 ms"),
        (backend.health(backend.TimedReply(200, 1.4, ""), URL), Level.WRONG, "1.4 s"),
        (backend.health(backend.TimedReply(0, 0.1, "refused"), URL), Level.WRONG, "refused"),
        (backend.health(backend.TimedReply(404, 0.1, ""), URL), Level.WRONG, "404"),
        (backend.password(backend.TimedReply(401, 0.1, "")), Level.WRONG, "labelloop rotate"),
        (backend.password(backend.TimedReply(200, 0.1, "")), Level.OK, "accepted"),
        (backend.password(backend.TimedReply(500, 0.1, "boom")), Level.WARN, "boom"),
        (backend.setup(backend.TimedReply(200, 4.0, "")), Level.WRONG, "4.0 s"),
        (backend.setup(backend.TimedReply(404, 0.1, "unknown project")), Level.WRONG, "unknown project"),
        (backend.setup(backend.TimedReply(200, 0.1, "")), Level.OK, "100 ms"),
        (backend.as_connected([BACKEND], URL, blocked=False), Level.OK, URL),
        (backend.as_connected([], URL, blocked=False), Level.WRONG, "none"),
        (backend.as_connected([replace(BACKEND, url="http://x")], URL, blocked=False), Level.WRONG, "http://x instead"),
        (backend.as_connected([replace(BACKEND, connected=False)], URL, blocked=True), Level.WRONG, "USE_DEFAULT"),
        (backend.as_connected([replace(BACKEND, connected=False)], URL, blocked=False), Level.WRONG, "within a second"),
        (backend.as_connected([replace(BACKEND, connected=False, error="401 Client Error")], URL, blocked=False),
         Level.WRONG, "labelloop rotate"),
        (backend.as_connected([BACKEND, replace(BACKEND, id=2, url="http://x")], URL, blocked=False), Level.WARN,
         "http://x"),
        (backend.images(None), Level.OK, "no task"),
        (backend.images(backend.TimedReply(200, 0.1, "")), Level.OK, "100 ms"),
        (backend.images(backend.TimedReply(503, 0.1, "storage")), Level.WRONG, "S3"),
        (backend.images(backend.TimedReply(503, 0.1, "the model is still being loaded")), Level.WARN, "wait"),
    ],
)  # fmt: skip
def test_servers(finding: Finding, level: Level, word: str) -> None:
    expect(finding, level, word)


# --- our own processes


def living(**changes: Any) -> dict[str, dict[str, Any]]:
    code = {"code": code_version()}
    beats: dict[str, dict[str, Any]] = {
        "sync:a:1": {"leads": True, "server": "main", "studio": "http://127.0.0.1:8080", **code},
        "worker:a-2": {"queues": ["refresh", "score"], **code},
        "backend:a:3": {"projects": {RECORD.key: {"version": "v3"}}, **code},
    }
    return {**beats, **{name.replace("__", ":"): facts for name, facts in changes.items()}}


HOME = load_settings({})
KEY = ApiKey("0123456789ab", "camera", "0" * 64, (Scope.READ,), "anna", "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("look", "level", "word"),
    [
        (lambda: processes.watcher(living()), Level.OK, "sync:a:1 leads"),
        (lambda: processes.watcher(living(sync__b={"leads": False})), Level.OK, "1 stand by"),
        (lambda: processes.watcher(living(sync__b={"leads": True})), Level.WRONG, "2 lead at once"),
        (lambda: processes.watcher({}), Level.WRONG, "python -m sync"),
        (lambda: processes.watcher({"sync:a": {"leads": False}}), Level.WARN, "none leads"),
        (lambda: processes.whose(living(), HOME), Level.OK, "main"),
        (lambda: processes.whose(living(sync__b={"server": "x", "studio": "http://y"}), HOME), Level.WRONG, "http://y"),
        (lambda: processes.worker(living(), "refresh"), Level.OK, "1 running"),
        (lambda: processes.worker(living(), "train"), Level.WRONG, "python -m retrain_worker train"),
        (lambda: processes.backend(living()), Level.OK, "heartbeat OK"),
        (lambda: processes.backend({}), Level.WARN, "heartbeat"),
        (lambda: processes.api({"api:a:1": {}}, [KEY], []), Level.OK, "1 valid"),
        (lambda: processes.api(living(), [], []), Level.OK, "nobody has a key"),
        (lambda: processes.api(living(), [replace(KEY, revoked="2026-01-01T00:00:00Z")], []), Level.OK, "nobody"),
        (lambda: processes.api(living(), [KEY], []), Level.WRONG, "1 keys were given out"),
        (lambda: processes.api(living(), [], [Damaged("keys/x.json", "cut off")]), Level.WARN, "keys remove"),
        (lambda: processes.code(living()), Level.OK, code_version()),
        (lambda: processes.code(living(worker__old={"code": "0.0.9+x"})), Level.WARN, "worker:old"),
        (lambda: processes.code({"sync:a": {"code": "0.0.9+x"}}), Level.WARN, "this command"),
        (lambda: processes.servers({"main-1-2": "main"}, HOME), Level.OK, "none"),
        (lambda: processes.servers({"main-1-2": "main", "old-1-2": "old"}, HOME), Level.WARN, "'old'"),
        (lambda: processes.watched({}), Level.WRONG, "no watcher"),
        (lambda: processes.watched({"problem": "S3 is away"}), Level.WRONG, "S3 is away"),
        (lambda: processes.watched({"plan": {"waiting": "needs labels"}}), Level.OK, "needs labels"),
        (lambda: processes.serving(living(), RECORD.key, "v3"), Level.OK, "v3, in 1 process"),
        (lambda: processes.serving(living(), RECORD.key, "v4"), Level.WRONG, "serves v3; champion is v4"),
        (lambda: processes.serving({}, RECORD.key, "v4"), Level.OK, "first request"),
        (lambda: processes.serving({"backend:a": {"projects": {RECORD.key: {"version": None}}}}, RECORD.key, "v4"),
         Level.WARN, "still loading"),
    ],
)  # fmt: skip
def test_processes(look: Callable[[], Finding], level: Level, word: str) -> None:
    expect(look(), level, word)


# --- what was learned, clocks, disks

LATER = "2999-01-01T00:00:00.000000Z"
POOL = {"images": 100, "featurised": 90, "unreadable": 0}


@pytest.mark.parametrize(
    ("finding", "level", "word"),
    [
        (models.runs([], "s"), Level.OK, "none yet"),
        (models.runs([run("refresh", "promote")], "s"), Level.OK, "refresh promote"),
        (models.runs([run("refresh", "failed")] * 3, "s"), Level.WRONG, "on hold: bad"),
        (models.runs([run("refresh", "failed")] * 3, "newer"), Level.WARN, "last refresh failed"),
        (
            models.runs([run("refresh", "failed")] * 3, "s", [Request("r", "retry", "me", LATER, "refresh")]),
            Level.WARN,
            "last refresh failed",
        ),
        (models.features(POOL, POOL, []), Level.WARN, "10 of 100"),
        (models.features(POOL, POOL, [job("started", now(), "featurise")]), Level.OK, "to go"),
        (models.features({**POOL, "featurised": 80}, POOL, []), Level.OK, "to go"),
        (models.features(POOL, {**POOL, "featurised": 100}, []), Level.OK, "all with features"),
        (models.features(POOL, {**POOL, "unreadable": 10}, []), Level.WARN, "cannot be read"),
        (clocks.offset("S3", 1.2), Level.OK, "agrees"),
        (clocks.offset("S3", None), Level.OK, "not known"),
        (clocks.offset("S3", -7), Level.WARN, "7 s behind"),
        (clocks.offset("S3", 90), Level.WRONG, "90 s ahead"),
        (disk.room("cache", Path("/x"), 10**8), Level.WRONG, "0.1 GB"),
        (disk.room("cache", Path("/x"), 2 * 10**9), Level.WARN, "2.0 GB"),
        (disk.room("cache", Path("/x"), 10**11), Level.OK, "100.0 GB"),
    ],
)
def test_the_rest(finding: Finding, level: Level, word: str) -> None:
    expect(finding, level, word)


def test_room_is_found_for_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert "GB free" in disk.look("cache", tmp_path / "not" / "yet").found


@pytest.fixture
def world() -> World:
    world = World()
    world.deploy(world.add(world.backbone(), answer=1))
    return world


def test_an_intact_champion_and_its_backbone_are_told(world: World) -> None:
    expect(models.champion(world.registry), Level.OK, "v1 is intact")
    expect(models.backbone(world.registry), Level.OK, "is intact")
    assert models.champion(World().registry).level is Level.OK, "no model yet is no fault"
    assert models.backbone(World().registry).level is Level.OK


def test_a_damaged_champion_or_backbone_is_found(world: World) -> None:
    version = world.registry.version("v1")
    world.corrupt(version.head_key)
    expect(models.champion(world.registry), Level.WRONG, "v1 is damaged", "rollback")
    world.corrupt(f"backbones/{version.backbone}/weights.safetensors")
    expect(models.backbone(world.registry), Level.WRONG, "damaged or gone")
