"""A folder of images in, with class folders or a list of labels or neither; images under hidden names in S3 out."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from labelloop.errors import SettingsError
from labelloop.images import SUFFIXES
from labelloop.names import encodable
from labelloop.records import Bucket
from labelloop.split import BucketShares, bucket_of, group_of
from labelloop.storage import ObjectStore

LABELS = "labels.csv"  # in the folder: file,label


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One image of the folder; its class, where it is known to us, is hidden from the loop."""

    path: Path
    label: str | None
    key: str  # object name: tells nothing of the class


def scan(folder: Path, prefix: str, labels: Path | None = None) -> list[LabelledFile]:
    """Every image of a folder, by name; SettingsError says what is wrong, and in which file or row.

    The classes come from ``labels`` or a `labels.csv` in the folder, else from class folders (``folder/<class>/``),
    else from nowhere: then the images lie in the folder itself.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder; give one with images, e.g. class folders: DIR/cat/1.jpg")
    found = _image_files(folder)
    paths = [p for p in found if not _is_lost(p.relative_to(folder))]
    if not paths:
        names = f"; the names of {len(found)} are not UTF-8: rename them" if found else ""
        raise SettingsError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}){names}")
    if labels or (folder / LABELS).is_file():
        given = read_labels(labels or folder / LABELS, folder)
        return [_file(path, given.get(path), folder, prefix) for path in paths]
    nested = [p for p in paths if p.parent != folder]
    files = [_file(path, path.relative_to(folder).parts[0], folder, prefix) for path in nested]
    if len(classes_of(files)) > 1:
        return files
    if len(nested) < len(paths):  # images lie right in it
        return [_file(path, None, folder, prefix) for path in paths]
    raise SettingsError(
        f"{folder} holds one class folder with images ({files[0].label}); give two or more, or put the images right "
        f"into {folder}, with a {LABELS} (file,label) or --classes"
    )


def left_out(folder: Path) -> list[Path]:
    """Images whose names cannot be carried: no class, no address and no JSON could hold them."""
    return [p for p in _image_files(folder) if _is_lost(p.relative_to(folder))]


def _image_files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]


def _is_lost(path: Path) -> bool:
    return str(path) != encodable(str(path))


def read_labels(table: Path, folder: Path) -> dict[Path, str]:
    """Image -> class, from a CSV file with the columns `file` (relative to the folder) and `label`; SettingsError.

    A row without a label says nothing of its image.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as text:
            rows = csv.DictReader(text)
            names = {name.strip().lower(): name for name in rows.fieldnames or () if name}
            if not {"file", "label"} <= names.keys():
                raise SettingsError(f"{table} must begin with the line `file,label`; it begins with {rows.fieldnames}")
            found: dict[Path, tuple[str, int]] = {}
            for row in rows:
                label = (row[names["label"]] or "").strip()
                if label:
                    _take(
                        found, _path(row[names["file"]], folder, f"{table}, line {rows.line_num}"), label, rows.line_num
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"cannot read the labels {table}: {error}; it must be a CSV file in UTF-8") from error
    return {path: label for path, (label, _) in found.items()}


def _take(found: dict[Path, tuple[str, int]], path: Path, label: str, line: int) -> None:
    before = found.setdefault(path, (label, line))
    if before[0] != label:
        raise SettingsError(
            f"line {line} says that {path.name} is {label!r}, line {before[1]} that it is {before[0]!r}: keep one"
        )


def _path(name: str | None, folder: Path, where: str) -> Path:
    path = folder / (name or "").strip()
    if not name or "\0" in name or not _is_within(path, folder) or path.suffix.lower() not in SUFFIXES:
        raise SettingsError(f"{where}: {name!r} is no image of {folder}; write paths relative to it, e.g. cat/1.jpg")
    if not path.is_file():
        raise SettingsError(f"{where}: there is no {name!r} in {folder}; correct the name, or take the line out")
    return path


def _is_within(path: Path, folder: Path) -> bool:
    """Also where links lead; one that leads to itself is no error here (`resolve` raises)."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _file(path: Path, label: str | None, folder: Path, prefix: str) -> LabelledFile:
    return LabelledFile(path, label, f"{prefix}{_hidden(path.relative_to(folder))}")


def classes_of(files: Sequence[LabelledFile]) -> tuple[str, ...]:
    """The classes that occur, by name."""
    return tuple(sorted({f.label for f in files if f.label is not None}))


def require_labels(files: Sequence[LabelledFile], what: str) -> dict[str, str]:
    """Object name -> class of every image; SettingsError where one has none. ``what`` needs them."""
    without = [f for f in files if f.label is None]
    if without:
        raise SettingsError(
            f"{what} needs the class of every image: {len(without)} of {len(files)} have none, e.g. {without[0].path}; "
            f"add them to {LABELS} (file,label), or sort the images into class folders"
        )
    return {f.key: f.label for f in files if f.label is not None}


def upload(store: ObjectStore, files: Sequence[LabelledFile], prefix: str, report: Callable[[int], None]) -> int:
    """Put what is not there yet; returns how many were new. ``report`` gets the number done."""
    present = {info.key for info in store.list(prefix)}
    new = [f for f in files if f.key not in present]
    with ThreadPoolExecutor(8) as pool:
        for done, _ in enumerate(pool.map(lambda f: store.put(f.key, f.path.read_bytes()), new), 1):
            report(done)
    return len(new)


def pick_seeds(files: Sequence[LabelledFile], count: int, shares: BucketShares) -> list[LabelledFile]:
    """``count`` images of the train bucket, the classes in turn; the same ones every time."""
    queues: Mapping[str, Iterator[LabelledFile]] = {
        label: _train_files([f for f in files if f.label == label], shares) for label in classes_of(files)
    }
    picked: list[LabelledFile] = []
    while len(picked) < count:
        before = len(picked)
        for queue in queues.values():
            found = next(queue, None)
            if found and len(picked) < count:
                picked.append(found)
        if len(picked) == before:
            break
    return picked


def _train_files(files: Sequence[LabelledFile], shares: BucketShares) -> Iterator[LabelledFile]:
    """In the order of their hidden names, which is as good as random. Read only as far as they are needed."""
    for file in sorted(files, key=lambda f: f.key):
        if bucket_of(group_of(file.path.read_bytes()), shares) is Bucket.TRAIN:
            yield file


def _hidden(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:16] + path.suffix.lower()
