"""Object storage, from everywhere that needs it: here, Label Studio, the browser. The backend's way is in `backend`."""

from __future__ import annotations

import secrets
from functools import partial
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from labelloop.errors import AlreadyExistsError, NotFoundError, StorageError
from labelloop.objects.storage import ObjectStore
from labelloop.store.projects import ProjectRecord
from labelloop.studio.wiring import BLOCKED, SourceStorage
from operations.doctor import studio
from operations.doctor.checks import FIRST_S, DoctorCheck
from operations.doctor.finding import Finding, fine, warn, wrong
from operations.doctor.project import INIT, area_of
from operations.doctor.scene import Scene
from operations.doctor.settings import LOOPBACK
from operations.source import storage_fields

AREA = "S3"
REACHED = "the state bucket"
PROBE = "doctor/"  # beside the projects; removed again
OPEN_SUBNETS = (
    "start Label Studio with USE_DEFAULT_BANNED_SUBNETS=false and USER_ADDITIONAL_BANNED_SUBNETS=169.254.0.0/16"
)


def first(scene: Scene) -> list[DoctorCheck]:
    """What all projects need."""
    return [DoctorCheck(AREA, REACHED, lambda: reached(scene), limit_s=FIRST_S)]


def checks(scene: Scene) -> list[DoctorCheck]:
    """What the deployment's buckets can do."""
    return [
        DoctorCheck(AREA, "write, read, delete", lambda: probe(scene.deployment.store), (REACHED,)),
        DoctorCheck(AREA, "conditional write", lambda: conditional(scene.deployment.store), (REACHED,)),
        *[
            DoctorCheck(AREA, f"bucket {b}", partial(readable, scene, b), (REACHED,))
            for b in scene.settings.image_buckets
        ],
    ]


def of_project(scene: Scene, record: ProjectRecord) -> list[DoctorCheck]:
    """From Label Studio and from the browser."""
    area, needs = area_of(record), (REACHED, studio.REACHED, studio.TOKEN)
    return [
        DoctorCheck(area, "S3 source", lambda: source(_ours(scene, record), record), needs),
        DoctorCheck(area, "S3 from Label Studio", lambda: from_studio(scene, record), needs),
        DoctorCheck(area, "images in the browser", lambda: in_browser(_ours(scene, record)), needs),
        DoctorCheck(area, "an image through Label Studio", lambda: through_studio(scene, record), needs),
    ]


def reached(scene: Scene) -> Finding:
    """Endpoint, keys and bucket in one."""
    where = scene.settings.s3_endpoint or "AWS"
    bucket = scene.settings.state_bucket
    try:
        scene.deployment.s3.head_bucket(Bucket=bucket)
        return fine(REACHED, f"{bucket} at {where}")
    except ClientError as error:
        status = int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0))
        if status == 404:
            return wrong(REACHED, f"there is no bucket {bucket} at {where}", "`labelloop init` makes it, or correct "
                         "LABELLOOP_STATE_BUCKET")  # fmt: skip
        return wrong(REACHED, f"{where} answers {status} for bucket {bucket}", "check LABELLOOP_S3_ACCESS_KEY, "
                     "LABELLOOP_S3_SECRET_KEY and the bucket's policy")  # fmt: skip
    except BotoCoreError as error:
        return wrong(REACHED, f"{where} cannot be reached: {error}", "see that it runs, and LABELLOOP_S3_ENDPOINT is "
                     "right")  # fmt: skip


def probe(store: ObjectStore) -> Finding:
    """What every service does all the time."""
    what, key, data = "write, read, delete", f"{PROBE}{secrets.token_hex(6)}", secrets.token_bytes(16)
    try:
        store.put(key, data)
        same = store.get(key) == data
        store.delete(key)
        deleted = not store.exists(key)
    except StorageError as error:
        return wrong(what, str(error), "let the S3 user list, get, put and delete in the state bucket")
    if same and deleted:
        return fine(what, "all three work")
    return wrong(what, "what was written is not what is read" if not same else "a deleted object is still there",
                 "use an S3 server that is consistent after a write")  # fmt: skip


