"""A folder of images in, with class folders or a list of labels or neither; images under their names in S3 out.

A name that shows the class is hidden: people label what they see. What the files are called is kept for exports.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from labelloop.config.shares import SplitShares
from labelloop.decoding.endings import HEAD, NO_ENDING, SUFFIXES, no_format, no_image
from labelloop.errors import SettingsError
from labelloop.images.reader import LeftOut
from labelloop.names import LONGEST, carried, encodable
from labelloop.objects.storage import ObjectStore
from labelloop.records.images import Split
from labelloop.rules.split import group_of, split_of

LABELS = "labels.csv"  # in the folder: file,label
NOT_UTF8 = "its name is not UTF-8: rename it"


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One image of the folder; its class, where it is known to us, is hidden from the loop."""

    path: Path
    label: str | None
    key: str  # object name: says nothing of the class
    name: str = ""  # relative to the folder, with /


def scan(folder: Path, prefix: str, labels: Path | None = None, classes: Collection[str] = ()) -> list[LabelledFile]:
    """Every image of a folder, by name; SettingsError says what is wrong, and in which file or row.

    The classes come from ``labels`` or a `labels.csv` in the folder, else from class folders (``folder/<class>/``),
    else from nowhere: the images lie in the folder itself, or in folders that are none of the given ``classes``.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder; give one with images, e.g. class folders: DIR/cat/1.jpg")
    paths, others = _image_files(folder)
    if not paths:
        names = "".join(f"; {n.count} left out: {why}" for why, n in others.items())
        raise SettingsError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}){names}")
    if labels or (folder / LABELS).is_file():
        by_path = read_labels(labels or folder / LABELS, folder)
        return _keyed([(path, by_path.get(path)) for path in paths], folder, prefix)
    nested = {path: path.relative_to(folder).parts[0] for path in paths if path.parent != folder}
    of = set(nested.values())
    if len(of) > 1 and (not classes or not of.isdisjoint(classes)):
        return _keyed(nested.items(), folder, prefix)
    if len(nested) < len(paths) or (classes and of.isdisjoint(classes)):
        return _keyed([(path, None) for path in paths], folder, prefix)
    raise SettingsError(
        f"{folder} holds one class folder with images ({min(of)}); give two or more, or put the images right "
        f"into {folder}, with a {LABELS} (file,label) or --classes"
    )


def left_out(folder: Path) -> dict[str, LeftOut]:
    """Files that are no images of the project, by reason; none of those that programs hide."""
    return _image_files(folder)[1]


def _image_files(folder: Path) -> tuple[list[Path], dict[str, LeftOut]]:
    images: list[Path] = []
    others: dict[str, LeftOut] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder)
        why = _no_image(path, str(name))
        if why is None:
            images.append(path)
        elif not path.name.startswith(".") and str(name) != LABELS:
            before = others.get(why, LeftOut(0, str(name)))
            others[why] = LeftOut(before.count + 1, before.example)
    return images, others


def _no_image(path: Path, name: str) -> str | None:
    """Why a file is no image: by the rule that listings go by."""
    why = no_image(path.name)
    if why == NO_ENDING:
        try:
            with path.open("rb") as stream:
                why = no_format(stream.read(HEAD))
        except OSError as error:
            return f"it cannot be read ({error.strerror})"
    return why or (NOT_UTF8 if name != encodable(name) else None)


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
            labels: dict[Path, tuple[str, int]] = {}
            for row in rows:
                label = (row[names["label"]] or "").strip()
                if label:
                    path = _path(row[names["file"]], folder, f"{table}, line {rows.line_num}")
                    _take(labels, path, label, rows.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"cannot read the labels {table}: {error}; it must be a CSV file in UTF-8") from error
    return {path: label for path, (label, _) in labels.items()}


def _take(labels: dict[Path, tuple[str, int]], path: Path, label: str, line: int) -> None:
    before = labels.setdefault(path, (label, line))
    if before[0] != label:
        raise SettingsError(
            f"line {line} says that {path.name} is {label!r}, line {before[1]} that it is {before[0]!r}: keep one"
        )


def _path(name: str | None, folder: Path, where: str) -> Path:
    path = folder / (name or "").strip()
    within = bool(name) and "\0" not in (name or "") and _is_within(path, folder)
    if not within or no_image(path.name) not in {None, NO_ENDING}:
        raise SettingsError(f"{where}: {name!r} is no image of {folder}; write paths relative to it, e.g. cat/1.jpg")
    if not path.is_file():
        raise SettingsError(f"{where}: there is no {name!r} in {folder}; correct the name, or delete the line")
    return path


def _is_within(path: Path, folder: Path) -> bool:
    """Also where links lead; one that leads to itself is no error here (`resolve` raises)."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _keyed(labelled: Iterable[tuple[Path, str | None]], folder: Path, prefix: str) -> list[LabelledFile]:
    """Under their names, but for those in a folder that is called like a class."""
    rows = [(path, label, path.relative_to(folder)) for path, label in labelled]
    telling = {label.casefold() for _, label, _ in rows if label is not None}
    taken: set[str] = set()
    files = []
    for path, label, name in rows:
        hides = any(part.casefold() in telling for part in name.parts[:-1])
        key = _hidden(name) if hides else carried(name.as_posix(), LONGEST - len(prefix.encode()))
        if key in taken:  # somebody has named a file like the mark of another
            key = _hidden(name)
        taken.add(key)
        files.append(LabelledFile(path, label, prefix + key, name.as_posix()))
    return files


def as_uploaded(files: Sequence[LabelledFile], present: Collection[str], prefix: str) -> list[LabelledFile]:
    """Files keep the keys that an earlier upload gave them, hidden or not: nothing becomes a second task."""
    return [replace(f, key=next((k for k in (f.key, *_keys(f.name, prefix)) if k in present), f.key)) for f in files]


def _keys(name: str, prefix: str) -> tuple[str, str]:
    """The two that a file may have: hidden, and by its name."""
    return prefix + _hidden(Path(name)), prefix + carried(name, LONGEST - len(prefix.encode()))


def names_apart(files: Iterable[LabelledFile], prefix: str) -> dict[str, str]:
    """Key -> name of the file, where the key does not show it."""
    return {f.key: f.name for f in files if f.name and f.key != prefix + f.name}


def renamed(files: Iterable[LabelledFile], prefix: str) -> list[LabelledFile]:
    """Those whose own names no key can hold."""
    return [f for f in files if f.name and f.key not in {prefix + f.name, prefix + _hidden(Path(f.name))}]


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


def pick_seeds(files: Sequence[LabelledFile], count: int, shares: SplitShares) -> list[LabelledFile]:
    """``count`` images of the train split, the classes in turn; the same ones every time."""
    queues: Mapping[str, Iterator[LabelledFile]] = {
        label: _train_files([f for f in files if f.label == label], shares) for label in classes_of(files)
    }
    picked: list[LabelledFile] = []
    while len(picked) < count:
        before = len(picked)
        for queue in queues.values():
            image = next(queue, None)
            if image and len(picked) < count:
                picked.append(image)
        if len(picked) == before:
            break
    return picked


def _train_files(files: Sequence[LabelledFile], shares: SplitShares) -> Iterator[LabelledFile]:
    """In the order of their names' hashes, which is as good as random. Read only as far as they are needed."""
    for file in sorted(files, key=lambda f: _hidden(Path(f.name)) if f.name else f.key):
        if split_of(group_of(file.path.read_bytes()), shares) is Split.TRAIN:
            yield file


def _hidden(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:16] + path.suffix.lower()
