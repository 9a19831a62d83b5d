"""A project on a running Label Studio: created or adopted, wired, and checked from end to end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from labelloop.config import ProjectConfig
from labelloop.errors import LabelloopError, StudioError
from labelloop.labels import make_label_config, parse_label_config
from labelloop.projects import ProjectRecord, ProjectStore
from labelloop.settings import Settings
from labelloop.studio import Studio, StudioProject

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

IMAGE_PATTERN = r"(?i).*\.(jpe?g|png|bmp|gif|webp|tiff?|avif)$"  # the same as labelloop.images.SUFFIXES
BACKEND_TITLE = "labelloop"  # never the name of a version: see sync.publish
ORDER = "Uncertainty sampling"  # Label Studio's name for "lowest score first"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    what: str
    ok: bool
    note: str  # what was found, or what is wrong and how to mend it


@dataclass(frozen=True, slots=True)
class Wish:
    """What a project should be."""

    config: ProjectConfig
    image_uri: str  # s3://bucket/prefix/
    classes: tuple[str, ...] = ()  # for a new project
    adopt: int | None = None  # id of a project that exists


def wire(studio: Studio, projects: ProjectStore, settings: Settings, wish: Wish) -> tuple[ProjectRecord, list[Finding]]:
    """Create or adopt, connect storage, backend and order, remember it. Safe to repeat."""
    findings = [Finding("Label Studio", True, f"{studio.version()} at {studio.url}, account {studio.whoami()}")]
    project = _project(studio, wish)
    parse_label_config(project.label_config)
    record = ProjectRecord(
        settings.studio_server, project.id, project.created, project.title, wish.config, project.label_config,
        wish.image_uri,
    )  # fmt: skip
    known = projects.find(record.reference)
    if known:  # the same ids, so that the watcher does not take it for a new project
        record = replace(record, storage_id=known.storage_id, backend_id=known.backend_id)
    projects.put(record)  # the backend must know the project before Label Studio asks it about it
    storage = _storage(studio, settings, record)
    backend, note = _backend(studio, settings, record)
    record = replace(record, storage_id=storage, backend_id=backend)
    projects.put(record)
    findings += [Finding("ML backend", backend is not None, note)]
    if project.sampling != ORDER:
        studio.update_project(project.id, sampling=ORDER)
    return record, findings + check(studio, settings, record)


def check(studio: Studio, settings: Settings, record: ProjectRecord) -> list[Finding]:
    """Look at what is wired, as Label Studio tells it."""
    project = studio.project(record.id)
    return [
        _check_order(project),
        _check_annotators(project),
        _check_webhook(studio, settings, record),
        _check_storage(studio, record),
    ]


def ensure_bucket(s3: S3Client, bucket: str) -> None:
    """Create a bucket where there is none."""
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError:
        s3.create_bucket(Bucket=bucket)


def _project(studio: Studio, wish: Wish) -> StudioProject:
    if wish.adopt is not None:
        return studio.project(wish.adopt)
    classes = wish.config.labels or wish.classes
    if not classes:
        raise LabelloopError(
            "a new project needs its classes: list them under `labels:` in the config, or give --images DIR with class "
            "folders; or adopt a project that exists with --project ID"
        )
    return studio.create_project(wish.config.name, make_label_config(classes))


def _storage(studio: Studio, settings: Settings, record: ProjectRecord) -> int:
    bucket, _, prefix = record.image_uri.removeprefix("s3://").partition("/")
    fields: dict[str, Any] = {
        "title": "labelloop images", "bucket": bucket, "prefix": prefix.rstrip("/"), "regex_filter": IMAGE_PATTERN,
        "use_blob_urls": True, "presign": False, "recursive_scan": True, "region_name": settings.s3_region,
        "s3_endpoint": settings.s3_endpoint, "aws_access_key_id": settings.s3_access_key,
        "aws_secret_access_key": settings.s3_secret_key,
    }  # fmt: skip
    for known in studio.storages(record.id):
        if (known["bucket"], (known.get("prefix") or "").rstrip("/")) == (bucket, fields["prefix"]):
            return int(known["id"])
    try:
        return int(studio.add_storage(record.id, **fields)["id"])
    except StudioError as error:
        raise StudioError(_blocked(error, "the S3 source storage"), status=error.status) from error


def _backend(studio: Studio, settings: Settings, record: ProjectRecord) -> tuple[int | None, str]:
    for known in studio.backends(record.id):
        if known["url"].rstrip("/") == settings.backend_url:
            return int(known["id"]), f"connected: {settings.backend_url}"
    try:
        made = studio.add_backend(
            record.id, settings.backend_url, title=BACKEND_TITLE, user=settings.backend_user,
            password=settings.backend_password or "",
        )  # fmt: skip
        return int(made["id"]), f"connected: {settings.backend_url}"
    except StudioError as error:
        return None, _blocked(error, "the ML backend")


def _blocked(error: StudioError, what: str) -> str:
    if "reserved" in str(error) or error.status == 403:
        return (
            f"Label Studio refuses the address of {what} as private. Start it with USE_DEFAULT_BANNED_SUBNETS=false "
            "and USER_ADDITIONAL_BANNED_SUBNETS=169.254.0.0/16, then run `labelloop init` again. It said: "
            f"{error}"
        )
    return f"{what} could not be connected: {error}"


def _check_order(project: StudioProject) -> Finding:
    ok = project.sampling == ORDER
    return Finding("queue order", ok, "lowest score first" if ok else f"is {project.sampling!r}: run init again")


def _check_annotators(project: StudioProject) -> Finding:
    n = project.maximum_annotations
    note = "one annotation per task" if n == 1 else f"{n} annotations per task: all are kept, the newest counts"
    return Finding("overlap", True, note)


def _check_webhook(studio: Studio, settings: Settings, record: ProjectRecord) -> Finding:
    wanted = f"{settings.backend_url}/webhook"
    urls = [w["url"] for w in studio.webhooks(record.id) if w.get("is_active", True)]
    ours = [u for u in urls if u.rstrip("/") == wanted]
    if not ours:
        return Finding("webhook", False, f"none to {wanted}: labels are then found by polling, within a second or two. "
                       "Add one under Settings > Webhooks for all events")  # fmt: skip
    if len(urls) > 1:
        return Finding("webhook", False, f"{len(urls)} webhooks: every submit waits for each in turn; keep {wanted}")
    return Finding("webhook", True, wanted)


def _check_storage(studio: Studio, record: ProjectRecord) -> Finding:
    for storage in studio.storages(record.id):
        if storage["id"] == record.storage_id:
            return Finding(
                "S3 source", storage.get("status") != "failed", f"{record.image_uri} ({storage.get('status')})"
            )
    return Finding("S3 source", False, f"no storage for {record.image_uri}: run init again")
