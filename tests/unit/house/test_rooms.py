"""Rooms stay rooms: no folder becomes a heap, and who reads the environment or Label Studio's API is one room."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = (
    "api",
    "bench",
    "cli",
    "embedded",
    "labelloop",
    "ml_backend",
    "operations",
    "retrain_worker",
    "sync",
    "tests",
)
MOST = 22
READS_ENVIRONMENT = {
    "labelloop/config/settings.py",
    "labelloop/config/telemetry.py",  # tells libraries to send nothing
    "embedded/s3/__main__.py",  # a script of a foreign environment, which has no labelloop
    "retrain_worker/training/distributed.py",  # what torchrun tells its processes
}


def modules(*packages: str) -> list[Path]:
    return [p for package in packages for p in sorted((ROOT / package).rglob("*.py"))]


def test_no_folder_has_more_files_than_a_person_looks_through() -> None:
    sizes = Counter(p.parent.relative_to(ROOT).as_posix() for p in modules(*PACKAGES))
    assert {folder: size for folder, size in sizes.items() if size > MOST} == {}


def test_only_the_settings_read_the_environment() -> None:
    readers = set()
    for path in modules(*(p for p in PACKAGES if p not in {"bench", "tests"})):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}
            taken = isinstance(node, ast.ImportFrom) and node.module == "os"
            if named or (taken and {a.name for a in node.names} & {"environ", "getenv"}):
                readers.add(path.relative_to(ROOT).as_posix())
    assert readers == READS_ENVIRONMENT
