"""scikit-activeml's strategies as choosers of a replay: same pool, same rows, same head, same checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from skactiveml.base import SkactivemlClassifier
from skactiveml.pool import Badge, CoreSet, DropQuery, ProbCover, TypiClust, UncertaintySampling
from sklearn.cluster import MiniBatchKMeans

from retrain_worker.replay.arm import ChoiceRequest, Chooser, by_policy
from retrain_worker.replay.history import Ints

START = "herding"  # of those that need a model: the first ten labels are the same as ours


class Given(SkactivemlClassifier):  # type: ignore[misc]
    """The replay's own head, asked through the peer's interface."""

    def __init__(self, asked: ChoiceRequest | None = None, classes: Any = None, missing_label: float = np.nan) -> None:
        super().__init__(classes=classes, missing_label=missing_label)
        self.asked = asked
        if asked:
            self.classes_ = np.arange(asked.classes)
            self.cost_matrix_ = 1 - np.eye(asked.classes)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Given:
        return self

    def predict_proba(self, X: Any) -> Any:
        assert self.asked is not None
        return self.asked.answer(np.asarray(X, dtype=np.float32)).astype(np.float64)

    def predict(self, X: Any) -> Any:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def __sklearn_is_fitted__(self) -> bool:
        return True


def peers() -> Mapping[str, Chooser]:
    """Those that need a model begin with our start; the others begin by themselves."""
    quick = {"n_init": 1}
    return {
        "margin (peer)": _with_model(lambda a: UncertaintySampling(method="margin_sampling", random_state=a.seed)),
        "Badge (peer)": _with_model(lambda a: Badge(random_state=a.seed)),
        "DropQuery (peer)": _with_model(lambda a: DropQuery(random_state=a.seed, cluster_algo_dict=quick)),
        "TypiClust (peer)": _alone(lambda a: TypiClust(
            random_state=a.seed, cluster_algo=MiniBatchKMeans, cluster_algo_dict={"random_state": a.seed, **quick}
        )),
        "CoreSet (peer)": _alone(lambda a: CoreSet(random_state=a.seed)),
        "ProbCover (peer)": _alone(lambda a: ProbCover(
            n_classes=a.classes, random_state=a.seed, cluster_algo_dict={"random_state": a.seed, **quick}
        )),
    }  # fmt: skip


def _with_model(make: Callable[[ChoiceRequest], Any]) -> Chooser:
    start = by_policy(START)

    def choose(asked: ChoiceRequest) -> Ints:
        if asked.probabilities is None:
            return start(asked)
        return _ints(make(asked).query(
            asked.rows, _labels(asked), clf=Given(asked, classes=np.arange(asked.classes)), fit_clf=False,
            batch_size=asked.batch, candidates=asked.open,
        ))  # fmt: skip

    return choose


def _alone(make: Callable[[ChoiceRequest], Any]) -> Chooser:
    def choose(asked: ChoiceRequest) -> Ints:
        found = make(asked).query(asked.rows, _labels(asked), batch_size=asked.batch, candidates=asked.open)
        return _ints(found)

    return choose


def _labels(asked: ChoiceRequest) -> Any:
    labels = np.full(len(asked.rows), np.nan)
    labels[asked.labelled] = asked.labels
    return labels


def _ints(found: Any) -> Ints:
    return np.asarray(found, dtype=np.int64)
