"""New labels against what the live head was sure of: wrong ones surprise it far more than hard ones.

A test before the training ("prequential", Dawid 1984): the head has not learned these labels, so nothing is held out.
An image of which it is unsure may be anything; one of which it is sure may be something else only rarely.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labelloop.records.arrays import Floats
from labelloop.records.evidence import Contradiction
from retrain_worker.heads.logistic import Ints

SLIP = 0.05  # of labels, whatever the head says: a slip of the hand, an image unlike all before
LEAST_SPREAD = 0.25  # nats², of a label: where all classes seem alike, a small error of the head would look like proof
NAMED_NATS = 1.0  # beyond what was expected of a label: then its task is named
NAMED = 10  # tasks


def contradiction(probabilities: Floats, labels: Ints, tasks: Sequence[int], *, batches: float) -> Contradiction | None:
    """How far ``labels`` (n,), class numbers, are from what ``probabilities`` (n, classes) expect; None without any.

    Were the probabilities right, the loss of each label would be on average the entropy of its row. The deviation is
    the sum of what lies above, in standard errors of that sum.
    """
    if not len(labels):
        return None
    sure = (1 - SLIP) * probabilities.astype(np.float64) + SLIP / probabilities.shape[1]
    sure /= sure.sum(axis=1, keepdims=True)
    losses = -np.log(sure)
    entropy = (sure * losses).sum(axis=1)
    spread = (sure * losses**2).sum(axis=1) - entropy**2
    loss = losses[np.arange(len(labels)), labels]
    above = loss - entropy
    most = [tasks[i] for i in np.argsort(-above, kind="stable")[:NAMED] if above[i] > NAMED_NATS]
    error = np.sqrt(np.maximum(spread, LEAST_SPREAD).sum())
    return Contradiction(
        len(labels), float(loss.mean()), float(entropy.mean()), float(above.sum() / error), batches, tuple(most)
    )
