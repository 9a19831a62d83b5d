"""What Label Studio may send and what it must get, over the fake store and reader."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bench.faults.hostile import NASTY, changed
from bench.faults.hostile import task as hostile_task
from labelloop.clock import stamp
from labelloop.config.project import parse_config
from labelloop.config.settings import load_settings
from labelloop.images.mirror import Mirror, MirroredImage
from labelloop.labels.results import make_label_config
from labelloop.records.images import ImageFacts, Split
from labelloop.records.json import digest
from labelloop.rules.split import group_of, shown_blind, split_of
from labelloop.store.catalogue import Catalogue
from ml_backend import large as large_module
from ml_backend import projects as projects_module
from ml_backend.app import MAX_HINT, make_app
from ml_backend.auth import AccessGate
from ml_backend.backend import Backend
from ml_backend.places import PLACES
from tests.hostile.worst import saved
from tests.unit.worlds.backend import CLASSES, PREFIX, FakeReader, World, make_backend, picture

PASSWORD = "letmein"
SETTINGS = load_settings({"LABELLOOP_BACKEND_PASSWORD": PASSWORD})
AUTH = {"Authorization": "Basic " + base64.b64encode(f"labelloop:{PASSWORD}".encode()).decode()}
CONFIG = World().record.config
CHOSEN = [s for s in range(60) if split_of(group_of(picture(s)), CONFIG.buckets.shares()) is Split.TRAIN]
HIDDEN = [s for s in CHOSEN if shown_blind(group_of(picture(s)), CONFIG.queue.blind)]  # by chance
TRAIN = [s for s in CHOSEN if s not in HIDDEN]
BLIND = [s for s in range(60) if s not in CHOSEN]


class Stage:
    """A world, its backend and a client that knows the password."""

    def __init__(self) -> None:
        self.world, self.reader = World(), FakeReader()
        self.backend: Backend = make_backend(self.world, self.reader)
        self.app: Flask = make_app(self.backend, AccessGate(SETTINGS))
        self.client: FlaskClient = self.app.test_client()

    def images(self, *seeds: int, prefix: str = PREFIX) -> list[dict[str, Any]]:
        for seed in seeds:
            self.reader.images[f"{prefix}{seed}.png"] = picture(seed)
        return [{"id": seed, "data": {"image": f"{prefix}{seed}.png"}} for seed in seeds]

    def post(self, path: str, body: Any) -> TestResponse:
        return self.client.post(path, json=body, headers=AUTH)

    def predict(self, tasks: list[dict[str, Any]], config: str = "") -> list[dict[str, Any]]:
        body = {"tasks": tasks, "project": self.world.record.reference, "label_config": config}
        answer = self.post("/predict", body)
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.get_json()["results"]
        assert len(results) == len(tasks)
        return results

    def serves(self, version: str) -> None:
        """Wait until it does."""
        project, end = self.backend.live.get(self.world.record), time.monotonic() + 10
        while project.model is None or project.model.name != version:
            assert time.monotonic() < end, f"{version} is not served"
            time.sleep(0.005)

    def setup(self, project: str | None = None, schema: str | None = None) -> TestResponse:
        body = {"project": project or self.world.record.reference, "schema": schema or make_label_config(CLASSES)}
        return self.post("/setup", {**body, "hostname": "http://x", "access_token": "t", "extra_params": None})


@pytest.fixture
def stage() -> Iterator[Stage]:
    ready = Stage()
    ready.backend.start()
    yield ready
    ready.backend.stop()


@pytest.fixture
def live(stage: Stage) -> Stage:
    """With a first version that answers `dog`."""
    stage.world.deploy(stage.world.add(stage.world.backbone(), answer=1))
    project = stage.backend.live.get(stage.world.record)
    while project.model is None:
        time.sleep(0.005)
    return stage


# --- predictions


def test_predictions_are_in_order_and_complete(live: Stage) -> None:
    tasks = live.images(*TRAIN[:40])
    for result in live.predict(tasks):
        assert result["model_version"] == "v1"
        (item,) = result["result"]
        assert item["value"] == {"choices": ["dog"]}
        assert (item["from_name"], item["to_name"], item["type"]) == ("label", "image", "choices")
        assert 0.5 < result["score"] <= 1
        assert abs(item["score"] - result["score"]) < 1e-3


def test_no_tasks_give_no_results(live: Stage) -> None:
    assert live.predict([]) == []


def test_before_the_first_model_there_is_an_answer_without_a_label(stage: Stage) -> None:
    (result,) = stage.predict(stage.images(TRAIN[0]))
    assert result == {"result": [], "score": 1.0, "model_version": "cold-start"}
    assert stage.setup().get_json() == {"model_version": "cold-start"}


def test_the_control_is_found_by_its_tags(live: Stage) -> None:
    config = (
        '<View><Image name="photo" value="$image"/><Choices name="animal" toName="photo">'
        '<Choice value="cat"/><Choice value="d" alias="dog"/></Choices></View>'
    )
    (result,) = live.predict(live.images(TRAIN[0]), config)
    assert result["result"][0]["from_name"] == "animal"
    assert result["result"][0]["to_name"] == "photo"
    assert result["result"][0]["value"] == {"choices": ["dog"]}


def test_classes_that_the_label_config_lost_are_not_answered(live: Stage) -> None:
    (result,) = live.predict(live.images(TRAIN[0]), make_label_config(["cat", "fox", "new"]))
    assert (result["result"], result["score"]) == ([], 1.0)  # it says dog: nothing is better than the second best
    (result,) = live.predict(live.images(TRAIN[0]), make_label_config(["x", "y"]))
    assert (result["result"], result["model_version"]) == ([], "v1")


def test_an_image_that_is_likelier_of_a_class_without_a_label_gets_no_pre_label(live: Stage) -> None:
    """The named class has exp(3) / (exp(3) + 2) = .909 among those with a label."""
    backbone = live.world.backbone()
    for unseen, shown in ((0.3, True), (0.45, True), (0.5, False), (0.9, False)):
        version = live.world.add(backbone, answer=0, unseen=unseen)
        live.world.deploy(version)
        live.serves(version.name)
        result = live.predict(live.images(TRAIN[0]))[0]
        assert bool(result["result"]) is shown
        assert result["score"] == pytest.approx(0.909 * (1 - unseen) if shown else 1.0, abs=1e-3)


def test_images_that_cannot_be_read_do_not_harm_the_others(live: Stage) -> None:
    good = live.images(*TRAIN[:2])
    live.reader.images[f"{PREFIX}text.png"] = b"no image"
    bad = [
        {"id": 90, "data": {"image": f"{PREFIX}missing.png"}},
        {"id": 91, "data": {"image": f"{PREFIX}text.png"}},
        {"id": 92, "data": {"image": "http://169.254.169.254/latest"}},
        {"id": 93, "data": {"image": "s3://secrets/a.png"}},
        {"id": 94, "data": {}},
        {"id": 95},
        {"id": 96, "data": {"image": 5}},
    ]
    results = live.predict([good[0], *bad, good[1]])
    assert [bool(r["result"]) for r in results] == [True, *[False] * len(bad), True]
    assert all(r["model_version"] == "v1" and 0 <= r["score"] <= 1 for r in results)
    text = live.client.get("/metrics", headers=AUTH).text
    assert 'labelloop_backend_unreadable_images_total{reason="undecodable"} ' in text
    assert 'labelloop_backend_unreadable_images_total{reason="missing"} 3.0' in text


def test_any_json_in_any_place_of_a_task_costs_that_task_alone(live: Stage) -> None:
    chance = random.Random(3)
    (good,) = live.images(TRAIN[0])
    odd = [changed(hostile_task(chance, i + 1), chance) for i in range(120)]
    odd += [{"id": value, "data": {"image": value}} for value in NASTY]
    tasks = [row for row in odd if isinstance(row, dict)]
    results = live.predict([*json.loads(json.dumps(tasks)), good])
    assert results[-1]["result"]
    assert not any(r["result"] for r in results[:-1])


@pytest.mark.parametrize(
    ("switch", "word"),
    [('perRegion="true"', "perRegion"), ('allowNested="true"', "paths"), ('value="$o"', "each task")],
)
def test_a_config_that_cannot_be_served_is_refused_where_label_studio_shows_it(
    live: Stage, switch: str, word: str
) -> None:
    config = make_label_config(CLASSES).replace("<Choices ", f"<Choices {switch} ")
    answer = live.setup(schema=config)
    assert answer.status_code == 400
    assert word in answer.status  # the reason phrase is all that Label Studio shows
    assert word in answer.get_json()["error"]
    body = {"tasks": live.images(TRAIN[0]), "project": live.world.record.reference, "label_config": config}
    assert live.post("/predict", body).status_code == 400
    assert live.predict(live.images(TRAIN[0]))[0]["result"]  # by the config before


@pytest.mark.parametrize("action", [None, 1, ["x"], {"a": 1}, "x" * 10_000, "\ud800"])
def test_a_webhook_with_any_action_is_taken(live: Stage, action: object) -> None:
    for project in (1, "x", None, [1], {"id": {}}, 10**400, "\ud800"):
        answer = live.client.post("/webhook", data=json.dumps({"action": action, "project": project}))
        assert answer.status_code == 202


def large(live: Stage, *names: str) -> list[dict[str, Any]]:
    """Images that only a helper process may decode; outside of the project's prefix none is blind."""
    data = saved("RGB", (2500, 2500), "PNG")
    live.reader.images.update({f"s3://images/large/{name}.png": data for name in names})
    return [{"id": name, "data": {"image": f"s3://images/large/{name}.png"}} for name in names]


