"""Images that the loop has seen are answered without being read, as long as their bytes are the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelloop.clock import stamp
from labelloop.errors import StorageError
from labelloop.images.mirror import Mirror
from labelloop.model import net
from labelloop.records.images import ImageFacts, Split
from labelloop.records.versions import BackboneRecord
from labelloop.rules.split import group_of, shown_blind, split_of
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureStore
from labelloop.store.projects import ProjectRecord
from ml_backend import kept as kept_module
from ml_backend.kept import Sources
from ml_backend.live import LiveProject
from ml_backend.predict import PredictCall
from tests.unit.worlds.backend import PREFIX, FakeReader, World, make_backend, picture

SHARES = World().record.config.buckets.shares()
SEEDS = [s for s in range(40) if split_of(group_of(picture(s)), SHARES) is Split.TRAIN
         and not shown_blind(group_of(picture(s)), World().record.config.queue.blind)]  # fmt: skip


class Loop:
    """A backend over a project whose images have features."""

    def __init__(self, folder: Path) -> None:
        self.world, self.reader, self.listings = World(), FakeReader(), 0
        self.record: BackboneRecord = self.world.backbone()
        self.network = net.load(self.record, self.world.registry.backbone_weights(self.record))
        self.uris = [f"{PREFIX}{seed}.png" for seed in SEEDS]
        self.reader.images = dict(zip(self.uris, map(picture, SEEDS), strict=True))
        self.features = FeatureStore(self.world.own, self.record.id, folder / "writer")
        sources = Sources(self.reader, self.listed, folder / "cache", 10**9)
        self.backend = make_backend(self.world, self.reader, sources=sources)

    def listed(self, _record: ProjectRecord) -> Iterator[tuple[str, str]]:
        self.listings += 1
        yield from ((uri, self.reader._found(uri)[1]) for uri in list(self.reader.images))

    def featurise(self, uris: list[str]) -> None:
        """What a worker records of images."""
        found = [self.reader._found(uri) for uri in uris]
        facts = []
        for uri, (data, etag) in zip(uris, found, strict=True):
            group = group_of(data)
            facts.append(ImageFacts(uri, etag, group, group=group))
        Catalogue(self.world.own).add(facts, stamp())
        rows = self.network.features(np.stack([self.network.decode(data) for data, _ in found]))
        self.features.add(stamp(), uris, [etag for _, etag in found], rows)

    def deploy(self, backbone: BackboneRecord | None = None) -> None:
        self.world.deploy(self.world.add(backbone or self.record, answer=1))

    @property
    def live(self) -> LiveProject:
        return self.backend.live.get(self.world.record)

    def ask(self, uris: list[str]) -> list[dict[str, Any]]:
        tasks = [{"id": i, "data": {"image": uri}} for i, uri in enumerate(uris)]
        call = PredictCall(self.world.record, self.live, self.world.record.schema, self.live.model)
        return self.backend.predictor.predict(call, tasks)

    def until_kept(self, count: int) -> None:
        """Asking is what makes it look."""
        kept, end = self.live.kept, time.monotonic() + 10
        assert kept is not None
        while sum(p is not None for p in kept.places(self.world.record, self.record.id, self.uris)) < count:
            assert time.monotonic() < end, "the features did not come"
            time.sleep(0.01)


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    monkeypatch.setattr(kept_module, "INDEX_EVERY_S", 0.0)
    monkeypatch.setattr(kept_module, "PAYS_FROM", 10**6)  # no listing, but in tests that want one
    ready = Loop(tmp_path)
    ready.featurise(ready.uris)
    ready.deploy()
    ready.backend.start()
    wait_for(lambda: ready.live.model)
    yield ready
    ready.backend.stop()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def listed(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing was made a moment ago."""
    monkeypatch.setattr(kept_module, "PAYS_FROM", 0)
    loop.until_kept(len(SEEDS))
    wait_for(lambda: (loop.ask(loop.uris[:1]), loop.listings)[1])
    kept = loop.live.kept
    assert kept is not None
    wait_for(lambda: kept._listed.etags)
    monkeypatch.setattr(kept_module, "PAYS_FROM", 10**6)


