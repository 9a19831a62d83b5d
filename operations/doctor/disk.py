"""Room on this machine's disks."""

from __future__ import annotations

import shutil
from pathlib import Path

from operations.doctor.checks import DoctorCheck
from operations.doctor.finding import Finding, fine, warn, wrong
from operations.doctor.scene import Scene

AREA = "disk"
WARN_B, WRONG_B = 5_000_000_000, 500_000_000


def checks(scene: Scene) -> list[DoctorCheck]:
    """The cache, and the embedded stack's data where it is one."""
    cache = scene.settings.cache_dir
    disks = [DoctorCheck(AREA, "cache", lambda: look("cache", cache))]
    if stack := scene.deployment.stack:
        disks.append(DoctorCheck(AREA, "state", lambda: look("state", stack.directory)))
    return disks


def look(what: str, folder: Path) -> Finding:
    """Of the disk that holds a folder, which need not exist yet."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return room(what, folder, shutil.disk_usage(there).free)


def room(what: str, folder: Path, free: int) -> Finding:
    """``free`` in bytes."""
    space = f"{free / 1e9:.1f} GB free at {folder}"
    if free < WRONG_B:
        return wrong(what, space, "make room: writes are about to fail")
    if free < WARN_B:
        return warn(what, space, "make room, or move it: LABELLOOP_CACHE_DIR, --state-dir")
    return fine(what, space)
