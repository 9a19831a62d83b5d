"""The code that a record names, and the part of it that a fine-tune depends on."""

from __future__ import annotations

import ast
from pathlib import Path

from labelloop import __version__, code

ROOT = Path(code.__file__).parent.parent
WITHOUT_BEARING = {  # stores, records, and settings whose values the config's hash covers
    "labelloop.config.training", "labelloop.errors", "labelloop.images.reader", "labelloop.objects.cache",
    "labelloop.objects.formats", "labelloop.objects.storage", "labelloop.records.arrays", "labelloop.records.images",
    "labelloop.records.json", "labelloop.records.snapshots", "labelloop.records.tasks", "labelloop.records.versions",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """First-party modules that a module imports, by dotted name."""
    files = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
            files |= {n for n in names if (ROOT / f"{n.replace('.', '/')}.py").exists()}
    return files


def test_two_builds_of_a_release_have_different_names() -> None:
    assert code.code_version().startswith(f"{__version__}+")


def test_the_training_code_is_what_training_imports_and_no_command() -> None:
    listed = {path for pattern in code.TRAINING for path in ROOT.glob(pattern)}
    assert all(list(ROOT.glob(pattern)) for pattern in code.TRAINING)
    assert not {p for p in listed if p.is_relative_to(ROOT / "cli")}
    needed = {name for path in (ROOT / "retrain_worker/training").glob("*.py") for name in imported(path)}
    missing = {n for n in needed - WITHOUT_BEARING if ROOT / f"{n.replace('.', '/')}.py" not in listed}
    assert missing == set()
