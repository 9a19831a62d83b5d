"""Features and decoded images on this machine's disk: no larger than they may be, and none of what is gone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

FEATURES = "features"  # by backbone
PIXELS = "pixels"  # by preprocessing
FRESH_S = 3600

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CachedFolder:
    """One project's local features under one backbone, or its images after one preprocessing."""

    path: Path
    size: int
    used_at: float  # unix seconds

    @property
    def kind(self) -> str:
        return self.path.parent.name

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def project(self) -> str:
        return self.path.parent.parent.name


def folder(project: Path, backbone: str) -> Path:
    """Where a project's copies under one backbone lie; ``project``: its folder in the cache."""
    return project / FEATURES / backbone


def pixel_folder(project: Path, preprocessing: str) -> Path:
    """Where a project's images lie as they are after one preprocessing."""
    return project / PIXELS / preprocessing


def mark_used(path: Path) -> None:
    """Remember that these copies were needed now; nothing where there are none yet."""
    with suppress(FileNotFoundError):
        os.utime(path)


def copies(root: Path) -> list[CachedFolder]:
    """Everything in the cache."""
    paths = sorted(path for kind in (FEATURES, PIXELS) for path in root.glob(f"*/{kind}/*"))
    return [entry for path in paths if (entry := _look(path))]


def surplus(folders: Iterable[CachedFolder], limit: int) -> list[CachedFolder]:
    """What has to go for the rest to have at most ``limit`` bytes: the longest unused first, never the last used."""
    newest_first = sorted(folders, key=lambda c: c.used_at, reverse=True)
    total, excess = 0, []
    for i, copy in enumerate(newest_first):
        total += copy.size
        if i and total > limit:
            excess.append(copy)
            total -= copy.size
    return excess


def bound(root: Path, limit: int) -> list[CachedFolder]:
    """Remove the surplus. A reader of a copy at this moment goes on, or fetches it again."""
    return _remove(surplus(copies(root), limit), "the cache is full")


def clear(root: Path, project: str, kept: Mapping[str, Collection[str]]) -> list[CachedFolder]:
    """Remove a project's features of what is gone. ``kept``: backbone -> shards; returns whole backbones that went."""
    folders = [c for c in copies(root) if c.project == project and c.kind == FEATURES]
    for copy in folders:
        _clear_files(copy.path, kept.get(copy.name, ()))
    return _remove([c for c in folders if c.name not in kept], "their backbone is gone")


def _clear_files(path: Path, shards: Collection[str]) -> None:
    """Files of shards that are gone; not those that were fetched a moment ago: nobody could know of them yet."""
    for file in path.glob("*"):
        with suppress(OSError):
            if file.name.partition(".")[0] not in shards and time.time() - file.stat().st_mtime > FRESH_S:
                file.unlink()


def _look(path: Path) -> CachedFolder | None:
    try:
        with os.scandir(path) as entries:
            size = sum(entry.stat().st_size for entry in entries)
        return CachedFolder(path, size, path.stat().st_mtime)
    except OSError:  # another process removes it, too, or it is no folder
        return None


def _remove(folders: Sequence[CachedFolder], why: str) -> list[CachedFolder]:
    for copy in folders:
        shutil.rmtree(copy.path, ignore_errors=True)
        log.info("removed local copies", action="cache", project=copy.project, kind=copy.kind, name=copy.name,
                 bytes=copy.size, why=why)  # fmt: skip
    return list(folders)
