"""Which code a process runs: the release, and a hash of the sources, since two builds may share a release's number."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from labelloop import __version__

PACKAGES = ("cli", "embedded", "labelloop", "ml_backend", "operations", "retrain_worker", "sync")
TRAINING = (  # what decides what a fine-tune learns from the same snapshot, config and seed
    "labelloop/decoding/*.py", "labelloop/model/cnn.py", "labelloop/model/head.py", "labelloop/model/neck.py",
    "labelloop/model/net.py", "labelloop/model/pixels.py", "labelloop/rules/split.py",
    "retrain_worker/evidence/collect.py", "retrain_worker/evidence/examples.py", "retrain_worker/heads/logistic.py",
    "retrain_worker/training/*.py",
)  # fmt: skip


@functools.cache
def code_version() -> str:
    """E.g. `0.1.0+3f2a9c1b`, as it was when this process first asked."""
    return f"{__version__}+{_hash(*(f'{package}/**/*.py' for package in PACKAGES))}"


@functools.cache
def training_code() -> str:
    """A hash of what a fine-tune depends on: a release that changes nothing of it has the same one."""
    return _hash(*TRAINING)


def _hash(*patterns: str) -> str:
    root = Path(__file__).parent.parent
    sources = hashlib.sha256()
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            sources.update(str(path.relative_to(root)).encode())
            sources.update(path.read_bytes())
    return sources.hexdigest()[:8]
