"""Secrets that were replaced: hand Label Studio those that it keeps, the S3 keys and the backend's password."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from labelloop.errors import NotFoundError, StudioError
from labelloop.store.projects import ProjectRecord
from labelloop.studio.wiring import StudioWiring
from operations.deployment import Deployment
from operations.doctor.finding import Finding, fine, wrong
from operations.source import key_fields

KEYS = "S3 keys in Label Studio"


def hand_over(deployment: Deployment, record: ProjectRecord) -> list[Finding]:
    """Label Studio tries each before it keeps it; what it refuses stays as it was."""
    wiring = StudioWiring(deployment.studio.http)
    return [_storage_keys(wiring, deployment, record), _backend_password(wiring, deployment, record)]


def hand_over_stack_key(deployment: Deployment) -> list[Finding]:
    """The embedded stack's S3 key and address, for every project; what was refused. None where there is no project yet.

    At each start: a stack of an earlier release had another key, and a port may have been taken.
    """
    wiring, settings = StudioWiring(deployment.studio.http), deployment.settings
    fields = {**key_fields(settings), "s3_endpoint": settings.s3_endpoint}
    with suppress(NotFoundError):  # a first start: there is no bucket yet
        sources = [record.storage_id for record in deployment.projects.all() if record.storage_id is not None]
        return [finding for source in sources if not (finding := _replaced(wiring, source, fields)).ok]
    return []


def _storage_keys(wiring: StudioWiring, deployment: Deployment, record: ProjectRecord) -> Finding:
    if record.storage_id is None:
        return wrong(KEYS, "the project has no S3 source", "run `labelloop init` for it")
    if not deployment.settings.s3_access_key:
        return fine(KEYS, "none are kept: Label Studio finds its own")
    return _replaced(wiring, record.storage_id, key_fields(deployment.settings))


def _replaced(wiring: StudioWiring, storage: int, fields: Mapping[str, Any]) -> Finding:
    try:
        wiring.replace_storage_keys(storage, fields)
    except StudioError as error:
        if error.status == 404:
            return fine(KEYS, "the source was deleted in Label Studio")
        return wrong(KEYS, f"refused: {error}", "see that the new keys may list and read the bucket")
    return fine(KEYS, "the current ones")


def _backend_password(wiring: StudioWiring, deployment: Deployment, record: ProjectRecord) -> Finding:
    what, settings = "backend password in Label Studio", deployment.settings
    ours = [backend for backend in wiring.backends(record.id) if backend.url == settings.backend_url]
    if not ours:
        return wrong(what, f"{settings.backend_url} is not connected", "run `labelloop init` for the project")
    try:
        wiring.replace_backend_password(ours[0], record.id, settings.backend_user, settings.backend_password or "")
    except StudioError as error:
        return wrong(what, f"refused: {error}", "see that the backend accepts the new password already: its file holds "
                     "the new one in the first line, the former one in the second")  # fmt: skip
    return fine(what, "the current one")
