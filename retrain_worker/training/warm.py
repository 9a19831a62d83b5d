"""The layer on top before the first step: a head fitted on features of the train part (Kumar et al. 2022, LP-FT)."""

from __future__ import annotations

import numpy as np

from labelloop.model.head import Head
from labelloop.model.net import Backbone
from retrain_worker.heads.logistic import fit_head, rotate
from retrain_worker.training.parts import Parts

CHUNK = 256


def warm_head(parts: Parts, backbone: Backbone) -> Head:
    """Costs one pass over the train part; where features are kept, fit on those instead."""
    images = parts.train.images
    rows = [backbone.features(np.ascontiguousarray(images[i : i + CHUNK])) for i in range(0, len(parts.train), CHUNK)]
    labels = [parts.classes[t] for t in parts.train.targets]
    own_group = [str(i) for i in range(len(labels))]  # duplicates are out already
    return fit_head(rotate(np.concatenate(rows)), labels, own_group, classes=parts.classes).head
