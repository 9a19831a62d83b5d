"""A project on a running Label Studio: created or adopted, wired, and checked from end to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from labelloop.config.networks import AUTO, BY_CONFIG, NO_WEIGHTS, PIXELS, NetworkChoice
from labelloop.config.project import ProjectConfig, parse_config
from labelloop.config.settings import Settings
from labelloop.errors import LabelloopError, StudioError
from labelloop.labels.instruction import instruction
from labelloop.labels.results import make_label_config, parse_label_config
from labelloop.objects.storage import S3Store
from labelloop.store.projects import ProjectRecord, ProjectStore
from labelloop.studio.client import Studio, StudioProject
from labelloop.studio.wiring import BLOCKED, StudioWiring
from operations.doctor import project as rules
from operations.doctor import storage
from operations.doctor.finding import Finding, fine, wrong
from operations.projects.checked import check_backbone, check_classes, check_rules, check_title
from operations.source import IMAGE_PATTERN, storage_fields

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class Wish:
    """What a project should be."""

    config: ProjectConfig
    image_uri: str  # s3://bucket/prefix/
    classes: tuple[str, ...] = ()  # for a new project
    adopt: int | None = None  # id of a project that exists
    choose: Callable[[], NetworkChoice] | None = field(default=None, repr=False)  # of a network; none: as the config is


def wire(studio: Studio, projects: ProjectStore, settings: Settings, wish: Wish) -> tuple[ProjectRecord, list[Finding]]:
    """Create or adopt, connect storage, backend and order, remember it. Safe to repeat."""
    findings = [fine("Label Studio", f"{studio.version()} at {studio.url}, account {studio.whoami()}")]
    project = _project(studio, wish)
    parse_label_config(project.label_config)
    record = ProjectRecord(
        settings.studio_server, project.id, project.created, project.title, wish.config, project.label_config,
        wish.image_uri, made=wish.adopt is None,
    )  # fmt: skip
    before = projects.find(record.reference)
    if before:  # the same ids, so that the watcher does not take it for a new project
        config = _with_decisions(wish.config, before.config)
        record = replace(record, storage_id=before.storage_id, backend_id=before.backend_id, config=config,
                         made=before.made, by_bytes=before.by_bytes)  # fmt: skip
    record = with_network(record, before, wish)
    findings.append(network_finding(record))
    projects.put(record)  # the backend must know the project before Label Studio asks it about it
    source, pattern = _storage(studio, settings, record)
    backend, finding = _backend(studio, settings, record)
    # where an older release or a person has chosen the filter, what it takes stays as it is
    record = replace(record, storage_id=source, backend_id=backend, by_bytes=pattern == IMAGE_PATTERN)
    projects.put(record)
    if project.sampling != rules.SAMPLING:
        studio.update_project(project.id, sampling=rules.SAMPLING)
    return record, [*findings, finding, *check(studio, settings, record)]


def with_network(record: ProjectRecord, before: ProjectRecord | None, wish: Wish) -> ProjectRecord:
    """`backbone.name: auto` is decided once, when the project is made; afterwards the project keeps its network."""
    backbone = record.config.backbone
    if wish.choose is None:
        return replace(record, network=before.network if before else "")
    if backbone.name != AUTO:
        reason = before.network if before and before.config.backbone == backbone else ""
        return replace(record, network=reason or BY_CONFIG)
    if before and before.config.backbone.name != AUTO:
        kept = record.config.model_copy(update={"backbone": before.config.backbone})
        return replace(record, config=kept, network=before.network or "the project's first network")
    choice = wish.choose()
    chosen = record.config.model_copy(update={"backbone": backbone.model_copy(update={"name": choice.name})})
    return replace(record, config=chosen, network=choice.reason)


def network_finding(record: ProjectRecord) -> Finding:
    """Which network turns the project's images into features, and why."""
    name = record.config.backbone.name
    what = f"{name}: {record.network}" if record.network else name
    if name == PIXELS and record.network == NO_WEIGHTS:
        return wrong("network", what, "then `labelloop init` again with `backbone: {name: …}` in the config")
    return fine("network", what)


def _with_decisions(wished: ProjectConfig, before: ProjectConfig) -> ProjectConfig:
    """What people decided with `labelloop schema` stays, unless the YAML says otherwise of that class."""
    label_map = {**before.label_map, **wished.label_map}
    return parse_config({**wished.model_dump(mode="json"), "label_map": label_map}, f"the config of {wished.name}")


