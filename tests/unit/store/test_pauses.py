"""A pause: kept in the store, told in words, and in the way of every deploy that nobody asked for."""

from __future__ import annotations

import pytest

from labelloop.errors import PausedError
from labelloop.objects.storage import MemoryStore
from labelloop.store.pauses import KEY, PauseStore
from operations.models.learning import left_over, pause, reminder, resume
from tests.unit.worlds.operations import OpsWorld, evaluation


def test_a_pause_holds_until_it_is_ended_and_says_who_since_when_and_why() -> None:
    store = MemoryStore()
    assert PauseStore(store).current() is None
    PauseStore(store).check()
    pause = PauseStore(store).pause(by="anna", why="labels under review")
    assert PauseStore(store).current() == pause
    assert pause.in_words == f"paused by anna since {pause.at[:16].replace('T', ' ')} UTC: labels under review"
    with pytest.raises(PausedError, match=r"paused by anna .* labels under review; `labelloop resume`"):
        PauseStore(store).check()
    PauseStore(store).resume()
    assert PauseStore(store).current() is None


def test_a_second_pause_leaves_the_first_ones_word() -> None:
    store = PauseStore(MemoryStore())
    first = store.pause(by="anna", why="one")
    assert store.pause(by="bert", why="other") == first
    assert store.current() == first


def test_a_pause_that_cannot_be_read_holds_and_can_be_ended() -> None:
    store = MemoryStore()
    store.put(KEY, b"{")
    with pytest.raises(PausedError, match=f"{KEY} cannot be read.*labelloop resume"):
        PauseStore(store).check()
    PauseStore(store).resume()
    PauseStore(store).check()


def test_nothing_goes_live_by_itself_while_paused_but_a_person_may() -> None:
    world = OpsWorld()
    snapshot = world.freeze().id
    one, other = world.version(snapshot), world.version(snapshot)
    world.deploy(one)
    world.registry.pauses.pause(by="anna")
    with pytest.raises(PausedError):
        world.deploy(other)
    assert world.registry.live() is not None
    assert [d.version for d in world.registry.deployments()] == ["v1"]
    world.deploy(other, "promote")
    world.deploy(one, "rollback")
    assert [d.version for d in world.registry.deployments()] == ["v1", "v2", "v1"]


def test_what_was_retrained_meanwhile_is_told_when_the_pause_ends() -> None:
    world = OpsWorld()
    snapshot = world.freeze().id
    before, live = world.version(snapshot, kind="retrain"), world.version(snapshot)
    world.deploy(live)
    held = world.registry.pauses.pause(by="anna")
    world.version(snapshot)  # a refresh: its labels are learned again
    good = world.version(snapshot, kind="retrain", found=evaluation())
    assert left_over(world.registry.versions(), world.registry.deployments(), held.at) == (good.name,)
    assert before.name not in left_over(world.registry.versions(), world.registry.deployments(), held.at)
    assert resume(world.deployment, world.record).left == (good.name,)


def test_the_commands_tell_what_they_found(monkeypatch: pytest.MonkeyPatch) -> None:
    world = OpsWorld()
    monkeypatch.setattr("operations.models.learning._let_deploys_end", lambda *_: True)
    assert reminder(world.deployment, world.record) is None
    first = pause(world.deployment, world.record, by="anna", why="w")
    assert (first.already, first.settled, first.live) == (False, True, None)
    assert pause(world.deployment, world.record, by="bert", why="").already
    assert "paused by anna" in (reminder(world.deployment, world.record) or "")
    assert resume(world.deployment, world.record).was == first.pause
    assert resume(world.deployment, world.record).was is None
