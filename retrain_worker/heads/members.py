"""Labelled features in, the ONNX bytes of one fitted member out: the six that vote in an ensemble.

Every fit is single-threaded and seeded, so that its result depends on neither the number of threads nor their order.
Libraries are imported where they are used: fitting linear heads never loads them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from labelloop.records.arrays import Floats
from retrain_worker.heads.logistic import Doubles, Ints, Rotated
from retrain_worker.heads.to_onnx import ABSENT, Kernel, kernel_model, of_forest, of_lightgbm, of_xgboost, trees_model

COMPONENTS = 256  # that the SVM sees: support vectors of all features would be most of the file
SUPPORT = 4000  # rows that the SVM learns from at most: its kernel grows with their square
STRENGTH = 10.0  # C of the SVM
SLOPE = 4.0  # margins of the SVM are about 1, logits of sure answers about 4
BOOSTED = 1200  # trees of a booster at most, over all classes: bounds its time and its bytes
FEWEST, MOST = 10, 60  # rounds of a booster
FOREST = 200
FOREST_STEP = 20
LEAVES = 64  # of a tree of the forest


@dataclass(frozen=True, slots=True)
class MemberTask:
    """What one fit sees. ``targets`` (n,): class numbers, of two classes at least."""

    features: Floats  # (n, dimension)
    components: Floats  # (n, k) rows of ``space``
    space: Rotated
    targets: Ints
    weights: Floats  # (n,): how much each row counts
    classes: int  # all there are; those without a row here get probability 0
    seed: int
    tick: Callable[[], None]  # called between steps; raises where time has run out

    @property
    def seen(self) -> tuple[Ints, Ints]:
        """The classes that have rows, and the targets as places among them."""
        seen, places = np.unique(self.targets, return_inverse=True)
        return seen, places.astype(np.int64)

    @property
    def rounds(self) -> int:
        """Boosting rounds: one tree for each class in each of them."""
        return int(np.clip(BOOSTED // len(np.unique(self.targets)), FEWEST, MOST))


Fit = Callable[[MemberTask], bytes]


def svm(part: MemberTask) -> bytes:
    """One against the rest for each class, with an RBF kernel on principal components.

    These are centred and have one common scale: at 100 and 300 labels that was better than one scale per feature
    (images of bench/ensemble.py), for a network's features share their unit, and rare ones would be blown up.
    """
    rows, machines = vector_machines(part)
    weight, bias = np.zeros((len(rows), part.classes)), np.full(part.classes, ABSENT)
    for c, fitted in machines.items():
        weight[fitted.support_, c] = SLOPE * fitted.dual_coef_[0]
        bias[c] = SLOPE * fitted.intercept_[0]
    used = weight.any(axis=1)
    basis = part.space.basis[:COMPONENTS].T / np.float32(part.space.scale)
    shift = -part.space.mean.astype(np.float64) @ basis.astype(np.float64)
    return kernel_model(Kernel(basis, shift, rows[used], weight[used], bias))


def vector_machines(part: MemberTask) -> tuple[Floats, dict[int, Any]]:
    """The components (m, k) that were learned from, and class number -> scikit-learn's machine on their kernel."""
    from sklearn.svm import SVC

    keep = spread(part.targets, SUPPORT, part.seed)
    rows, targets, weights = part.components[keep, :COMPONENTS], part.targets[keep], part.weights[keep]
    gram = kernel(rows, rows)
    machines = {}
    for c in np.unique(targets).tolist():
        part.tick()
        machines[c] = SVC(kernel="precomputed", C=STRENGTH).fit(gram, targets == c, weights)
    return rows, machines


