"""An object's key and bytes in, why they cannot be what was written out. Pure; one row for each kind that is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from labelloop.clock import parse
from labelloop.errors import CorruptObjectError
from labelloop.images.file_names import NAMES, names_from
from labelloop.images.mirror import copies_from
from labelloop.limits import inflated
from labelloop.objects.copies import PREFIX as COPIES
from labelloop.objects.formats import Kind, as_object, load, read, reading
from labelloop.records.batches import Batch
from labelloop.records.curve import KeptCurve
from labelloop.records.json import digest
from labelloop.records.snapshots import Latest
from labelloop.store.auto_labels import Manifest
from labelloop.store.catalogue import shard_from
from labelloop.store.configs import config_from
from labelloop.store.curve import KEY as CURVE
from labelloop.store.deleted import KEY as DELETED
from labelloop.store.deleted import deleted_from
from labelloop.store.features import index_from
from labelloop.store.lr_curves import LrCurve
from labelloop.store.pauses import KEY as PAUSED
from labelloop.store.pauses import Pause
from labelloop.store.projects import COPY, load_record
from labelloop.store.registry import INITIAL, backbone_from, entry_from, initial_from, version_from
from labelloop.store.requests import request_from
from labelloop.store.runs import run_from
from labelloop.store.scores import Scores
from labelloop.store.snapshots import CHANGED, LATEST
from labelloop.store.studies import study_from, trial_from
from labelloop.store.task_groups import shard_from as task_groups_from
from labelloop.upkeep.tidying import DONE, Tidied

Read = Callable[[bytes, str], object]


def fault_of(key: str, raw: bytes) -> str | None:
    """Why it is damaged; None where it is intact, or of no kind that is known. FormatError of a newer release."""
    if key.startswith(COPIES):
        return _of_copy(key, raw)
    reader = next((reader for pattern, reader in _READERS if pattern.fullmatch(key)), None)
    if reader is None:
        return None
    try:
        reader(raw, key)
    except CorruptObjectError as error:
        return error.reason
    return None


def is_known(key: str) -> bool:
    """Whether `fault_of` can judge it; others need not be fetched."""
    return key.startswith(COPIES) or any(pattern.fullmatch(key) for pattern, _ in _READERS)


def _of_copy(key: str, raw: bytes) -> str | None:
    try:
        with reading(key):
            inner = inflated(raw)
    except CorruptObjectError as error:
        return error.reason
    return fault_of(key.removeprefix(COPIES).removesuffix(".gz"), inner)


def _as(kind: Kind, record: type[Any]) -> Read:
    return lambda raw, key: load(kind, raw, record, key)


def _tidied(raw: bytes, key: str) -> None:
    tidied = load(Kind.TIDY, raw, Tidied, key)
    with reading(key):
        parse(tidied.at)


def _named_by_hash(unpack: Callable[[bytes], bytes]) -> Read:
    def check(raw: bytes, key: str) -> None:
        with reading(key):
            if digest(unpack(raw))[:32] != key.rsplit("/", 1)[-1].partition(".")[0]:
                raise ValueError(CHANGED)

    return check


def _object(raw: bytes, key: str) -> None:
    with reading(key):
        if not as_object(json.loads(raw)):
            raise ValueError("it is empty")


def _packed(raw: bytes, key: str) -> None:
    with reading(key):
        if not isinstance(json.loads(inflated(raw)), list):
            raise ValueError("it must be a list")  # noqa: TRY004 -- of the data


def _page(raw: bytes, key: str) -> None:
    with reading(key):
        if not raw.decode().rstrip().endswith("</html>"):
            raise ValueError("its end is missing")


def _manifest(raw: bytes, key: str) -> None:
    _named_by_hash(bytes)(raw, key)
    with reading(key):
        as_object(read(Kind.SNAPSHOT, raw, key)["shards"])


_READERS: tuple[tuple[re.Pattern[str], Read], ...] = tuple(
    (re.compile(pattern), reader)
    for pattern, reader in (
        (r"deployments/\d+\.json", entry_from),
        (r"models/versions/\d+\.json", version_from),
        (r"models/heads/.+\.safetensors", _named_by_hash(bytes)),
        (re.escape(INITIAL), initial_from),
        (r"backbones/[^/]+/backbone\.json", backbone_from),
        (r"task-groups/.+\.json", task_groups_from),
        (r"catalogue/.+\.jsonl", shard_from),
        (r"features/[^/]+/index/.+\.json", index_from),
        (r"mirror/index/.+\.jsonl", copies_from),
        (re.escape(LATEST), _as(Kind.LATEST, Latest)),
        (r"snapshots/manifests/.+\.json", _manifest),
        (r"snapshots/shards/.+\.jsonl\.gz", _named_by_hash(inflated)),
        (r"runs/.+\.json", run_from),
        (r"requests/.+\.json", request_from),
        (r"configs/.+\.json", config_from),
        (r"scores/.+\.json", _as(Kind.SCORES, Scores)),
        (re.escape(PAUSED), _as(Kind.PAUSE, Pause)),
        (r"studies/[^/]+/study\.json", study_from),
        (r"studies/[^/]+/trials/.+\.json", trial_from),
        (r"lr_curves/.+\.json", _as(Kind.LR_CURVE, LrCurve)),
        (r"batches/[^/]+/batch\.json", _as(Kind.BATCH, Batch)),
        (r"batches/.+\.json\.gz", _packed),
        (r"auto-labels/.+\.json", _as(Kind.AUTO_LABELS, Manifest)),
        (re.escape(CURVE), _as(Kind.CURVE, KeptCurve)),
        (r"reports/.+\.json", _object),
        (r"reports/.+\.html", _page),
        (re.escape(DONE), _tidied),
        (re.escape(DELETED), lambda raw, _key: deleted_from(raw)),
        (re.escape(NAMES), lambda raw, _key: names_from(raw)),
        (re.escape(COPY), lambda raw, _key: load_record(raw, None, COPY)),
        (r"set-up\.json", _object),
        (r"checkpoints/.+/note\.json", _object),
    )
)
