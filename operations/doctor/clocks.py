"""Clocks that disagree: signatures are refused, throttles never end, records sort wrongly."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import partial

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from redis.exceptions import RedisError

from operations.doctor import queue, storage, studio
from operations.doctor.checks import DoctorCheck
from operations.doctor.finding import Finding, fine, warn, wrong
from operations.doctor.scene import Scene

AREA = "clocks"
WARN_S, WRONG_S = 5.0, 60.0
SET_IT = "let both machines take the time from a time server (NTP)"


def checks(scene: Scene) -> list[DoctorCheck]:
    """Ours against each server's."""
    clocks: Mapping[str, tuple[Callable[[Scene], float | None], str]] = {
        "Label Studio": (_studio, studio.REACHED), "S3": (_s3, storage.REACHED), "Redis": (_redis, queue.REACHED),
    }  # fmt: skip
    return [
        DoctorCheck(AREA, f"clock of {name}", partial(_compared, name, read, scene), (need,))
        for name, (read, need) in clocks.items()
    ]


def offset(name: str, seconds: float | None) -> Finding:
    """How far a server's clock is ahead of ours."""
    what = f"clock of {name}"
    if seconds is None:
        return fine(what, "not known")
    difference = f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} ours"
    if abs(seconds) > WRONG_S:
        return wrong(what, difference, SET_IT)
    if abs(seconds) > WARN_S:
        return warn(what, difference, SET_IT)
    return fine(what, "agrees with ours")


def _compared(name: str, read: Callable[[Scene], float | None], scene: Scene) -> Finding:
    return offset(name, read(scene))


def _studio(scene: Scene) -> float | None:
    try:
        return _ahead(scene.http.get(f"{scene.settings.studio_url}/health").headers.get("Date"))
    except httpx.HTTPError:
        return None


def _s3(scene: Scene) -> float | None:
    try:
        answer = scene.deployment.s3.head_bucket(Bucket=scene.settings.state_bucket)
    except (ClientError, BotoCoreError):
        return None
    return _ahead(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))


def _redis(scene: Scene) -> float | None:
    try:
        seconds, micros = scene.deployment.queue.redis.time()
    except RedisError:
        return None
    return float(seconds) + float(micros) / 1e6 - time.time()


def _ahead(date: str | None) -> float | None:
    """Of an HTTP date, which has whole seconds."""
    try:
        return parsedate_to_datetime(date).timestamp() + 0.5 - time.time() if date else None
    except ValueError:
        return None