def test_large_images_are_answered_among_small_ones_in_order(live: Stage) -> None:
    small, big = live.images(*TRAIN[:40]), large(live, "a", "b")
    results = live.predict([big[0], *small, big[1]])
    assert all(r["result"] for r in results)


@contextmanager
def busy_with_large(live: Stage, calls: int) -> Iterator[None]:
    """So many other calls are in the middle of a large image, or wait for one."""
    with ExitStack() as stack:
        for number in range(calls):
            call = stack.enter_context(live.backend.predictor._large.call())
            if number < large_module.IMAGES:
                stack.enter_context(call.turn())
            else:
                call.admit()
        yield


@pytest.mark.parametrize("others", [large_module.IMAGES, large_module.CALLS])
def test_large_images_that_find_no_room_cost_themselves_alone(
    live: Stage, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    monkeypatch.setattr(large_module, "CALL_S", 0.2)
    small, big = live.images(*TRAIN[:3]), large(live, "a", "b")
    with busy_with_large(live, others):
        results = live.predict([big[0], *small, big[1]])
    assert [bool(r["result"]) for r in results] == [False, True, True, True, False]
    assert results[0] == {"result": [], "score": 1.0, "model_version": "v1"}
    text = live.client.get("/metrics", headers=AUTH).text
    assert 'labelloop_backend_unreadable_images_total{reason="busy"} 2.0' in text
    assert all(r["result"] for r in live.predict([big[0], *small, big[1]])), "they have their turn afterwards"


def test_calls_wait_for_large_images_in_some_of_a_projects_places_alone(
    live: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_module, "CALL_S", 60.0)
    assert large_module.CALLS < PLACES
    big = large(live, "a")
    with busy_with_large(live, large_module.CALLS):
        begun = time.monotonic()
        assert not live.predict(big)[0]["result"]
        assert time.monotonic() - begun < 5


def test_storage_that_is_away_for_all_is_said_so_that_label_studio_asks_again(live: Stage) -> None:
    tasks = live.images(*TRAIN[:3])
    assert all(r["result"] for r in live.predict(tasks))
    live.reader.away = True
    answer = live.post("/predict", {"tasks": tasks, "project": live.world.record.reference, "label_config": ""})
    assert answer.status_code == 503
    assert "object storage" in answer.get_json()["error"]


def test_more_requests_than_places_are_told_to_come_back(live: Stage) -> None:
    body = {"tasks": [], "project": live.world.record.reference}
    with ExitStack() as others:
        for _ in range(PLACES):
            others.enter_context(live.backend.places.place(live.world.record.reference))
        answer = live.post("/predict", body)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert live.client.get("/health").status_code == 200
    assert [live.post("/predict", body).status_code for _ in range(3)] == [200, 200, 200]


# --- blind images


def test_an_image_in_test_or_audit_is_answered_with_nothing(live: Stage) -> None:
    results = live.predict(live.images(TRAIN[0], *BLIND[:3]))
    assert [bool(r["result"]) for r in results] == [True, False, False, False]
    assert all(r["model_version"] == "v1" for r in results)


def test_the_recorded_bucket_outranks_the_computed_one(live: Stage) -> None:
    tasks = live.images(TRAIN[0], BLIND[0])
    facts = [
        ImageFacts(t["data"]["image"], "e", digest(b"1"), "g", bucket)
        for t, bucket in zip(tasks, (Split.AUDIT, Split.TRAIN), strict=True)
    ]
    Catalogue(live.world.own).add(facts, stamp())
    assert [bool(r["result"]) for r in live.predict(tasks)] == [False, True]


def test_a_share_of_the_train_images_is_answered_with_nothing_too(live: Stage) -> None:
    tasks = live.images(HIDDEN[0], TRAIN[0])
    assert [bool(r["result"]) for r in live.predict(tasks)] == [False, True]


def test_a_near_duplicate_is_blind_where_its_group_is(live: Stage) -> None:
    tasks = live.images(HIDDEN[0], TRAIN[0])
    groups = (group_of(picture(TRAIN[0])), group_of(picture(HIDDEN[0])))
    facts = [
        ImageFacts(t["data"]["image"], "e", digest(b"1"), g, Split.TRAIN) for t, g in zip(tasks, groups, strict=True)
    ]
    Catalogue(live.world.own).add(facts, stamp())
    assert [bool(r["result"]) for r in live.predict(tasks)] == [True, False]


def test_another_blind_share_counts_as_soon_as_the_config_says_so(live: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = live.images(HIDDEN[0], TRAIN[0], BLIND[0])
    assert [bool(r["result"]) for r in live.predict(tasks)] == [False, True, False]
    monkeypatch.setattr(projects_module, "KEEP_S", 0.0)
    for share, answered in ((0.0, [True, True, False]), (1.0, [False, False, False])):
        config = parse_config({"queue": {"blind": share}}, "the test")
        live.world.projects.put(replace(live.world.record, config=config))
        assert [bool(r["result"]) for r in live.predict(tasks)] == answered


def test_images_outside_the_prefix_are_never_blind(live: Stage) -> None:
    assert all(r["result"] for r in live.predict(live.images(*BLIND[:3], *HIDDEN[:1], prefix="s3://images/elsewhere/")))


# --- set-up


def test_setup_names_the_live_version(live: Stage) -> None:
    assert live.setup().get_json() == {"model_version": "v1"}


def test_an_unknown_project_is_told_what_to_do_where_label_studio_shows_it(live: Stage) -> None:
    answer = live.setup(project="99.1700000000")
    assert answer.status_code == 404
    assert "labelloop init" in answer.status  # Label Studio drops the body and shows the reason phrase
    assert "labelloop init" in answer.get_json()["error"]


@pytest.mark.parametrize("project", ["", "7", "7.1", "../../x", "7.1700000000\n", "７.1700000000"])
def test_only_the_exact_reference_is_a_project(live: Stage, project: str) -> None:
    assert live.post("/setup", {"project": project, "schema": ""}).status_code == 404


@pytest.mark.parametrize(
    "schema",
    [
        make_label_config(CLASSES).replace('choice="single"', 'choice="multiple"'),
        '<View><Text name="t" value="$t"/><Choices name="c" toName="t"><Choice value="a"/></Choices></View>',
        "<View",
        '<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>',
    ],
)
def test_a_label_config_that_cannot_be_served_is_refused_with_the_reason(live: Stage, schema: str) -> None:
    answer = live.setup(schema=schema)
    assert answer.status_code == 400
    assert "label config" in answer.get_json()["error"] or "<Choices" in answer.get_json()["error"]
    assert "\n" not in answer.status


# --- wrong requests


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"5", b"null", b'{"tasks": 5}', b'{"tasks": [1]}', b'{"tasks": {}}', b"\xff\xfe",
     b'{"tasks": [], "project": {}}', b'{"tasks": [], "project": [], "label_config": 1}', b"[" * 100_000],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/predict", "/setup"])
def test_wrong_shapes_are_a_clear_400(live: Stage, path: str, body: bytes) -> None:
    answer = live.client.post(path, data=body, headers={**AUTH, "Content-Type": "application/json"})
    assert answer.status_code in {400, 404}
    assert answer.get_json()["error"]
    assert "Traceback" not in answer.text


def test_paths_and_methods_that_are_not_there_answer_in_json(live: Stage) -> None:
    assert live.client.get("/nothing", headers=AUTH).get_json()["error"]
    assert live.client.get("/predict", headers=AUTH).status_code == 405


def test_a_body_that_is_too_large_is_refused(live: Stage) -> None:
    live.app.config["MAX_CONTENT_LENGTH"] = 1000
    answer = live.client.post("/predict", data=b"x" * 1001, headers=AUTH)
    assert answer.status_code == 413


def test_an_unexpected_error_is_a_json_500_without_a_stack(live: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("internal detail")

    monkeypatch.setattr(live.backend.predictor, "predict", broken)
    answer = live.post("/predict", {"tasks": [], "project": live.world.record.reference})
    assert answer.status_code == 500
    assert "internal detail" not in answer.text


# --- who may ask


@pytest.mark.parametrize("path", ["/predict", "/setup", "/versions", "/metrics", "/nothing"])
@pytest.mark.parametrize(
    "credentials", ["", "labelloop:wrong", "wrong:letmein", "labelloop:", ":letmein", "ünder:letmein"]
)
def test_everything_that_tells_anything_needs_the_password(live: Stage, path: str, credentials: str) -> None:
    code = base64.b64encode(credentials.encode()).decode()
    headers = {"Authorization": f"Basic {code}"} if credentials else {}
    call = live.client.post if path in {"/predict", "/setup"} else live.client.get
    answer = call(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !!!", "Digest a=b"])
def test_other_credentials_are_refused(live: Stage, header: str) -> None:
    assert live.client.get("/versions", headers={"Authorization": header}).status_code == 401


def test_health_is_open_but_tells_strangers_nothing(live: Stage) -> None:
    live.setup()
    assert live.client.get("/health").get_json() == {"status": "UP", "model_class": "labelloop"}
    health = live.client.get("/health", headers=AUTH).get_json()
    assert health["projects"][live.world.record.key]["version"] == "v1"


def test_versions_lists_all_and_names_the_live_one(live: Stage) -> None:
    live.setup()
    live.world.add(live.world.backbone(), answer=0)
    listed = live.client.get("/versions", headers=AUTH).get_json()
    assert listed["versions"] == ["v1", "v2"]
    assert listed["live"][live.world.record.key]["version"] == "v1"
    one = live.client.get(f"/versions?project={live.world.record.reference}", headers=AUTH).get_json()
    assert one["versions"] == ["v1", "v2"]
    assert live.client.get("/versions?project=9.9", headers=AUTH).status_code == 404


# --- the webhook


class FakeHints:
    """Remembers nudges instead of sending them."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, str]] = []

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def nudge(self, project: int | str | None, action: str) -> bool:
        self.sent.append((project, action))
        return True


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"action": "ANNOTATION_CREATED", "project": {"id": 7}}, (7, "ANNOTATION_CREATED")),
        ({"action": "START_TRAINING", "project": "7.1700000000"}, ("7.1700000000", "START_TRAINING")),
        ({"action": "X" * 999, "project": {"id": {"a": 1}}}, (None, "X" * 64)),
        ({"project": True}, (None, "")),
    ],
)
def test_a_webhook_only_nudges(body: dict[str, Any], expected: tuple[Any, str]) -> None:
    world, hints = World(), FakeHints()
    plain = make_backend(world, FakeReader())
    backend = Backend(plain.directory, plain.live, plain.predictor, plain.metrics, hints)  # type: ignore[arg-type]
    answer = make_app(backend, AccessGate(SETTINGS)).test_client().post("/webhook", json=body)
    assert answer.status_code == 202
    assert hints.sent == [expected]
    backend.stop()


def test_a_webhook_that_is_no_json_is_refused(live: Stage) -> None:
    assert live.client.post("/webhook", data=b"x").status_code == 400


# --- classes that were renamed, merged or dropped


def decided(live: Stage, label_map: dict[str, str | None], *classes: str) -> list[dict[str, Any]]:
    """Answers after a decision, as Label Studio asks with its label config of now."""
    config = live.world.record.config.model_copy(update={"label_map": label_map})
    live.world.projects.put(replace(live.world.record, config=config))
    live.backend.directory._records.clear()
    return live.predict(live.images(TRAIN[0]), make_label_config(classes))


def test_a_renamed_class_is_answered_under_its_new_name(live: Stage) -> None:
    before = live.predict(live.images(TRAIN[0]))[0]["score"]
    (result,) = decided(live, {"dog": "hound"}, "cat", "hound", "fox")
    assert result["result"][0]["value"] == {"choices": ["hound"]}
    assert result["score"] == pytest.approx(before)


def test_merged_classes_answer_with_their_sum(live: Stage) -> None:
    before = live.predict(live.images(TRAIN[0]))[0]["score"]
    (result,) = decided(live, {"fox": "dog"}, "cat", "dog")
    assert result["result"][0]["value"] == {"choices": ["dog"]}
    assert result["score"] == pytest.approx(before + (1 - before) / 2)


def test_a_dropped_class_leaves_the_answer_to_the_others(live: Stage) -> None:
    (result,) = decided(live, {"dog": None}, "cat", "fox")
    assert result["result"][0]["value"]["choices"][0] in {"cat", "fox"}
    assert result["score"] == pytest.approx(0.5)


# --- images that are not in S3


def test_an_upload_is_answered_empty_and_last_until_it_is_copied(live: Stage) -> None:
    seeds = {"/data/upload/1/a.png": TRAIN[0], "https://images.example.com/b.png": TRAIN[1]}
    tasks = [{"id": i, "data": {"image": uri}} for i, uri in enumerate(seeds)]
    before = live.predict(tasks)
    assert [(r["result"], r["score"], r["model_version"]) for r in before] == [([], 1.0, "v1")] * 2
    mirror = Mirror(live.world.own)
    mirror.record([mirror.keep(uri, picture(seed)) for uri, seed in seeds.items()])
    live.backend.live.get(live.world.record).mirror._every_s = 0
    assert [r["result"][0]["value"]["choices"] for r in live.predict(tasks)] == [["dog"]] * 2


def test_an_upload_that_will_be_blind_is_blind_before_anybody_knows(live: Stage) -> None:
    mirror = Mirror(live.world.own)
    mirror.record([mirror.keep("/data/upload/1/a.png", picture(BLIND[0]))])
    (result,) = live.predict([{"id": 1, "data": {"image": "/data/upload/1/a.png"}}])
    assert result["result"] == []


def test_an_upload_that_cannot_be_had_harms_nobody_else(live: Stage) -> None:
    mirror = Mirror(live.world.own)
    mirror.record([MirroredImage("/data/upload/1/a.png", "2026-01-01", problem="Label Studio answers 404")])
    results = live.predict([*live.images(TRAIN[0]), {"id": 1, "data": {"image": "/data/upload/1/a.png"}}])
    assert [bool(r["result"]) for r in results] == [True, False]


@pytest.mark.parametrize("headers", [
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
])  # fmt: skip
@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"), ("GET", "/versions"), ("POST", "/webhook"),
    ("POST", "/predict"), ("POST", "/setup"), ("OPTIONS", "/predict"),
])  # fmt: skip
def test_no_web_page_is_answered(live: Stage, method: str, path: str, headers: dict[str, str]) -> None:
    for sent in (headers, {**headers, **AUTH}):
        answer = live.client.open(path, method=method, headers=sent, json={"project": 7} if method == "POST" else None)
        assert answer.status_code == 403
        assert not [name for name, _ in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/versions"])
def test_a_foreign_name_that_leads_to_this_machine_is_not_answered(live: Stage, path: str) -> None:
    names = {"evil.example": 403, "127.0.0.1:9090": 200, "backend:9090": 200}
    for name, status in names.items():
        assert live.client.get(path, headers={"Host": name, **AUTH}).status_code == status
    elsewhere = {"REMOTE_ADDR": "10.0.0.7"}  # a proxy may go by any name
    answer = live.client.get("/health", headers={"Host": "labels.example"}, environ_overrides=elsewhere)
    assert answer.status_code == 200


def test_who_types_the_address_is_answered(live: Stage) -> None:
    assert live.client.get("/health", headers={"Sec-Fetch-Site": "none"}).get_json() == {
        "status": "UP", "model_class": "labelloop",
    }  # fmt: skip


def test_a_webhook_takes_no_more_than_an_event_needs(live: Stage) -> None:
    big = {"action": "ANNOTATION_CREATED", "project": {"id": 7}, "task": "x" * MAX_HINT}
    assert live.client.post("/webhook", json=big).status_code == 413
