"""`POST /v1/classify` in the backend: what is answered, what is refused, and that a problem says so."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from labelloop.config.settings import load_settings
from labelloop.records.api_keys import Scope
from labelloop.web.classify_types import MAX_BODY, MAX_IMAGES
from ml_backend.auth import AccessGate
from ml_backend.backend import Backend
from ml_backend.entrance.door import CLASSIFIES, PAGE, Door
from tests.unit.worlds.api import PASSWORD, ApiWorld, api_world
from tests.unit.worlds.backend import CLASSES, PREFIX, World, picture

OTHER = "s3://images/others/1.png"


@pytest.fixture(scope="module")
def api() -> Iterator[ApiWorld]:
    world = World()
    world.deploy(world.add(world.backbone(), 1))
    with api_world(world, {PREFIX + "1.png": picture(1), OTHER: picture(2)}) as made:
        yield made


def sent(*datas: bytes, **fields: str) -> dict[str, Any]:
    return {"data": {"image": [(io.BytesIO(data), f"{n}.png") for n, data in enumerate(datas)], **fields}}


def b64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def problem(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    body = answer.get_json()
    assert (body["status"], body["type"]) == (status, "about:blank")
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert ("Retry-After" in answer.headers) is (status in {429, 503})
    return str(body["detail"])


def test_a_file_base64_and_an_address_are_answered_alike(api: ApiWorld) -> None:
    file = api.classify(**sent(picture(1)))
    text = api.classify(json={"images": [b64(picture(1))]})
    uri = api.classify(json={"images": [{"uri": PREFIX + "1.png"}]})
    assert file.status_code == 200, file.text
    assert file.get_json() == text.get_json() == uri.get_json()
    body = file.get_json()
    assert (body["project"], body["version"]) == (api.world.record.key, "v1")
    (image,) = body["images"]
    assert (image["label"], image["unsure"], image["problem"]) == ("dog", None, None)
    assert [guess["label"] for guess in image["top"]] == ["dog", "cat", "fox"]
    assert image["probability"] == image["top"][0]["probability"] > 0.8
    assert image["probabilities"] is None


def test_options(api: ApiWorld) -> None:
    form = api.classify(**sent(picture(1), picture(2), top_k="1", probabilities="true", project=api.world.record.key))
    body = api.classify(json={"images": [b64(picture(1)), b64(picture(2))], "top_k": 1, "probabilities": True})
    assert form.get_json() == body.get_json()
    for image in form.get_json()["images"]:
        assert len(image["top"]) == 1
        assert set(image["probabilities"]) == set(CLASSES)
        assert sum(image["probabilities"].values()) == pytest.approx(1)


def test_an_image_of_a_class_that_nobody_has_labelled_gets_no_label() -> None:
    world = World()
    world.deploy(world.add(world.backbone(), 1, unseen=0.75))
    with api_world(world) as api:
        (image,) = api.classify(json={"images": [b64(picture(1))], "probabilities": True}).get_json()["images"]
    assert (image["label"], image["probability"], image["unsure"]) == (None, None, "unlabelled-class")
    assert image["unlabelled_class"] == pytest.approx(0.75)
    assert sum(image["probabilities"].values()) == pytest.approx(0.25)  # the rest
    assert image["top"][0]["label"] == "dog"


def test_a_bad_image_costs_itself_alone(api: ApiWorld) -> None:
    images = [b64(picture(1)), b64(b"no image"), {"base64": "%%%"}, {"uri": PREFIX + "none.png"}, {"uri": OTHER},
              {"base64": ""}]  # fmt: skip
    answer = api.classify(json={"images": images})
    good, *bad = answer.get_json()["images"]
    assert answer.status_code == 200
    assert (good["label"], good["problem"]) == ("dog", None)
    assert [image["problem"]["status"] for image in bad] == [422] * 5
    assert all(image["label"] is None and image["top"] == [] for image in bad)
    assert "animals" in bad[3]["problem"]["detail"]  # where the project's images lie
    assert "not among the project's images" in problem(api.classify(json={"images": [images[4]]}), 422)


@pytest.mark.parametrize("uri", [
    OTHER, "s3://state/keys/0123456789ab.json", "http://169.254.169.254/latest/meta-data", "file:///etc/passwd",
    "/data/upload/1/x.png", "https://example.com/cat.png", "s3://images/animals/../others/1.png", "", "\x00", "s3://",
])  # fmt: skip
def test_nothing_but_the_projects_images_is_read(api: ApiWorld, uri: str) -> None:
    problem(api.classify(json={"images": [{"uri": uri}]}), 422)


@pytest.mark.parametrize(("body", "says"), [
    ({}, "images"), ([], "body"), (None, "body"), ("x", "body"), ({"images": []}, "images"),
    ({"images": [{}]}, "base64 or uri"),
    ({"images": [{"base64": "", "uri": "s3://x/y"}]}, "uri"), ({"images": [{"url": "x"}]}, "one of them"),
    ({"images": [{"base64": 1}]}, "base64"), ({"images": [{"base64": "eA=="}] * (MAX_IMAGES + 1)}, "images"),
    ({"images": [{"base64": "eA=="}], "top_k": 0}, "top_k"), ({"images": [{"base64": "eA=="}], "top_k": 1e99}, "top_k"),
    ({"images": [{"base64": "eA=="}], "mood": 1}, "mood"), ({"images": [{"uri": "x" * 5000}]}, "uri"),
    ({"images": [{"base64": "eA=="}], "project": "\ud800"}, "project"), ({"images": [{"\ud800": 1}]}, "images"),
])  # fmt: skip
def test_a_body_that_is_wrong_is_refused_in_words(api: ApiWorld, body: Any, says: str) -> None:
    answer = api.classify(data=json.dumps(body), content_type="application/json")
    assert says in problem(answer, 422)


@pytest.mark.parametrize(("data", "kind", "status"), [
    (b"{", "application/json", 400), (b"\xff", "application/json", 400), (b"[" * 100_000, "application/json", 400),
    (b"", "application/json", 400), (b"x", "text/plain", 415), (b"x", "", 415), (b"x", "image/png", 415),
    (b"", "multipart/form-data", 422), (b"x", "multipart/form-data; boundary=x", 422),
    (b"--x\r\n", "multipart/form-data; boundary=x", 422), (b"a=b", "application/x-www-form-urlencoded", 415),
])  # fmt: skip
def test_what_is_no_body_is_refused(api: ApiWorld, data: bytes, kind: str, status: int) -> None:
    problem(api.classify(data=data, content_type=kind), status)


@pytest.mark.parametrize("fields", [{"top_k": "x"}, {"top_k": "0"}, {"mood": "1"}, {"probabilities": "perhaps"}])
def test_a_form_with_wrong_fields_is_refused(api: ApiWorld, fields: dict[str, str]) -> None:
    assert next(iter(fields)) in problem(api.classify(**sent(picture(1), **fields)), 422)
    problem(api.classify(data={"photo": (io.BytesIO(picture(1)), "a.png")}), 422)
    problem(api.classify(**sent(*[picture(1)] * (MAX_IMAGES + 1))), 422)


def test_who_may_not_is_told_why(api: ApiWorld) -> None:
    ask = sent(picture(1))
    assert "labelloop keys add" in problem(api.client.post("/v1/classify"), 401)
    assert "Bearer" in api.client.post("/v1/classify").headers["WWW-Authenticate"]
    problem(
        api.client.post("/v1/classify", auth=("labelloop", PASSWORD)), 401
    )  # Label Studio's password opens nothing here
    assert "scope predict" in problem(api.classify(api.made(Scope.READ, Scope.OPERATE, Scope.APPROVE), **ask), 403)
    other = api.made(Scope.PREDICT, project="main-9-1")
    assert "main-9-1 alone" in problem(
        api.classify(other, json={"images": [b64(picture(1))], "project": api.world.record.key}), 403
    )
    problem(api.classify(other, **sent(picture(1))), 404)  # its own project is gone
    own = api.made(Scope.PREDICT, project=api.world.record.key)
    assert api.classify(own, **sent(picture(1))).status_code == 200
    api.store.revoke(own.split("_")[1])
    api.known.read()
    assert "revoked" in problem(api.classify(own, **sent(picture(1))), 401)


def test_a_key_opens_nothing_of_label_studios(api: ApiWorld) -> None:
    headers = {"Authorization": f"Bearer {api.key}"}
    for path in ("/predict", "/setup"):
        assert api.client.post(path, headers=headers, json={}).status_code == 401
    for path in ("/versions", "/metrics"):
        assert api.client.get(path, headers=headers).status_code == 401


@pytest.mark.parametrize(
    "name",
    ["x", "main-7-1", "main-8-1700000000", "-7-1700000000", "other-7-1700000000", "a" * 100, "7.1700000000", "../x"],
)
def test_a_project_that_is_not_there(api: ApiWorld, name: str) -> None:
    problem(api.classify(json={"images": [b64(picture(1))], "project": name}), 404)


def test_a_key_asks_so_often_and_no_more(api: ApiWorld) -> None:
    key = api.made(Scope.PREDICT, per_minute=12)  # two at once
    answers = [api.classify(key, **sent(picture(1))) for _ in range(3)]
    assert [a.status_code for a in answers] == [200, 200, 429]
    assert "12 times a minute" in problem(answers[2], 429)
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 5


def test_a_project_without_a_model(api: ApiWorld) -> None:
    with api_world(World()) as empty:
        assert "no model yet" in problem(empty.classify(**sent(picture(1))), 409)


def test_storage_that_is_away_is_503_for_addresses_alone(api: ApiWorld) -> None:
    api.reader.away = True
    try:
        problem(api.classify(json={"images": [{"uri": PREFIX + "1.png"}]}), 503)
        mixed = api.classify(json={"images": [{"uri": PREFIX + "1.png"}, b64(picture(1))]}).get_json()["images"]
        assert [bool(image["label"]) for image in mixed] == [False, True]
    finally:
        api.reader.away = False


def test_other_methods_and_paths_are_problems_too(api: ApiWorld) -> None:
    headers = {"Authorization": f"Bearer {api.key}"}
    answer = api.client.get("/v1/classify", headers=headers)
    problem(answer, 405)
    assert answer.headers["Allow"] == "OPTIONS, POST"
    problem(api.client.post("/v1/nothing", headers=headers), 404)


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3", True), ("x" * 65, False), ("a b", False), ("é", False), ("", False)]
)
def test_a_request_id_comes_back(api: ApiWorld, given: str, kept: bool) -> None:
    answer = api.classify(**sent(picture(1)), headers={"X-Request-Id": given})
    assert (answer.headers["X-Request-Id"] == given) is kept
    assert answer.headers["X-Request-Id"]
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_calls_of_programs_leave_label_studios_places_free(api: ApiWorld) -> None:
    classifier = api.backend.classifier
    assert classifier
    assert classifier.places is not api.backend.places
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier.places, "_places", 0)
        patch.setattr(classifier.places, "_still_s", -1.0)
        problem(api.classify(**sent(picture(1))), 503)
        results = api.backend.predict(api.world.record.reference, "", [{"id": 1, "data": {"image": PREFIX + "1.png"}}])
        assert len(results) == 1


# --- the door: before a body is read


def refused(api: ApiWorld, headers: dict[str, str], length: int = 0, path: str = "/v1/classify") -> Any:
    door = api.client.application.extensions["labelloop-door"]
    assert isinstance(door, Door)
    why = door.refusal(path, headers, length)
    return why and door.worded(why, path, headers)


def test_nobodys_body_is_read_without_a_key(api: ApiWorld) -> None:
    good = {"AUTHORIZATION": f"Bearer {api.key}"}
    assert refused(api, good, MAX_BODY) is None
    large = refused(api, {**good, "X_REQUEST_ID": "r1"}, MAX_BODY + 1)
    status, headers, body = large.to_response()
    assert status in {"413 Content Too Large", "413 Request Entity Too Large"}
    assert dict(headers)["Content-Type"] == "application/problem+json"
    assert json.loads(body)["request_id"] == dict(headers)["X-Request-Id"] == "r1"
    for header in ({}, {"AUTHORIZATION": "Bearer x"}, {"AUTHORIZATION": "Basic bGFiZWxsb29wOng="}):
        for path in ("/v1/classify", "/v1/", "/v1/nothing"):
            status, headers, _ = refused(api, header, 0, path).to_response()
            assert status.startswith("401 ")
            assert dict(headers)["WWW-Authenticate"].startswith("Bearer")
    assert refused(api, {**good, "ORIGIN": "http://evil.example"}).status == PAGE.status


def test_without_keys_nothing_of_it_is_there() -> None:
    door = Door(AccessGate(load_settings({"LABELLOOP_BACKEND_PASSWORD": "x"})))
    assert door.lane_of("/v1/classify") is CLASSIFIES
    assert door.lane_of("/v1/classify/") is not CLASSIFIES
    assert Backend.__dataclass_fields__["classifier"].default is None
