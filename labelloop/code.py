"""Which code a process runs: the release, and a hash of the sources, since two builds may share a release's number."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from labelloop import __version__

PACKAGES = ("cli", "labelloop", "ml_backend", "retrain_worker", "sync")


@functools.cache
def code_version() -> str:
    """E.g. `0.1.0+3f2a9c1b`, as it was when this process first asked."""
    root = Path(__file__).parent.parent
    found = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            found.update(str(path.relative_to(root)).encode())
            found.update(path.read_bytes())
    return f"{__version__}+{found.hexdigest()[:8]}"
