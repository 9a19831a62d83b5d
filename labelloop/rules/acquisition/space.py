"""Features in, a small space out in which near means alike: centred, the leading components, length 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelloop.records.arrays import Floats

COMPONENTS = 64
POWERS = 2  # rounds of subspace iteration


@dataclass(frozen=True, slots=True)
class Space:
    """``mean`` (features,); ``basis`` (features, components), orthonormal."""

    mean: Floats
    basis: Floats

    def of(self, features: Floats) -> Floats:
        """(n, features) to (n, components), each row of length 1."""
        unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        rows = (unit - self.mean) @ self.basis
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def space_of(features: Floats, components: int = COMPONENTS, *, seed: int = 0) -> Space:
    """The leading principal components of a sample (n, features), by randomised subspace iteration.

    O(n x features x components) (Halko, Martinsson, Tropp 2011, arXiv 0909.4061).
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    mean = unit.mean(axis=0)
    centred = (unit - mean).astype(np.float32)
    return Space(mean.astype(np.float32), leading(centred, components, seed=seed))


def leading(centred: Floats, components: int, *, seed: int = 0) -> Floats:
    """(features, k) orthonormal: the directions in which centred rows differ most, k <= ``components``."""
    n, d = centred.shape
    k = min(components, n, d)
    start = np.random.default_rng(seed).normal(size=(d, min(k + 10, d))).astype(np.float32)
    basis = np.linalg.qr(centred.T @ (centred @ start))[0]
    for _ in range(POWERS):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    _, _, right = np.linalg.svd(centred @ basis, full_matrices=False)
    return np.asarray(basis @ right.T[:, :k], dtype=np.float32)
