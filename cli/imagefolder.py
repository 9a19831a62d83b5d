"""A tree of class folders in, images under hidden names in object storage out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from labelloop.errors import SettingsError
from labelloop.records import Bucket
from labelloop.split import BucketShares, bucket_of, group_of
from labelloop.storage import ObjectStore

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One image of the tree; its class is known to us, and hidden from the loop."""

    path: Path
    label: str
    key: str  # object name: tells nothing of the class


def scan(folder: Path, prefix: str) -> list[LabelledFile]:
    """Every image of ``folder/<class>/``; SettingsError where there is no such tree."""
    if not folder.is_dir():
        raise SettingsError(f"{folder} is not a folder; give a tree of class folders: DIR/cat/1.jpg, DIR/dog/2.jpg")
    files = [
        LabelledFile(path, path.relative_to(folder).parts[0], f"{prefix}{_hidden(path.relative_to(folder))}")
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and len(path.relative_to(folder).parts) > 1
    ]
    if len({f.label for f in files}) < 2:
        raise SettingsError(f"{folder} holds {len({f.label for f in files})} class folders with images; two are needed")
    return files


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
        label: _train_files([f for f in files if f.label == label], shares)
        for label in sorted({f.label for f in files})
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