def check(studio: Studio, settings: Settings, record: ProjectRecord) -> list[Finding]:
    """Look at what is wired, as Label Studio reports it; `labelloop doctor` looks at more."""
    project, wiring = studio.project(record.id), StudioWiring(studio.http)
    source = next((s for s in wiring.storages(record.id) if s.id == record.storage_id), None)
    looks = (rules.sampling, rules.trains, rules.predicts, rules.shows, rules.overlap)
    return [
        *[look(project) for look in looks],
        rules.webhooks(wiring.webhooks(record.id), settings.backend_url),
        storage.source(source, record),
    ]


def check_wish(wish: Wish, settings: Settings) -> None:
    """SettingsError where it cannot be made, before anything of it is."""
    check_rules(wish.config)
    check_backbone(wish.config, settings)
    if wish.adopt is None:
        check_title(wish.config.name)
        check_classes(_classes(wish))


def ensure_bucket(s3: S3Client, bucket: str) -> None:
    """Create a bucket where there is none; StorageError."""
    store = S3Store(s3, bucket)
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"].get("HTTPStatusCode") != 404:
            raise store.translate(error, "") from error
        try:
            s3.create_bucket(Bucket=bucket)
        except (ClientError, BotoCoreError) as refused:
            raise store.translate(refused, "") from refused
    except BotoCoreError as error:
        raise store.translate(error, "") from error


def _project(studio: Studio, wish: Wish) -> StudioProject:
    if wish.adopt is not None:
        return _adopted(studio, wish.adopt)
    classes = _classes(wish)
    label_config = make_label_config(classes)
    parse_label_config(label_config)  # before anything is made: a class may have a name that cannot be served
    project = studio.create_project(wish.config.name, label_config, instruction(classes))
    StudioWiring(studio.http).submit_with_enter()
    return project


def _adopted(studio: Studio, number: int) -> StudioProject:
    try:
        return studio.project(number)
    except StudioError as error:
        if error.status != 404:
            raise
        raise StudioError(
            f"Label Studio has no project {number}, or the token's account may not see it: the number stands in the "
            "address of its page, /projects/NUMBER",
            status=404,
        ) from error


def _classes(wish: Wish) -> tuple[str, ...]:
    classes = wish.config.labels or wish.classes
    if len(classes) < 2:
        raise LabelloopError(
            f"a new project needs its classes, two or more, and has {len(classes)}: list them under `labels:` in the "
            "config or with --classes cat,dog; or give --images DIR with class folders; or adopt a project that exists "
            "with --project ID"
        )
    return classes


def _storage(studio: Studio, settings: Settings, record: ProjectRecord) -> tuple[int, str]:
    """The storage's id, and which keys it takes."""
    fields = storage_fields(settings, record)
    for source in StudioWiring(studio.http).storages(record.id):
        if (source.bucket, source.prefix) == (fields["bucket"], fields["prefix"]):
            return source.id, source.pattern
    try:
        return int(studio.add_storage(record.id, **fields)["id"]), IMAGE_PATTERN
    except StudioError as error:
        raise StudioError(_blocked(error, "the S3 source storage").note, status=error.status) from error


def _backend(studio: Studio, settings: Settings, record: ProjectRecord) -> tuple[int | None, Finding]:
    url = settings.backend_url
    for backend in StudioWiring(studio.http).backends(record.id):
        if backend.url == url:
            return backend.id, fine("ML backend", f"connected: {url}")
    try:
        added = studio.add_backend(
            record.id, url, title=rules.TITLE, user=settings.backend_user, password=settings.backend_password or ""
        )
        return int(added["id"]), fine("ML backend", f"connected: {url}")
    except StudioError as error:
        return None, _blocked(error, "the ML backend")


def _blocked(error: StudioError, what: str) -> Finding:
    if BLOCKED in str(error) or error.status == 403:
        return wrong(what, f"Label Studio refuses its address as private ({error})", f"{storage.OPEN_SUBNETS}, then "
                     "run `labelloop init` again")  # fmt: skip
    return wrong(what, f"could not be connected: {error}", "fix what it names, then run `labelloop init` again")