def kernel(ours: Floats, theirs: Floats) -> Doubles:
    """exp(-|a - b|²) of every two rows (n, m); the mean squared norm of those learned from is about 1."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)
    return np.asarray(np.exp(np.minimum(2 * a @ b.T - lengths, 0)))


def spread(targets: Ints, limit: int, seed: int) -> Ints:
    """At most so many rows, in order: drawn evenly over the classes, so that no rare one is lost."""
    order = np.random.default_rng(seed).permutation(len(targets))
    rank = np.empty(len(targets), dtype=np.int64)
    for c in np.unique(targets):
        mine = order[targets[order] == c]
        rank[mine] = np.arange(len(mine))
    return np.sort(order[np.argsort(rank[order], kind="stable")][:limit])


def forest(part: MemberTask) -> bytes:
    """Random trees, each grown leaf by leaf."""
    trees = of_forest(grown_forest(part).estimators_, part.classes, part.seen[0].tolist())
    return trees_model(trees, dimension=part.features.shape[1], strict=False, labelled=None)


def grown_forest(part: MemberTask) -> Any:
    """scikit-learn's forest, grown in steps so that time can run out between them."""
    from sklearn.ensemble import RandomForestClassifier

    grown = RandomForestClassifier(n_estimators=0, max_leaf_nodes=LEAVES, warm_start=True, random_state=part.seed)
    for count in range(FOREST_STEP, FOREST + 1, FOREST_STEP):
        part.tick()
        grown.set_params(n_estimators=count).fit(part.features, part.seen[1], part.weights)
    return grown


def lightgbm(part: MemberTask) -> bytes:
    """Small trees grown leaf by leaf."""
    labelled = part.seen[0].tolist()
    trees = of_lightgbm(lightgbm_booster(part).model_to_string(), part.classes, labelled)
    return trees_model(trees, dimension=part.features.shape[1], strict=False, labelled=labelled)


def lightgbm_booster(part: MemberTask) -> Any:
    """LightGBM's own model."""
    library = _lightgbm()
    labelled, places = part.seen
    options = {
        "objective": "multiclass", "num_class": len(labelled), "num_leaves": 7, "learning_rate": 0.15,
        "feature_fraction": 0.1, "min_data_in_leaf": 3, "min_sum_hessian_in_leaf": 1e-3, "max_bin": 63,
        "min_data_in_bin": 1, "use_missing": False, "seed": part.seed, "num_threads": 1, "deterministic": True,
        "force_col_wise": True, "verbose": -1,
    }  # fmt: skip
    booster = library.Booster(options, library.Dataset(part.features, places, weight=part.weights, params=options))
    for _ in range(part.rounds):
        part.tick()
        booster.update()
    return booster


@dataclass(frozen=True, slots=True)
class Shape:
    """What the three XGBoost members differ in."""

    max_depth: int
    eta: float
    subsample: float


SHALLOW, MEDIUM, DEEP = Shape(2, 0.3, 0.8), Shape(4, 0.15, 0.8), Shape(6, 0.1, 0.6)


def xgboost(part: MemberTask, shape: Shape) -> bytes:
    """Trees grown level by level on histograms; each sees a tenth of the features."""
    labelled = part.seen[0].tolist()
    trees = of_xgboost(bytes(xgboost_booster(part, shape).save_raw("json")), part.classes, labelled)
    return trees_model(trees, dimension=part.features.shape[1], strict=True, labelled=labelled)


def xgboost_booster(part: MemberTask, shape: Shape) -> Any:
    """XGBoost's own model."""
    import xgboost as library

    labelled, places = part.seen
    options = {
        "objective": "multi:softprob", "num_class": len(labelled), "tree_method": "hist", "max_bin": 64,
        "colsample_bytree": 0.1, "min_child_weight": 0.2, "base_score": 0.0,  # the same for all classes says nothing
        "max_depth": shape.max_depth, "eta": shape.eta, "subsample": shape.subsample, "seed": part.seed, "nthread": 1,
        "verbosity": 0,
    }  # fmt: skip
    rows = library.DMatrix(part.features, places, weight=part.weights, nthread=1)
    booster = library.Booster(options, [rows])
    for number in range(part.rounds):
        part.tick()
        booster.update(rows, number)
    return booster


MEMBERS: Mapping[str, Fit] = {  # cheap to dear
    "svm": svm,
    "lightgbm": lightgbm,
    "random_forest": forest,
    "xgboost_shallow": partial(xgboost, shape=SHALLOW),
    "xgboost_medium": partial(xgboost, shape=MEDIUM),
    "xgboost_deep": partial(xgboost, shape=DEEP),
}


def _lightgbm() -> Any:
    """LightGBM takes the system's libgomp.so.1, which slim images lack; torch brings one that serves as well."""
    try:
        return importlib.import_module("lightgbm")
    except OSError:
        importlib.import_module("torch")
        return importlib.import_module("lightgbm")
