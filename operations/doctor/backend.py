"""The ML backend, as we and as Label Studio meet it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from labelloop.records.images import Split
from labelloop.store.projects import ProjectRecord
from labelloop.studio.wiring import ConnectedBackend
from operations.doctor import storage, studio
from operations.doctor.checks import FIRST_S, DoctorCheck
from operations.doctor.finding import Finding, fine, warn, wrong
from operations.doctor.project import INIT, area_of
from operations.doctor.scene import Scene

AREA = "ML backend"
REACHED = "the backend"
HEALTH_S, SETUP_S = 1.0, 3.0  # what Label Studio allows
TRIES = 3  # a machine under load: the best counts
PROBED = 3  # images


@dataclass(frozen=True, slots=True)
class TimedReply:
    """What came back, and how fast."""

    status: int  # 0: nothing
    seconds: float
    text: str


def first(scene: Scene) -> list[DoctorCheck]:
    """Alone, before the others load the machine: it is timed."""
    url = scene.settings.backend_url
    return [DoctorCheck(AREA, REACHED, lambda: health(_best(scene, "GET", "/health"), url), limit_s=FIRST_S)]


def checks(scene: Scene) -> list[DoctorCheck]:
    """What does not hang on a project."""
    return [DoctorCheck(AREA, "password", lambda: password(_ask(scene, "GET", "/versions")), (REACHED,))]


def of_project(scene: Scene, record: ProjectRecord) -> list[DoctorCheck]:
    """How it serves one project."""
    area = area_of(record)
    needs = (studio.REACHED, studio.TOKEN)
    return [
        DoctorCheck(area, "set-up", lambda: setup(_setup(scene, record)), (REACHED,)),
        DoctorCheck(area, "ML backend in Label Studio", lambda: connected(scene, record), needs),
        DoctorCheck(area, "images in the backend", lambda: images(_probe(scene, record)), (REACHED, storage.REACHED)),
    ]


def health(answer: TimedReply, url: str) -> Finding:
    """Label Studio asks before everything else, and does not wait."""
    if not answer.status:
        return wrong(REACHED, f"{url} cannot be reached: {answer.text}", "see that the backend runs, and "
                     "LABELLOOP_BACKEND_URL is right")  # fmt: skip
    if answer.status != 200:
        return wrong(REACHED, f"{url}/health answers {answer.status}", "see that LABELLOOP_BACKEND_URL is the "
                     "backend's address and not another server's")  # fmt: skip
    if answer.seconds > HEALTH_S:
        return wrong(REACHED, f"/health takes {answer.seconds:.1f} s; Label Studio waits {HEALTH_S:.0f} s",
                     "give the backend's machine more room, or fewer other tasks")  # fmt: skip
    return fine(REACHED, f"{url} answers in {answer.seconds * 1000:.0f} ms")


def password(answer: TimedReply) -> Finding:
    """Ours; Label Studio's is tried by Label Studio."""
    what = "password"
    if answer.status == 401:
        return wrong(what, "the backend does not accept LABELLOOP_BACKEND_USER and LABELLOOP_BACKEND_PASSWORD",
                     "give it and us the same ones, then run `labelloop rotate`")  # fmt: skip
    if answer.status == 200:
        return fine(what, "accepted")
    return warn(what, f"/versions answers {answer.status} {answer.text[:200]}", "look at the backend's log")


def setup(answer: TimedReply) -> Finding:
    """Label Studio asks this before each prediction, with the project and its label config."""
    what = "set-up"
    if answer.status != 200:
        return wrong(what, f"/setup answers {answer.status}: {answer.text[:200]}", "look at the backend's log")
    if answer.seconds > SETUP_S:
        return wrong(what, f"/setup takes {answer.seconds:.1f} s; Label Studio waits {SETUP_S:.0f} s", "wait until the "
                     "model is loaded; if it stays so, give the backend's machine more room")  # fmt: skip
    return fine(what, f"answers in {answer.seconds * 1000:.0f} ms")


def connected(scene: Scene, record: ProjectRecord) -> Finding:
    """Checked a second way only where Label Studio says that it cannot reach it."""
    backends = scene.backends(record)
    url = scene.settings.backend_url
    ours = [backend for backend in backends if backend.url == url]
    blocked = bool(ours and not ours[0].connected and scene.wiring.blocks(record.id, url))
    return as_connected(backends, url, blocked=blocked)


