"""A project of two photographs, cut into many: the default network, a fitted head, a store and a command line."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from labelloop.config.project import BackboneSpec
from labelloop.config.settings import load_settings
from labelloop.labels.results import make_label_config
from labelloop.model import net
from labelloop.model.classifier import Classifier
from labelloop.model.net import Backbone
from labelloop.objects.storage import MemoryStore, ObjectStore
from labelloop.records.arrays import Floats
from labelloop.records.evidence import Evaluation, Outcome, Verdict
from labelloop.records.images import ImageFacts, Split
from labelloop.records.json import digest
from labelloop.records.tasks import Annotation, Task
from labelloop.rules.schema import LabelRules
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord, ProjectStore, project_store
from labelloop.store.registry import Draft, Registry
from labelloop.store.snapshots import SnapshotStore
from retrain_worker.context import Context
from retrain_worker.exports.parts import Parts
from retrain_worker.heads.logistic import fit_head, rotate
from tests.unit.worlds.backend import FakeReader, lease
from tests.unit.worlds.damage import Here
from tests.unit.worlds.learning import no_redis

CLASSES = ("china", "flower")
AT = "2026-03-01T10:00:00Z"
PREFIX = "s3://images/photos/"


def cut(kind: int, number: int) -> Image.Image:
    """A part of one of scikit-learn's two photographs."""
    photo = load_sample_images().images[kind]
    draw = np.random.default_rng([kind, number])
    height, width = draw.integers(90, 300, 2)
    top, left = draw.integers(0, photo.shape[0] - height), draw.integers(0, photo.shape[1] - width)
    return Image.fromarray(photo[top : top + height, left : left + width])


def jpeg(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92, **options)
    return out.getvalue()


def names_of(head: Classifier, label_map: dict[str, str | None] | None = None) -> Any:
    return LabelRules(label_map or {}).names(head.labels)


class ExportWorld:
    """``images`` parts of each photograph; every third is for testing."""

    def __init__(self, spec: BackboneSpec, *, images: int = 40, root: ObjectStore | None = None) -> None:
        self.reader = FakeReader({f"{PREFIX}{k}-{n}.jpg": jpeg(cut(k, n)) for k in (0, 1) for n in range(images)})
        self.backbone: Backbone = net.build(spec, [], offline=True)
        self.features: Floats = self.backbone.features(np.stack([self.backbone.decode(d) for d in self._data()]))
        self.labels = [CLASSES[int(uri.removeprefix(PREFIX)[0])] for uri in self.reader.images]
        self.head = fit_head(rotate(self.features), self.labels, list(self.reader.images), classes=CLASSES).head
        self.root = root or MemoryStore()
        self.projects = ProjectStore(self.root, "main")
        self.record = ProjectRecord("main", 1, 0, "two photos", _config(spec), make_label_config(CLASSES), PREFIX)
        self.projects.put(self.record)
        self.store = project_store(self.root, self.record.key)
        self.registry = Registry(self.store, lease)
        self._keep()

    def add(self, head: Classifier) -> str:
        """A version with that head on the backbone; its name."""
        draft = Draft(
            kind="refresh", backbone=self.backbone.record.id, snapshot=self.snapshot, config="c", code="0", head=head,
            parent=None, reference=None, recipe={}, evaluation=Evaluation("refresh", 10, 10, head.labels),
            verdict=Verdict(Outcome.PROMOTE, ()), check_features=self.features[:2],
        )  # fmt: skip
        return self.registry.add(draft).name

    def parts(self, head: Classifier | None = None, label_map: dict[str, str | None] | None = None) -> Parts:
        return Parts(self.backbone, head or self.head, names_of(head or self.head, label_map))

    def pixels(self, count: int = 16) -> Any:
        return np.stack([self.backbone.decode(data) for data in self._data()[:count]])

    def context(self) -> Context:
        return Context(load_settings({}), no_redis(), self.root, self.reader)

    def deployment(self) -> Here:
        nothing: Any = SimpleNamespace()
        return Here(nothing, nothing, self.root, nothing, self.projects)

    def _data(self) -> list[bytes]:
        return list(self.reader.images.values())

    def _keep(self) -> None:
        self.registry.add_backbone(self.backbone.record, net.dump(self.backbone))
        self.registry.set_initial_backbone(self.backbone.record)
        shas = {uri: digest(data) for uri, data in self.reader.images.items()}
        facts = [
            ImageFacts(uri, "e", shas[uri], shas[uri], Split.TEST if i % 3 == 0 else Split.TRAIN)
            for i, uri in enumerate(self.reader.images)
        ]
        Catalogue(self.store).add(facts, "1")
        tasks = [
            Task(i, uri, AT, (Annotation(i, AT, AT, label),))
            for i, (uri, label) in enumerate(zip(self.reader.images, self.labels, strict=True))
        ]
        self.snapshot = SnapshotStore(self.store).freeze(tasks).id


@dataclass(frozen=True)
class Said:
    """A line of an example."""

    path: str
    label: str
    probability: float


def classify(folder: Path, images: list[Path], *, python: Path = Path(sys.executable)) -> list[Said]:
    """What `classify.py` prints, without any of our code in its way."""
    done = subprocess.run(
        [str(python), "-I", "-W", "ignore", str(folder / "classify.py"), *map(str, images)],
        capture_output=True, text=True, check=False, cwd=folder.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [Said(row[0], row[1], float(row[2])) for row in rows]


def _config(spec: BackboneSpec) -> Any:
    from labelloop.config.project import ProjectConfig

    return ProjectConfig(backbone=spec)
