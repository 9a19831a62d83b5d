"""Labels of a few images and a sample of the rest in, a guess for every one out: what is alike is of one class.

Few labels leave the direction of a boundary open; where the unlabelled images lie thin, it should run. Labels spread
over a graph of nearest neighbours (Zhou et al. 2003, "Learning with local and global consistency"), each class with the
same mass, and the guesses are sharpened. They are soft targets beside the labels, never labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array

from labelloop.records.arrays import Floats
from labelloop.rules.acquisition.space import space_of

NEIGHBOURS = 10
STAY = 0.15  # of a row's own label at each step
STEPS = 25
CHUNK = 1024

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Which rows are alike: a symmetric (n, n) matrix whose largest eigenvalue is 1."""

    graph: csr_matrix

    def guess(self, targets: Ints, classes: int) -> Floats:
        """(members, labelled) class numbers, -1 hidden, of the first rows, to (members, classes, n) soft targets.

        Each column sums to how sure the guess is, in [0, 1]; 0 where no label reaches. O(members x classes x n).
        """
        members, labelled = targets.shape
        labels = np.zeros((members, classes, self.graph.shape[0]), dtype=np.float32)
        labels[:, :, :labelled] = targets[:, None, :] == np.arange(classes)[None, :, None]
        labels /= np.maximum(labels.sum(axis=2, keepdims=True), 1)
        flat = labels.reshape(members * classes, -1).T
        soft = flat
        for _ in range(STEPS):
            soft = (1 - STAY) * (self.graph @ soft) + STAY * flat
        return _sharpened(np.ascontiguousarray(soft.T).reshape(labels.shape))


def neighbourhood(rows: Floats, *, seed: int = 0) -> Neighbourhood:
    """The graph of (n, features) rows, each with its ten nearest. O(n² x 64)."""
    space = space_of(rows, seed=seed).of(rows)
    near = min(NEIGHBOURS, len(rows) - 1)
    places = np.empty((len(rows), near), dtype=np.int64)
    likeness = np.empty((len(rows), near), dtype=np.float32)
    for begin in range(0, len(rows), CHUNK):
        alike = space[begin : begin + CHUNK] @ space.T
        own = np.arange(len(alike))
        alike[own, own + begin] = -1
        places[begin : begin + CHUNK] = best = np.argpartition(-alike, near - 1, axis=1)[:, :near]
        likeness[begin : begin + CHUNK] = np.take_along_axis(alike, best, axis=1)
    weight = np.maximum(likeness, 0) ** 4
    owners = np.repeat(np.arange(len(rows)), near)
    one_way = csr_matrix((weight.ravel(), (owners, places.ravel())), shape=(len(rows), len(rows)))
    both = one_way.maximum(one_way.T)
    scale = diags_array(1 / np.sqrt(np.asarray(both.sum(axis=1)).ravel() + 1e-9))
    return Neighbourhood(csr_matrix(scale @ both @ scale, dtype=np.float32))


def _sharpened(mass: Floats) -> Floats:
    """(members, classes, n) to guesses: squared shares, weighted by how far they are from even."""
    shares = mass / np.maximum(mass.sum(axis=1, keepdims=True), 1e-12)
    shares **= 2
    total = shares.sum(axis=1, keepdims=True)
    shares /= np.maximum(total, 1e-12)
    even = np.log(max(shares.shape[1], 2))
    sure = 1 + (shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1, keepdims=True) / even
    return np.asarray(shares * sure * (total > 0), dtype=np.float32)
