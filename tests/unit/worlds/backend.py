"""A small deployment for tests of the backend: one project, a pixels backbone, heads whose answer tells the version."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from labelloop.config.project import BackboneSpec, ProjectConfig
from labelloop.errors import ImageUnreadableError, StorageError
from labelloop.images.reader import allowed
from labelloop.labels.results import make_label_config
from labelloop.model import net
from labelloop.model.head import Head, Novelty
from labelloop.objects.storage import MemoryStore, ObjectStore
from labelloop.records.evidence import Evaluation, Outcome, Verdict
from labelloop.records.json import digest
from labelloop.records.versions import BackboneRecord, Version
from labelloop.store.projects import ProjectRecord, ProjectStore, project_store
from labelloop.store.registry import Draft, Registry
from ml_backend.backend import Backend
from ml_backend.kept import Sources
from ml_backend.live import LiveModels, Pace
from ml_backend.metrics import Metrics
from ml_backend.predict import Predictor
from ml_backend.projects import Directory

CLASSES = ("cat", "dog", "fox")
PREFIX = "s3://images/animals/"
CREATED = 1700000000


@dataclass
class FakeReader:
    """Images by uri, with the allow-list of the real reader."""

    images: dict[str, bytes] = field(default_factory=dict)
    away: bool = False
    reads: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    def etag(self, uri: str) -> str:
        self.heads.append(uri)
        return self._found(uri)[1]

    def read(self, uri: str) -> tuple[bytes, str]:
        self.reads.append(uri)
        return self._found(uri)

    def _found(self, uri: str) -> tuple[bytes, str]:
        allowed(uri, {"images"})
        if self.away:
            raise StorageError("connection refused")
        if uri not in self.images:
            raise ImageUnreadableError(f"{uri} does not exist")
        return self.images[uri], digest(self.images[uri])[:32]


@contextmanager
def lease(_name: str) -> Iterator[int]:
    yield 1


class World:
    """What workers and the command line would do, over any store."""

    def __init__(self, store: ObjectStore | None = None, *, number: int = 7) -> None:
        self.store = store or MemoryStore()
        self.record = ProjectRecord(
            "main", number, CREATED, "animals", ProjectConfig(), make_label_config(CLASSES), PREFIX
        )
        self.projects = ProjectStore(self.store, "main")
        self.projects.put(self.record)
        self.own = project_store(self.store, self.record.key)
        self.registry = Registry(self.own, lease)

    def backbone(self, projection: int = 16) -> BackboneRecord:
        network = net.build(BackboneSpec(name="pixels", options={"projection": projection}), [])
        self.registry.add_backbone(network.record, net.dump(network))
        return network.record

    def add(
        self, backbone: BackboneRecord, answer: int, labels: tuple[str, ...] = CLASSES, *, unseen: float = 0.0
    ) -> Version:
        """A version that answers ``labels[answer]`` to everything; ``unseen``: how likely all are of another class."""
        bias = np.zeros(len(labels), dtype=np.float32)
        bias[answer] = 3.0
        weight = np.zeros((len(labels), backbone.dimension), dtype=np.float32)
        odds = float(np.log(unseen / (1 - unseen))) if unseen else 0.0
        novelty = Novelty(np.zeros(backbone.dimension, np.float32), weight, 0.0, odds) if unseen else None
        rows = np.ones((2, backbone.dimension), dtype=np.float32)
        return self.registry.add(
            Draft(
                kind="refresh", backbone=backbone.id, snapshot="s", config="c", code="0",
                head=Head(labels, weight, bias, novelty=novelty), parent=None, reference=None, recipe={},
                evaluation=Evaluation("refresh", 10, 10, labels), verdict=Verdict(Outcome.PROMOTE, ()),
                check_features=rows,
            )
        )  # fmt: skip

    def deploy(self, version: Version) -> None:
        live = self.registry.live()
        expected = live.version if live else None
        self.registry.deploy(version.name, expected=expected, action="deploy", by="test", why="test")

    def corrupt(self, key: str) -> None:
        data = bytearray(self.own.get(key))
        data[-1] ^= 0xFF
        self.own.put(key, bytes(data))


def world_of(*backbones: int) -> World:
    """A version on each of these networks, deployed one after the other."""
    world = World()
    for answer, projection in enumerate(backbones):
        world.deploy(world.add(world.backbone(projection), answer=answer % 2))
    return world


def make_backend(world: World, reader: FakeReader, *, limit: int = 8, sources: Sources | None = None) -> Backend:
    metrics = Metrics()
    directory = Directory(world.projects)
    live = LiveModels(world.store, directory.all, metrics, limit=limit, pace=Pace(0.02), sources=sources)
    return Backend(directory, live, Predictor(reader, metrics), metrics)


def picture(seed: int, size: int = 20) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
