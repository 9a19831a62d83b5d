"""Secrets that were replaced: hand Label Studio those that it keeps, the S3 keys and the backend's password."""

from __future__ import annotations

from cli.deployment import Deployment
from cli.doctor.finding import Finding, fine, wrong
from cli.source import key_fields
from labelloop.errors import StudioError
from labelloop.projects import ProjectRecord
from labelloop.studio_wiring import StudioWiring


def hand_over(deployment: Deployment, record: ProjectRecord) -> list[Finding]:
    """Label Studio tries each before it keeps it; what it refuses stays as it was."""
    wiring = StudioWiring(deployment.studio.http)
    return [_storage_keys(wiring, deployment, record), _backend_password(wiring, deployment, record)]


def _storage_keys(wiring: StudioWiring, deployment: Deployment, record: ProjectRecord) -> Finding:
    what = "S3 keys in Label Studio"
    if record.storage_id is None:
        return wrong(what, "the project has no S3 source", "run `labelloop init` for it")
    if not deployment.settings.s3_access_key:
        return fine(what, "none are kept: Label Studio finds its own")
    try:
        wiring.replace_storage_keys(record.storage_id, key_fields(deployment.settings))
    except StudioError as error:
        return wrong(what, f"refused: {error}", "see that the new keys may list and read the bucket")
    return fine(what, "the current ones")


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
