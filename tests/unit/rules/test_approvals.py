"""What waits for approval, what people decide, and how the log keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelloop.errors import ConflictError, NotFoundError
from labelloop.records.evidence import Outcome
from labelloop.records.images import Split
from labelloop.rules.approvals import state, waiting
from tests.unit.worlds.learning import LearningWorld


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LearningWorld:
    """Approval is a person's; two refreshes were judged good."""
    folder: Path = tmp_path_factory.mktemp("world")
    small = {"name": "small_cnn", "image_size": 16, "options": {"filters": [8], "dense": 16, "dropout": 0.0}}
    world = LearningWorld(folder, images=200, config={"gate": {"approval": "manual"}, "backbone": small})
    train = world.uris(Split.TRAIN)
    for n in (50, 80):
        judged = world.refresh(world.label(train[:n]))
        assert (judged.verdict.outcome, judged.verdict.awaits) == (Outcome.HOLD, True)
        assert judged.version is not None
    return world


def test_nothing_goes_live_by_itself_and_the_newest_waits(world: LearningWorld) -> None:
    registry = world.project.registry
    assert registry.live() is None
    found = waiting(registry.versions(), live=None, rejected=())
    assert [v.name for v in found] == ["v2"]
    assert state(found[0], live=None, rejected=(), waits={"v2"}) == "waits for approval"


def test_a_refusal_is_kept_and_changes_nothing_else(world: LearningWorld) -> None:
    registry = world.project.registry
    entry = registry.reject("v2", by="ann", why="loses a class")
    assert (entry.action, entry.version, entry.rejected, entry.by, entry.why) == (
        "reject", "", "v2", "ann", "loses a class",
    )  # fmt: skip
    assert registry.live() is None
    assert registry.deployments() == []
    assert waiting(registry.versions(), live=None, rejected=registry.rejected()) == []
    promoted = registry.deploy("v2", expected=None, action="promote", by="bob", why="looked again")
    assert promoted.number == 2
    assert registry.rejected() == {}
    assert [d.action for d in registry.decisions()] == ["reject", "promote"]
    with pytest.raises(ConflictError, match="rollback"):
        registry.reject("v2", by="ann", why="no")
    with pytest.raises(NotFoundError):
        registry.reject("v99", by="ann", why="no")
    registry.reject("v1", by="ann", why="old")
    assert (registry.live() or promoted).version == "v2"
    assert registry.rollback_target() is None
