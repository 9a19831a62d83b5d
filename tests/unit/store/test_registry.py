"""The registry: numbered versions, compare-and-swap deploys, rollback, corrupted heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from labelloop.errors import ConflictError, CorruptArtefactError, NotFoundError, PausedError
from labelloop.model.head import Head
from labelloop.objects.storage import MemoryStore
from labelloop.records.evidence import Evaluation, Outcome, Verdict
from labelloop.records.json import digest
from labelloop.records.versions import BackboneRecord
from labelloop.store.registry import Draft, Registry


@contextmanager
def lease(_name: str) -> Iterator[int]:
    yield 1


def draft(value: float = 1.0) -> Draft:
    head = Head(("cat", "dog"), np.full((2, 4), value, dtype=np.float32), np.array([0, value], dtype=np.float32), 1.5)
    evaluation = Evaluation("refresh", 10, 10, ("cat", "dog"), accuracy=0.9)
    return Draft(
        kind="refresh", backbone="b", head=head, snapshot="s", config="c", code="1", parent=None, reference=None,
        recipe={"strength": 1.0}, evaluation=evaluation, verdict=Verdict(Outcome.PROMOTE, ("good",)),
        check_features=np.ones((2, 4), dtype=np.float32),
    )  # fmt: skip


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def registry(store: MemoryStore) -> Registry:
    return Registry(store, lease)


def go(registry: Registry, version: str, expected: str | None, action: str = "deploy") -> None:
    registry.deploy(version, expected=expected, action=action, by="test", why="")


def test_a_version_reads_back_as_it_was_added(store: MemoryStore, registry: Registry) -> None:
    added = registry.add(draft())
    read = Registry(store, lease).version("v1")
    assert read == added
    head = Registry(store, lease).head(read)
    np.testing.assert_array_equal(head.weight, draft().head.weight)
    rows = np.array(read.check_features, dtype=np.float32)
    np.testing.assert_allclose(head.probabilities(rows), np.array(read.check_probabilities), atol=1e-6)


def test_two_writers_never_share_a_number(store: MemoryStore) -> None:
    one, other = Registry(store, lease), Registry(store, lease)
    assert other.versions() == []
    names = [one.add(draft(1)).name, other.add(draft(2)).name, one.add(draft(3)).name]
    assert names == ["v1", "v2", "v3"]


def test_only_the_expected_champion_is_replaced(registry: Registry) -> None:
    for value in (1, 2, 3):
        registry.add(draft(value))
    go(registry, "v1", None)
    go(registry, "v2", "v1")
    with pytest.raises(ConflictError, match="v2 is live"):
        go(registry, "v3", "v1")
    assert registry.live() is not None
    assert [d.version for d in registry.deployments()] == ["v1", "v2"]


def test_a_deploy_that_lost_the_race_for_a_log_number_is_a_conflict(store: MemoryStore, registry: Registry) -> None:
    registry.add(draft())
    slow = Registry(store, lease)
    assert slow.deployments() == []
    go(registry, "v1", None)
    with pytest.raises(ConflictError):
        go(slow, "v1", None)


class Stalled(MemoryStore):
    """Stands still where a deploy looks whether its version is there; meanwhile something else happens."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] = lambda: None

    def exists(self, key: str) -> bool:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return super().exists(key)


def test_a_deploy_that_outlived_its_lease_does_not_land_on_what_a_person_decided_since() -> None:
    store = Stalled()
    machine, person = Registry(store, lease), Registry(store, lease)
    for value in (1, 2, 3):
        machine.add(draft(value))
    go(machine, "v1", None)
    store.meanwhile = lambda: go(person, "v3", "v1", "promote")
    with pytest.raises(ConflictError, match="somebody else"):
        go(machine, "v2", "v1")
    assert [d.version for d in Registry(store, lease).deployments()] == ["v1", "v3"]


def test_a_new_version_that_was_overtaken_is_not_even_added(registry: Registry) -> None:
    one = registry.deploy_new(draft(1), by="refresh", why="better")
    two = registry.deploy_new(replace(draft(2), parent=one.name), by="refresh", why="better")
    assert [(d.version, d.previous, d.by) for d in registry.deployments()] == [
        ("v1", None, "refresh"), ("v2", "v1", "refresh"),
    ]  # fmt: skip
    with pytest.raises(ConflictError, match="v2 is live, not v1"):
        registry.deploy_new(replace(draft(3), parent=one.name), by="retrain", why="better")
    registry.pauses.pause(by="anna")
    with pytest.raises(PausedError):
        registry.deploy_new(replace(draft(3), parent=two.name), by="retrain", why="better")
    assert registry.versions() == [one, two]


def test_rollback_goes_back_and_further_back(registry: Registry) -> None:
    for value in (1, 2, 3):
        registry.add(draft(value))
    go(registry, "v1", None)
    go(registry, "v2", "v1")
    go(registry, "v3", "v2")
    assert registry.rollback_target() == "v2"
    go(registry, "v2", "v3", "rollback")
    assert registry.rollback_target() == "v1"
    go(registry, "v1", "v2", "rollback")
    assert registry.rollback_target() is None


def test_a_corrupted_head_is_never_returned(store: MemoryStore, registry: Registry) -> None:
    version = registry.add(draft())
    data = bytearray(store.get(version.head_key))
    data[-1] ^= 1
    store.put(version.head_key, bytes(data))
    with pytest.raises(CorruptArtefactError, match="hash"):
        registry.head(version)


@pytest.mark.parametrize("name", ["v9", "7", "v", "../v1", ""])
def test_an_unknown_name_is_not_found(registry: Registry, name: str) -> None:
    with pytest.raises(NotFoundError):
        registry.version(name)


class Forgetful(MemoryStore):
    """Writes, but loses the answer of every conditional write, so that it is asked twice."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        super().put(key, data, if_absent=if_absent)
        if if_absent:
            super().put(key, data, if_absent=True)


def test_our_own_write_is_not_taken_for_somebody_elses() -> None:
    registry = Registry(Forgetful(), lease)
    assert registry.add(draft(1)).name == "v1"
    assert registry.add(draft(2)).name == "v2"
    go(registry, "v1", None)
    assert [v.name for v in registry.versions()] == ["v1", "v2"]


def test_rollback_after_an_old_version_was_promoted_goes_one_step(registry: Registry) -> None:
    for value in (1, 2, 3, 4):
        registry.add(draft(value))
    go(registry, "v1", None)
    go(registry, "v3", "v1")
    go(registry, "v1", "v3", "promote")
    go(registry, "v4", "v1")
    go(registry, "v1", "v4", "rollback")
    assert registry.rollback_target() == "v3"


def test_weights_are_written_again_only_as_they_were_recorded(store: MemoryStore, registry: Registry) -> None:
    weights = b"the weights"
    record = BackboneRecord("net-1", "pixels", {}, {}, 4, digest(weights), "by hand")
    registry.add_backbone(record, weights)
    store.put("backbones/net-1/weights.safetensors", b"damaged")
    with pytest.raises(CorruptArtefactError, match="not the weights of net-1"):
        registry.put_weights(record, b"others")
    assert store.get("backbones/net-1/weights.safetensors") == b"damaged"
    registry.put_weights(record, weights)
    assert registry.backbone_weights(record) == weights
