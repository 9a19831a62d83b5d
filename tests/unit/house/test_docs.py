"""What the documents say about configuration is what the code reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from labelloop.config.project import ProjectConfig

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/configuration.md").read_text()
ROWS: dict[str, str] = dict(re.findall(r"^\| `([^`]+)` \| ([^|]*) \|", PAGE, flags=re.M))
VARIABLES = sorted(
    set(
        re.findall(r'"((?:LABELLOOP|MLFLOW_TRACKING)_[A-Z0-9_]+)"', (ROOT / "labelloop/config/settings.py").read_text())
    )
)


def fields(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf field with its default, by its path in the YAML."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


FIELDS = dict(fields(ProjectConfig()))


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_is_explained_with_its_default(path: str) -> None:
    default = FIELDS[path]
    written = default if isinstance(default, str) else json.dumps(default)
    assert ROWS.get(path) == f"`{written}`"


@pytest.mark.parametrize("variable", VARIABLES)
def test_every_variable_is_explained(variable: str) -> None:
    assert variable in ROWS


def test_nothing_is_explained_that_does_not_exist() -> None:
    assert set(ROWS) == {*FIELDS, *VARIABLES}


def test_every_secret_is_marked() -> None:
    secrets = re.findall(
        r'_secret\(env, "(LABELLOOP_[A-Z0-9_]+)"\)', (ROOT / "labelloop/config/settings.py").read_text()
    )
    marked = re.findall(r"^\| `(LABELLOOP_[A-Z0-9_]+)` \|[^|]*\| \*secret\*", PAGE, flags=re.M)
    assert sorted(marked) == sorted(secrets)


def test_decision_records_are_numbered_without_gaps_and_short() -> None:
    records = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [r.name[:4] for r in records] == [f"{n + 1:04d}" for n in range(len(records))]
    for record in records:
        text = record.read_text()
        assert re.findall(r"^## (\w+)", text, flags=re.M) == ["Context", "Decision", "Consequences"]
        assert len(text.split()) < 500, f"{record.name} is longer than a page"


def test_contributing_begins_with_one_command_and_names_real_places() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert text.split("\n")[2].strip() == "make setup check test", "one command comes first"
    for path in re.findall(r"`((?:labelloop|ml_backend|sync|retrain_worker|cli|configs|docs|tests)/[^`*…<>]*)`", text):
        assert (ROOT / path.partition(":")[0]).exists(), path
