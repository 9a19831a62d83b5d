"""A data set in, `manifest.json` and on demand the images in class folders out. Can be broken off and gone on with."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from labelloop.errors import ImageUnreadableError, SettingsError
from labelloop.export.folders import ExportedImage, manifest, places
from labelloop.images.reader import Reader
from labelloop.records.json import digest
from operations.data.export import DataSet, Exported, exported, replace_file
from operations.reporting import Report

MANIFEST = "manifest.json"
UNFINISHED = "manifest.json.unfinished"  # every file that this or a broken-off export may have put there
READERS = 8


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of one image."""

    place: ExportedImage
    fetched: bool = False
    problem: str | None = None


def write_folders(data: DataSet, root: Path, reader: Reader | None, report: Report) -> Exported:
    """The manifest; with a ``reader`` the images, too. Those that are there already are not fetched again.

    The manifest comes last: where it is, the tree is what it says.
    """
    where = places(data.rows)
    content = manifest(data.rows, where, data.classes, data.info)
    before = _open(root)
    names = {p.file_name for p in where.values()}
    try:
        _write(root / UNFINISHED, {"files": sorted(before | names)})
        (root / MANIFEST).unlink(missing_ok=True)
        copies = list(_copied(root, list(where.values()), reader, report)) if reader else []
        problems = {c.place.file_name: c.problem for c in copies if c.problem}
        removed = sum(_remove(root, name) for name in before - (names - problems.keys()))
        _write(root / MANIFEST, content | {"images": [_marked(i, problems) for i in content["images"]]})
        (root / UNFINISHED).unlink()
    except OSError as error:
        raise SettingsError(
            f"cannot write {error.filename or root}: {error.strerror}; the same command resumes"
        ) from error
    return replace(
        exported(data, root, "folders"), copied=sum(c.fetched for c in copies), removed=removed,
        kept=sum(not c.fetched and not c.problem for c in copies),
        problems={c.place.uri: c.problem for c in copies if c.problem},
    )  # fmt: skip


def _marked(image: Mapping[str, Any], problems: Mapping[str, str]) -> dict[str, Any]:
    """An image of the manifest, with the reason where its file is not there."""
    problem = problems.get(image["file_name"])
    return {**image, "problem": problem} if problem else dict(image)


def inside(root: Path, name: str) -> Path:
    """The file of that name below ``root``; SettingsError where it would lie elsewhere, also by a link."""
    pure = PurePosixPath(name)
    path = root.joinpath(*pure.parts)
    if pure.is_absolute() or ".." in pure.parts or not _real(path.parent).is_relative_to(_real(root)):
        raise SettingsError(f"{name!r} does not lie inside {root}: remove links and foreign manifests from there")
    return path


def _real(path: Path) -> Path:
    """Where links lead; a link that leads to itself leads nowhere, and is no error (`resolve` raises)."""
    return Path(os.path.realpath(path))


def _open(root: Path) -> set[str]:
    """Make the folder; returns the files that earlier exports left. SettingsError where it is somebody else's."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        ours = [p for p in (root / MANIFEST, root / UNFINISHED) if p.exists()]
        if not ours and any(root.iterdir()):
            raise SettingsError(f"{root} holds files that no export has put there: choose an empty or a new folder")
        return {name for path in ours for name in _files(json.loads(path.read_text()))}
    except OSError as error:
        raise SettingsError(f"cannot write {root}: {error.strerror}; choose another --out") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SettingsError(f"{root} has a {MANIFEST} that no export has written: choose another --out") from error


def _files(content: Mapping[str, Any]) -> list[str]:
    if "files" in content:
        return [str(name) for name in content["files"]]
    return [str(image["file_name"]) for image in content["images"]]


def _copied(root: Path, targets: Collection[ExportedImage], reader: Reader, report: Report) -> Iterator[Copied]:
    """Every image, by a few threads; the first trouble that is not one image's ends it, and what is done stays."""
    pool = ThreadPoolExecutor(READERS)
    try:
        for done, copied in enumerate(pool.map(partial(_copy, root, reader), targets), 1):
            report("copy images", done, len(targets))
            yield copied
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _copy(root: Path, reader: Reader, place: ExportedImage) -> Copied:
    path = inside(root, place.file_name)
    if place.sha256 and path.is_file() and digest(path.read_bytes()) == place.sha256:
        return Copied(place)
    try:
        data, _ = reader.read(place.uri)
    except ImageUnreadableError as error:
        return Copied(place, problem=str(error))
    if place.sha256 and digest(data) != place.sha256:
        return Copied(place, problem="its bytes changed since it was labelled: its label may be wrong now")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.write_bytes(data)
    aside.replace(path)
    return Copied(place, fetched=True)


def _remove(root: Path, name: str) -> bool:
    """An image that has another class now, or none, must not stay in its old folder."""
    path = inside(root, name)
    there = path.is_file()
    path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        path.parent.rmdir()
    return there


def _write(path: Path, content: Mapping[str, Any]) -> None:
    replace_file(path, lambda stream: json.dump(content, stream, ensure_ascii=False, indent=1))
