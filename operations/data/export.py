"""A project's labelled data in, one file or a tree of class folders out; a reader never sees half of either."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from labelloop import __version__
from labelloop.clock import now
from labelloop.errors import SettingsError
from labelloop.export.labels import COLUMNS, ExportFilter, ExportRow, csv_row, select, to_json
from labelloop.images.file_names import file_names, file_of
from labelloop.rules.schema import LabelRules
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord
from labelloop.store.snapshots import SnapshotStore
from operations.aside import aside_of, target_of
from operations.deployment import Deployment
from operations.history.snapshots import LATEST, load, resolve


@dataclass(frozen=True, slots=True)
class DataSet:
    """What is exported, and what it is."""

    rows: Sequence[ExportRow]
    classes: tuple[str, ...]  # of the project, in its order
    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: str
    format: str
    snapshot: str
    version: str | None
    tasks: int
    labelled: int
    copied: int = 0  # images fetched now
    kept: int = 0  # images that were there already
    removed: int = 0  # files of an earlier export that no longer belong there
    problems: dict[str, str] | None = None  # uri -> why the image is not there


def collect(deployment: Deployment, record: ProjectRecord, selection: ExportFilter, *, at: str | None) -> DataSet:
    """Read a snapshot (`latest`, a version's, or by id) with what is known of its images."""
    store = deployment.within(record)
    name = resolve(deployment, record, at or LATEST)
    snapshot = load(SnapshotStore(store), name)
    catalogue = Catalogue(store)
    catalogue.update()
    rules = LabelRules.of(record.config)
    names = file_names(store)
    rows = select(
        snapshot.tasks.values(), catalogue.images, selection, counting=rules.task,
        file_of=lambda uri: file_of(uri, record.image_uri, names),
    )  # fmt: skip
    return DataSet(rows, record.schema.classes, _info(deployment, record, selection, snapshot=name, at=at))


def write_csv(data: DataSet, path: Path) -> Exported:
    """One row per task."""

    def write(stream: TextIO) -> None:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(csv_row(row) for row in data.rows)

    replace_file(path, write)
    return exported(data, path, "csv")


def write_json(data: DataSet, path: Path) -> Exported:
    """One object per task with all its answers."""
    content = {"info": data.info, "classes": list(data.classes), "tasks": [to_json(row) for row in data.rows]}
    replace_file(path, lambda stream: json.dump(content, stream, ensure_ascii=False, indent=1))
    return exported(data, path, "json")


def exported(data: DataSet, path: Path, form: str) -> Exported:
    """The summary of a data set that was written to ``path``."""
    labelled = sum(row.label is not None for row in data.rows)
    return Exported(str(path), form, data.info["snapshot"], data.info["version"], len(data.rows), labelled)


def replace_file(path: Path, write: Callable[[TextIO], object]) -> None:
    """Write aside, then rename: the old file or the new one, never a part. SettingsError where it cannot be."""
    try:
        target = target_of(path, "labels.csv")
        aside = aside_of(target)
        try:
            with aside.open("w", encoding="utf-8", newline="") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(target)
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def _info(
    deployment: Deployment, record: ProjectRecord, selection: ExportFilter, *, snapshot: str, at: str | None
) -> dict[str, Any]:
    live = deployment.registry(record).live() if at in {None, LATEST} else None
    named = at if at and at.startswith("v") else None
    return {
        "project": record.title, "key": record.key, "snapshot": snapshot,
        "version": named or (live.version if live else None), "config": record.config.hash, "labelloop": __version__,
        "exported_at": now(), "filter": {k: v for k, v in asdict(selection).items() if v},
    }  # fmt: skip
