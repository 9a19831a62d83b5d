"""Exported rows in, a manifest of class folders out, with file names that are safe on every system. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from labelloop.export.labels import ExportRow
from labelloop.records.json import digest

UNLABELLED = "_skipped"  # folder of images without a class
LONGEST = 120  # bytes of a name: with what is added it stays below every file system's limit
PLAIN = " ._-+()[]"
DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """Where one image goes."""

    uri: str
    file_name: str  # class/name, with forward slashes
    sha256: str  # empty: not known


def safe_name(name: str) -> str:
    """A file name without anything that a system could take for a path, an option or a device."""
    text = unicodedata.normalize("NFC", name)
    text = "".join(c if unicodedata.category(c)[0] in "LMN" or c in PLAIN else "_" for c in text)
    text = _cut(text).strip(" .")
    if not text or text.startswith("-") or text.partition(".")[0].strip().lower() in DEVICES:
        text = f"_{text}"
    return text


def unique_names(names: Mapping[str, str]) -> dict[str, str]:
    """Key -> safe name, no two the same on any system; those that clash get a part of their key's hash."""
    named = _named(names, lambda clashing, exact: clashing and not exact, 8)
    if _distinct(named):
        return named
    return _named(names, lambda _clashing, _exact: True, 32)  # somebody named a file like a hash of ours


def places(rows: Sequence[ExportRow]) -> dict[tuple[str, str | None], ExportedImage]:
    """(uri, label) -> where the image goes. One image with two labels goes to both folders."""
    folders = folder_names([row.label for row in rows])
    exported: dict[tuple[str, str | None], ExportedImage] = {}
    for label, folder in folders.items():
        images = {row.task.uri: row for row in rows if row.label == label}
        names = unique_names({uri: uri.rsplit("/", 1)[-1] for uri in sorted(images)})
        for uri, name in names.items():
            facts = images[uri].facts
            exported[uri, label] = ExportedImage(uri, f"{folder}/{name}", facts.sha256 if facts else "")
    return exported


def folder_names(labels: Sequence[str | None]) -> dict[str | None, str]:
    """Class -> folder."""
    classes = sorted({label for label in labels if label is not None})
    named = unique_names({f"class {name}": name for name in classes} | {"none": UNLABELLED})
    folders: dict[str | None, str] = {name: named[f"class {name}"] for name in classes}
    return folders | ({None: named["none"]} if None in labels else {})


def manifest(
    rows: Sequence[ExportRow], where: Mapping[tuple[str, str | None], ExportedImage], classes: Sequence[str],
    info: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """COCO's form as far as it goes for whole images: one category per class, one annotation per labelled task."""
    labels = [row.label for row in rows if row.label is not None]
    order = list(dict.fromkeys([*classes, *sorted(labels)]))
    categories = {name: i for i, name in enumerate(order, 1)}
    images = {key: i for i, key in enumerate(where, 1)}
    facts = {(row.task.uri, row.label): row for row in rows}
    numbers = count(1)
    return {
        "info": dict(info),
        "categories": [{"id": i, "name": name} for name, i in categories.items()],
        "images": [_image(i, where[key], facts[key]) for key, i in images.items()],
        "annotations": [
            _annotation(next(numbers), images[row.task.uri, row.label], categories[row.label], row)
            for row in rows
            if row.label is not None
        ],
    }


def _image(number: int, place: ExportedImage, row: ExportRow) -> dict[str, Any]:
    facts = row.facts
    return {
        "id": number, "file_name": place.file_name, "uri": place.uri, "bucket": row.split or None,
        "etag": facts.etag if facts else None, "sha256": place.sha256 or None,
        "file": row.file,
    }  # fmt: skip


def _annotation(number: int, image: int, category: int, row: ExportRow) -> dict[str, Any]:
    answer = row.counted
    assert answer is not None  # whatever has a class has an answer that gives it
    return {
        "id": number, "image_id": image, "category_id": category, "task_id": row.task.id, "annotation_id": answer.id,
        "annotator": answer.completed_by, "created": answer.created_at, "updated": answer.updated_at,
        "lead_time_s": answer.lead_time_s, "ground_truth": answer.ground_truth, "seed": answer.seed,
    }  # fmt: skip


def _named(names: Mapping[str, str], marked: Callable[[bool, bool], bool], letters: int) -> dict[str, str]:
    safe = {key: safe_name(name) for key, name in names.items()}
    groups: dict[str, list[str]] = {}
    for key, name in safe.items():
        groups.setdefault(_folded(name), []).append(key)
    unique = {}
    for key, name in safe.items():
        same = groups[_folded(name)]
        exact = name == names[key] and sum(safe[k] == names[k] for k in same) == 1
        unique[key] = _with_hash(name, key, letters) if marked(len(same) > 1, exact) else name
    return unique


def _cut(text: str) -> str:
    """At most `LONGEST` bytes, the suffix kept."""
    if len(text.encode()) <= LONGEST:
        return text
    stem, dot, suffix = text.rpartition(".")
    tail = f".{suffix}" if dot and len(suffix.encode()) < 12 else ""
    return (stem if tail else text).encode()[: LONGEST - len(tail.encode())].decode(errors="ignore") + tail


def _with_hash(name: str, key: str, letters: int) -> str:
    stem, dot, suffix = name.rpartition(".")
    mark = digest(key.encode())[:letters]
    return f"{stem}-{mark}.{suffix}" if dot and stem else f"{name}-{mark}"


def _distinct(named: Mapping[str, str]) -> bool:
    return len({_folded(name) for name in named.values()}) == len(named)


def _folded(name: str) -> str:
    """What a file system that knows no case makes of it."""
    return unicodedata.normalize("NFKC", name).casefold()