def as_connected(backends: Sequence[ConnectedBackend], url: str, *, blocked: bool) -> Finding:
    """One backend, ours, that Label Studio reaches and that accepts its password."""
    what = "ML backend in Label Studio"
    ours = [backend for backend in backends if backend.url == url]
    if not ours:
        others = ", ".join(backend.url for backend in backends)
        urls = f"{others} instead of {url}" if others else f"none; {url} should be"
        return wrong(what, f"connected: {urls}", f"{INIT}, or correct LABELLOOP_BACKEND_URL")
    state = ours[0]
    if blocked:
        return wrong(what, f"Label Studio refuses {url} as a private address", storage.OPEN_SUBNETS)
    if not state.connected and "401" in state.error:
        return wrong(what, "the backend does not accept the password that Label Studio has", "run `labelloop rotate`: "
                     "it hands over the current one")  # fmt: skip
    if not state.connected:
        return wrong(what, f"Label Studio cannot use {url}: {state.error or 'no answer within a second'}",
                     "see that Label Studio's machine reaches that address")  # fmt: skip
    if len(backends) > 1:
        more = ", ".join(backend.url for backend in backends if backend is not state)
        return warn(what, f"besides ours {more}: Label Studio asks each", "disconnect it under Settings > Model")
    return fine(what, f"connected: {url}")


def images(answer: TimedReply | None) -> Finding:
    """The backend reads images itself, from S3."""
    what = "images in the backend"
    if answer is None:
        return fine(what, "no task to try with yet")
    if answer.status == 200:
        return fine(what, f"answered in {answer.seconds * 1000:.0f} ms")
    if answer.status == 503 and "being loaded" in answer.text:
        return warn(what, "the model is still being loaded", "wait a moment; the first load takes longest")
    if answer.status == 503:
        return wrong(what, f"it cannot read images: {answer.text[:200]}", "see that the backend reaches the S3 "
                     "endpoint, and that its keys are right")  # fmt: skip
    return wrong(what, f"/predict answers {answer.status}: {answer.text[:200]}", "look at the backend's log")


def _best(scene: Scene, method: str, path: str, body: Any = None) -> TimedReply:
    """The quickest of a few, unless the first fails."""
    replies = [_ask(scene, method, path, body)]
    while replies[0].status == 200 and len(replies) < TRIES and replies[-1].seconds > HEALTH_S / 4:
        replies.append(_ask(scene, method, path, body))
    return min(replies, key=lambda answer: answer.seconds)


def _setup(scene: Scene, record: ProjectRecord) -> TimedReply:
    body = {"project": record.reference, "schema": record.label_config, "hostname": "", "access_token": "",
            "extra_params": None}  # fmt: skip
    return _best(scene, "POST", "/setup", body)


def _probe(scene: Scene, record: ProjectRecord) -> TimedReply | None:
    """A few images that the model may answer: those of test and audit are never shown to it here."""
    facts = scene.catalogue(record).images.values()
    uris = [f.uri for f in facts if f.bucket is Split.TRAIN and not f.problem][:PROBED]
    if not uris:
        return None
    key = record.schema.data_key
    tasks = [{"id": i, "data": {key: uri}} for i, uri in enumerate(uris)]
    return _ask(scene, "POST", "/predict", {"tasks": tasks, "project": record.reference,
                                            "label_config": record.label_config})  # fmt: skip


def _ask(scene: Scene, method: str, path: str, body: Any = None) -> TimedReply:
    settings = scene.settings
    auth = (settings.backend_user, settings.backend_password or "")
    began = time.perf_counter()
    try:
        answer = scene.http.request(method, f"{settings.backend_url}{path}", json=body, auth=auth)
    except httpx.HTTPError as error:
        return TimedReply(0, time.perf_counter() - began, f"{type(error).__name__} {error}")
    return TimedReply(answer.status_code, time.perf_counter() - began, _error_text(answer))


def _error_text(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return answer.text
    return str(body.get("error", "")) if isinstance(body, Mapping) else ""