def conditional(store: ObjectStore) -> Finding:
    """Versions and deployments are claimed by a write that must not overwrite."""
    what, key = "conditional write", f"{PROBE}{secrets.token_hex(6)}"
    try:
        store.put(key, b"first", if_absent=True)
        try:
            store.put(key, b"second", if_absent=True)
        except AlreadyExistsError:
            return fine(what, "If-None-Match is honoured")
        return wrong(what, "If-None-Match is ignored: a version could be overwritten", "use an S3 server that honours "
                     "conditional writes (AWS, SeaweedFS, Ceph, recent MinIO)")  # fmt: skip
    except StorageError as error:
        return wrong(what, str(error), "let the S3 user put and delete in the state bucket")
    finally:
        _leave_nothing(store, key)


def readable(scene: Scene, name: str) -> Finding:
    """Images come from here."""
    what = f"bucket {name}"
    try:
        scene.deployment.s3.list_objects_v2(Bucket=name, MaxKeys=1)
        return fine(what, "can be listed")
    except ClientError as error:
        code = error.response["Error"].get("Code", "")
        if code in {"NoSuchBucket", "404"}:
            return wrong(what, "does not exist", "create it, or remove it from LABELLOOP_IMAGE_BUCKETS")
        return wrong(what, f"cannot be listed: {code}", "let the S3 user list and get in it")
    except BotoCoreError as error:
        return wrong(what, f"cannot be listed: {error}", "see that the S3 server answers")


def source(storage: SourceStorage | None, record: ProjectRecord) -> Finding:
    """Where new images become tasks."""
    what = "S3 source"
    if storage is None:
        return wrong(what, f"no source storage for {record.image_uri}", INIT)
    if storage.status == "failed":
        return wrong(what, f"its last sync failed: {storage.trouble}", "look at 'S3 from Label Studio' here and at the "
                     "storage under Settings > Cloud Storage")  # fmt: skip
    return fine(what, f"{record.image_uri}, {storage.status}")


def from_studio(scene: Scene, record: ProjectRecord) -> Finding:
    """Label Studio is asked to try; it keeps nothing of it."""
    trouble = scene.wiring.trouble_with_s3(record.id, storage_fields(scene.settings, record))
    return tried(trouble, scene.settings.s3_endpoint or "AWS")


def tried(trouble: str, endpoint: str) -> Finding:
    """What Label Studio said to a trial with our endpoint and keys."""
    what = "S3 from Label Studio"
    if not trouble:
        return fine(what, f"{endpoint} can be reached and read")
    if BLOCKED in trouble:
        return wrong(what, f"Label Studio refuses {endpoint} as a private address", OPEN_SUBNETS)
    return wrong(what, f"Label Studio cannot read it at {endpoint}: {trouble}", "see that this address and these keys "
                 "work from Label Studio's machine, and that the bucket and the prefix hold images")  # fmt: skip


def in_browser(storage: SourceStorage | None) -> Finding:
    """Streamed through Label Studio, or fetched from S3 by the person's browser itself."""
    what = "images in the browser"
    if storage is None or not storage.presigned:
        return fine(what, "streamed through Label Studio")
    host = urlsplit(storage.endpoint or "").hostname or ""
    if host and (host in LOOPBACK or "." not in host):
        return warn(what, f"the browser is sent to {storage.endpoint}, which only this machine or its containers know",
                    "turn 'Use pre-signed URLs' off for the storage under Settings > Cloud Storage")  # fmt: skip
    return fine(what, f"fetched from {storage.endpoint or 'AWS'} by pre-signed address")


def through_studio(scene: Scene, record: ProjectRecord) -> Finding:
    """One real image, with the keys that Label Studio keeps."""
    what = "an image through Label Studio"
    ours = _ours(scene, record)
    if ours is not None and ours.presigned:
        return fine(what, "not asked for: the browser fetches images itself")
    page = next(iter(scene.studio.all_tasks(record.id, record.schema)), [])
    stub = next((s for s in page if s.uri.startswith(record.image_uri)), None)
    if stub is None:
        return fine(what, "there is no task yet")
    data = scene.studio.image(stub.id, stub.uri)
    if data:
        return fine(what, f"{len(data):,} bytes of {stub.uri}")
    return wrong(what, f"nothing of {stub.uri}", "the keys that Label Studio keeps may be old: run `labelloop rotate`")


def _ours(scene: Scene, record: ProjectRecord) -> SourceStorage | None:
    return next((s for s in scene.storages(record) if s.id == record.storage_id), None)


def _leave_nothing(store: ObjectStore, key: str) -> None:
    try:
        store.delete(key)
    except (NotFoundError, StorageError):  # said by the write's own check
        return
