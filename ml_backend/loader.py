"""A version's name in, a model that is proven to work out: nothing that is not intact gets past here."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelloop.clock import now
from labelloop.decoding.square import PATIENCE_S, Pixels, decode, is_costly
from labelloop.errors import CorruptArtefactError
from labelloop.model.classifier import Classifier
from labelloop.records.versions import Version
from labelloop.store.registry import Registry
from ml_backend.batcher import Batcher

if TYPE_CHECKING:
    from labelloop.model.net import Backbone

TOLERANCE = 1e-3  # of a probability: machines round differently


class Engine:
    """One loaded backbone. Batches take turns: on shared cores two at once are slower than one after the other."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._batcher = Batcher(backbone.features)

    @property
    def id(self) -> str:
        return self.backbone.record.id

    def decode(self, data: bytes, *, wait_s: float = PATIENCE_S) -> Pixels:
        """See `Backbone.decode`; ``wait_s``: for room among other images, DecodersBusyError."""
        return decode(data, self.backbone.square, wait_s=wait_s)

    def is_costly(self, data: bytes) -> bool:
        """See `labelloop.decoding.square.is_costly`."""
        return is_costly(data, self.backbone.square)

    def features(self, images: Pixels, *, bulk: bool = False) -> NDArray[np.float32]:
        """See `Backbone.features`; ``bulk``: part of a large call, which small ones overtake."""
        return self._batcher.features(images, bulk=bulk)


class Engines:
    """Loads backbones, each once however many projects use it; forgotten with their last user."""

    def __init__(self) -> None:
        self._loaded: weakref.WeakValueDictionary[str, Engine] = weakref.WeakValueDictionary()
        self._loading: defaultdict[str, threading.Lock] = defaultdict(
            threading.Lock
        )  # one that hangs holds up no other

    @staticmethod
    def prepare() -> None:
        """Import what loads a backbone, so that the first one does not wait seconds for that."""
        import labelloop.model.net  # noqa: F401

    def get(self, registry: Registry, name: str) -> Engine:
        """The engine of a backbone, verified and warm; CorruptArtefactError, StorageError."""
        from labelloop.model import net  # torch: /health must answer before that is imported

        with self._loading[name]:
            engine = self._loaded.get(name)
            if engine is None:
                record = registry.backbone(name)
                backbone = net.load(record, registry.backbone_weights(record), device=net.best_device())
                net.verify(backbone)  # runs the network: this is also the warm-up
                engine = self._loaded[name] = Engine(backbone)
                # aside: until it is done, PyTorch answers; no daemon, for a compiler that is torn off ends in a crash
                threading.Thread(target=backbone.quicken, name="quicken", daemon=False).start()
            return engine


@dataclass(frozen=True, slots=True)
class LiveModel:
    """What answers requests. Replaced whole, never changed."""

    version: Version
    head: Classifier
    engine: Engine
    loaded_at: str

    @property
    def name(self) -> str:
        return self.version.name


def load_model(registry: Registry, engines: Engines, name: str, current: LiveModel | None) -> LiveModel:
    """A version that is intact and gives the outputs stored with it; CorruptArtefactError or StorageError.

    On the current model's backbone only the head is loaded, and no other project's load is waited for.
    """
    try:
        version = registry.version(name)
        head = registry.head(version)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArtefactError(f"the record of {name} cannot be read: {error}") from error
    same = current is not None and current.engine.id == version.backbone
    engine = current.engine if same and current else engines.get(registry, version.backbone)
    _check_fit(head, engine)
    _check_outputs(head, version)
    return LiveModel(version, head, engine, now())


def _check_fit(head: Classifier, engine: Engine) -> None:
    dimension = engine.backbone.record.dimension
    if head.dimension != dimension:
        raise CorruptArtefactError(f"the head takes {head.dimension} features, backbone {engine.id} gives {dimension}")


def _check_outputs(head: Classifier, version: Version) -> None:
    features = np.asarray(version.check_features, dtype=np.float32)
    expected = np.asarray(version.check_probabilities, dtype=np.float32)
    if not len(features):
        raise CorruptArtefactError(f"{version.name} was stored without outputs to check it by")
    outputs = head.probabilities(features)
    if outputs.shape != expected.shape or not np.allclose(outputs, expected, rtol=0, atol=TOLERANCE):
        raise CorruptArtefactError(f"the head of {version.name} does not give the outputs that were stored with it")
