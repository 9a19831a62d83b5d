"""A shard of a batch: kept features and pixels say the same, what cannot be read costs itself."""

from __future__ import annotations

import pytest

from labelloop.errors import ImageUnreadableError, NotFoundError
from labelloop.records.batches import Batch
from labelloop.records.images import Split
from labelloop.store.batches import BatchStore
from retrain_worker.predict import predict
from tests.unit.worlds.learning import Images, LearningWorld

SEEN = "etag"  # of every image of the world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LearningWorld:
    world = LearningWorld(tmp_path_factory.mktemp("world"), images=200)
    world.refresh(world.label(world.uris(Split.TRAIN)))
    return world


def batch(world: LearningWorld, images: list[tuple[str, str]], name: str = "b") -> BatchStore:
    version = world.project.registry.versions()[-1].name
    store = BatchStore(world.project.store)
    store.add(Batch(name, "s3://images/", version, 3, len(images), 1, "now", "me"), [images])
    return store


def test_kept_features_and_pixels_say_the_same(world: LearningWorld) -> None:
    uris = world.uris(Split.TEST)[:20]
    store = batch(world, [(uri, SEEN) for uri in uris], "kept")
    world.images.read_uris.clear()
    assert predict(world.context, world.project, "kept", 0) == 20
    assert not world.images.read_uris
    batch(world, [(uri, "other bytes") for uri in uris], "read")
    predict(world.context, world.project, "read", 0)
    assert sorted(world.images.read_uris) == uris
    for one, other in zip(store.said("kept", 0), store.said("read", 0), strict=True):
        assert (one.file, one.label) == (other.file, other.label)
        assert one.probability == pytest.approx(other.probability, abs=1e-4)
        assert one.top[0] == (one.label, one.probability)
        assert len(one.top) == 3
    right = sum(g.label == world.truth[g.file] for g in store.said("kept", 0))
    assert right >= 14  # of twenty digits; by chance two


def test_an_image_that_cannot_be_read_costs_itself(world: LearningWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = world.uris(Split.TEST)[:3]
    read = Images.read

    def refusing(self: Images, uri: str) -> tuple[bytes, str]:
        if uri == uris[1]:
            raise ImageUnreadableError(f"{uri} does not exist")
        return (b"no image", "x") if uri == uris[2] else read(self, uri)

    monkeypatch.setattr(Images, "read", refusing)
    store = batch(world, [(uri, "") for uri in uris])
    assert predict(world.context, world.project, "b", 0) == 1
    good, gone, junk = store.said("b", 0)
    assert good.label
    assert not good.problem
    assert "does not exist" in gone.problem
    assert junk.problem
    assert (gone.label, junk.label) == ("", "")


def test_a_batch_is_dropped_whole_and_done_again_without_harm(world: LearningWorld) -> None:
    uri = world.uris(Split.TEST)[0]
    store = batch(world, [(uri, SEEN)], "twice")
    predict(world.context, world.project, "twice", 0)
    first = store.said("twice", 0)
    predict(world.context, world.project, "twice", 0)
    assert store.said("twice", 0) == first
    assert store.done("twice") == {0}
    store.drop("twice")
    with pytest.raises(NotFoundError):
        store.get("twice")
    assert not list(world.project.store.list("batches/twice/"))