def test_the_answers_are_those_of_the_pixels(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    by_pixels = loop.ask(loop.uris)
    listed(loop, monkeypatch)
    loop.reader.reads.clear()
    loop.reader.heads.clear()
    by_features = loop.ask(loop.uris)
    assert not loop.reader.reads
    assert not loop.reader.heads
    for one, other in zip(by_pixels, by_features, strict=True):
        assert one["result"][0]["value"] == other["result"][0]["value"]
        assert abs(one["score"] - other["score"]) < 1e-5


def test_without_a_listing_one_head_for_each_image_tells(loop: Loop) -> None:
    loop.until_kept(len(SEEDS))
    loop.reader.reads.clear()
    assert all(answer["result"] for answer in loop.ask(loop.uris[:3]))
    assert sorted(loop.reader.heads) == sorted(loop.uris[:3])
    assert not loop.reader.reads
    assert not loop.listings


def test_other_bytes_under_the_name_are_read(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.until_kept(len(SEEDS))
    changed = loop.uris[0]
    loop.reader.images[changed] = picture(SEEDS[1])
    loop.reader.reads.clear()
    loop.ask(loop.uris[:2])
    assert loop.reader.reads == [changed]
    listed(loop, monkeypatch)  # and the listing says the same
    loop.reader.reads.clear()
    loop.ask(loop.uris)
    assert loop.reader.reads == [changed]


def test_an_old_listing_is_not_believed(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(loop, monkeypatch)
    loop.reader.heads.clear()
    loop.ask(loop.uris[:2])
    assert not loop.reader.heads
    monkeypatch.setattr(kept_module, "LISTED_S", 0.0)
    loop.ask(loop.uris[:2])
    assert sorted(loop.reader.heads) == sorted(loop.uris[:2])


def test_a_deleted_image_and_storage_that_is_away_are_told(loop: Loop) -> None:
    loop.until_kept(len(SEEDS))
    del loop.reader.images[loop.uris[0]]
    gone, there = loop.ask(loop.uris[:2])
    assert gone["result"] == []
    assert there["result"]
    loop.reader.away = True
    with pytest.raises(StorageError):
        loop.ask(loop.uris[:2])


def test_blind_images_stay_blind(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(loop, monkeypatch)
    facts = loop.live.blinds._catalogue.images
    loop.ask(loop.uris[:1])
    facts[loop.uris[0]] = replace(facts[loop.uris[0]], bucket=Split.TEST)
    blind, other = loop.ask(loop.uris[:2])
    assert blind["result"] == []
    assert other["result"]


def test_features_of_another_backbone_answer_nothing(loop: Loop) -> None:
    loop.until_kept(len(SEEDS))
    other = loop.world.backbone(24)
    loop.deploy(other)
    wait_for(lambda: loop.live.model and loop.live.model.engine.id == other.id)
    loop.reader.reads.clear()
    assert loop.ask(loop.uris[:3])[0]["result"]
    assert sorted(loop.reader.reads) == sorted(loop.uris[:3])


def test_lost_rows_cost_nothing_but_time(loop: Loop, tmp_path: Path) -> None:
    late = f"{PREFIX}late.png"
    loop.reader.images[late] = picture(77)
    loop.until_kept(len(SEEDS))
    loop.featurise([late])
    shard = loop.world.own.list(f"features/{loop.record.id}/rows/")
    newest = max(info.key for info in shard)
    loop.world.own.put(newest, b"junk")
    for _ in range(5):
        assert loop.ask([loop.uris[0]])[0]["result"]
        time.sleep(0.05)
    assert loop.ask([late])[0]["model_version"] == "v1"
    assert (tmp_path / "cache" / loop.world.record.key / "features" / loop.record.id).is_dir()


def test_copies_of_uploads_are_known_by_their_hash(loop: Loop) -> None:
    kept, uri = loop.live.kept, "/data/upload/7/a.png"
    assert kept is not None
    loop.until_kept(len(SEEDS))
    mirror = Mirror(loop.world.own)
    mirror.record([mirror.keep(uri, picture(3))])
    loop.live.mirror.update()
    place = kept.places(loop.world.record, loop.record.id, loop.uris[:1])[0]
    assert place is not None
    sha = mirror.copies[uri].sha256
    assert kept.is_same(uri, replace(place, etag=sha)) is True
    assert kept.is_same(uri, place) is False
    assert kept.is_same("/data/upload/7/other.png", place) is False
