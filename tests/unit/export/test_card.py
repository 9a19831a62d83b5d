"""A version's card names data, figures, verdict, decisions and limits, and stays a table whatever names hold."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from labelloop.export.card import VersionOrigin, card
from labelloop.records.evidence import Outcome
from labelloop.records.images import Split
from labelloop.store.configs import keep_config, kept_config
from tests.unit.worlds.learning import LearningWorld


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> VersionOrigin:
    folder: Path = tmp_path_factory.mktemp("world")
    small = {"name": "small_cnn", "image_size": 16, "options": {"filters": [8], "dense": 16, "dropout": 0.0}}
    world = LearningWorld(folder, images=200, config={"backbone": small})
    name = world.label([*world.uris(Split.TRAIN)[:80], *world.uris(Split.TEST)])
    assert world.refresh(name).verdict.outcome is Outcome.PROMOTE
    keep_config(world.project.store, world.config)
    version, registry = world.live(), world.project.registry
    return VersionOrigin(
        "digits | here", version, registry.backbone(version.backbone),
        list(world.project.snapshot(name).tasks.values()), world.project.catalogue.images,
        kept_config(world.project.store, world.config.hash), registry.decisions(),
    )  # fmt: skip


def test_it_tells_what_a_lead_asks(origin: VersionOrigin) -> None:
    text, evaluation = card(origin), origin.version.evaluation
    assert f"{evaluation.test_accuracy:.3f}" in text
    assert origin.version.snapshot in text
    assert origin.backbone.provenance in text
    assert "**promote**" in text
    assert "first model: beats the largest class" in text
    assert "| deploy | refresh |" in text
    assert f"name: {origin.config['name']}" in text if origin.config else False
    for name in origin.version.labels:
        assert any(line.startswith(f"| {name} |") for line in text.splitlines())


def test_the_counts_are_those_of_the_snapshot(origin: VersionOrigin) -> None:
    data = card(origin).split("## Training")[0].splitlines()
    rows = [line.split("|")[1:-1] for line in data if line.startswith("| ") and line[2].isdigit()]
    counts = [[int(cell) for cell in row[1:]] for row in rows]
    assert sum(row[0] for row in counts) == 80
    assert sum(map(sum, counts)) == len(origin.tasks)


def test_every_table_keeps_its_columns(origin: VersionOrigin) -> None:
    lines = card(origin).splitlines()
    for before, line in pairwise(lines):
        if before.startswith("| ") and line.startswith("| "):
            assert before.replace("\\|", "").count("|") == line.replace("\\|", "").count("|")
