"""`python -m bench.auto_label`: whether auto-labels keep their promise, on real images with known classes.

A replay: all images are divided at random into audit and train; a few hundred train labels are chosen as the loop
chooses them, a head is fitted and calibrated out of fold as a refresh does it (unlabelled train images lend their
features), and the rule decides by the audit labels alone. Then the true classes of the rest say whether the labels
given were as right as was promised. Beside it stands what is often done: the lowest threshold at which a plain binomial
bound on the audit labels holds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import structlog
from scipy.stats import binom, binomtest

from bench.acquisition import SETS, history
from labelloop.config.project import load_config
from labelloop.config.settings import data_dir
from labelloop.records.arrays import Floats
from labelloop.rules.acquisition import Query, Situation, choose, strategy
from labelloop.rules.auto_label.rule import STEPS, Audit, Bools, Ints, PoolAnswers, Promise, decide
from retrain_worker.evidence.collect import entering
from retrain_worker.heads.recipe import POOL_MOST, HeadRecipe, Lesson, fit

CLASS_MIN = 3
BATCH = 100  # labels from one model to the next; the loop refits more often


@dataclass(frozen=True)
class Images:
    """One row per image; those that show the same are left out but for the first."""

    features: Floats
    labels: list[str]
    groups: list[str]


@dataclass(frozen=True)
class Replay:
    """What a model says of every image, and which of them are what."""

    answers: PoolAnswers
    right: Bools
    audit: Ints  # in the order in which they were drawn
    rest: Ints

    def given(self, rows: Ints) -> PoolAnswers:
        return PoolAnswers(self.answers.classes[rows], self.answers.sureness[rows])


@dataclass(frozen=True)
class Outcome:
    """One replay under one promise."""

    coverage: float
    right: float  # share of the labels given; 1 where there are none
    kept: bool


@dataclass(frozen=True)
class Figures:
    """All replays. ``low`` and ``high``: exact 95 % interval of ``kept``."""

    images: str
    policy: str
    rule: str
    precision: float
    replays: int
    kept: float
    low: float
    high: float
    coverage: float
    median: float
    refused: float
    worst: float  # precision, where labels were given
    accuracy: float  # of the head on all that is left


def images_of(name: str, folder: Path, config: Path, keep: Path) -> Images:
    """All images of a set, its test folder included; features are computed once and kept."""
    found = history(name, folder, load_config(config), keep)
    parts = [part for part in (found.images, found.held_out) if part]
    groups: dict[str, list[tuple[Floats, int]]] = {}
    for part in parts:
        for row, code, group in zip(part.features, part.labels, part.groups, strict=True):
            groups.setdefault(group, []).append((row, int(code)))
    agreed = {g: same[0] for g, same in groups.items() if len({code for _, code in same}) == 1}
    features = np.stack([row for row, _ in agreed.values()])
    return Images(features, [found.classes[code] for _, code in agreed.values()], list(agreed))


def replay(images: Images, policy: str, labels: int, audit: int, seed: int) -> Replay:
    """One division, and the model that comes of it."""
    names, codes = np.unique(images.labels, return_inverse=True)
    draw = np.random.default_rng(seed).permutation(len(codes))
    sample, pool = draw[:audit], draw[audit:]
    chosen: Ints = np.zeros(0, dtype=np.int64)
    classes: tuple[str, ...] = ()
    answers: Floats | None = None
    while len(chosen) < labels:
        rest = np.setdiff1d(pool, chosen)
        query = Query(
            len(rest), partial(_rows, images.features, rest), None if answers is None else answers[rest],
            images.features[chosen], np.array([_column(classes, images.labels[i]) for i in chosen], dtype=np.int64),
            seed=seed,
        )  # fmt: skip
        order = strategy(choose(policy, Situation(answers is not None)).strategy).order(query, BATCH)
        chosen = np.concatenate([chosen, rest[order[: labels - len(chosen)]]])
        rest = np.setdiff1d(pool, chosen)
        helping = np.random.default_rng(seed).permutation(rest)[:POOL_MOST] if len(chosen) == labels else rest[:0]
        classes, answers = _fitted(images, chosen, helping)
    assert answers is not None
    said = np.searchsorted(names, classes)[answers.argmax(axis=1)]
    given = PoolAnswers(said.astype(np.int64), answers.max(axis=1))
    return Replay(given, said == codes, sample, np.setdiff1d(pool, chosen))


def _rows(features: Floats, rest: Ints, rows: Ints) -> Floats:
    return features[rest[rows]]


def _column(classes: Sequence[str], label: str) -> int:
    return classes.index(label) if label in classes else -1


def _fitted(images: Images, rows: Ints, helping: Ints) -> tuple[tuple[str, ...], Floats]:
    """The classes of a head that has learned these, and what it says of all images. ``helping``: unlabelled ones."""
    labels = [images.labels[i] for i in rows]
    classes, _ = entering(labels, CLASS_MIN)
    known = [label if label in classes else None for label in labels]
    lesson = Lesson(
        images.features[rows], [images.groups[i] for i in rows], known, classes, pool=images.features[helping]
    )
    head = fit(lesson, HeadRecipe())[0].head
    return classes, head.probabilities(images.features)


def ours(found: Replay, promise: Promise) -> Outcome:
    """By the rule."""
    return _outcome(found, promise, _accepted(found, promise, len(found.audit)))


def first_yes(found: Replay, promise: Promise, every: int) -> Outcome:
    """By the rule, asked again after so many audit labels until it says yes."""
    for drawn in range(every, len(found.audit) + 1, every):
        accepted = _accepted(found, promise, drawn)
        if accepted.any():
            break
    return _outcome(found, promise, accepted)


def _accepted(found: Replay, promise: Promise, drawn: int) -> Bools:
    sample = found.audit[:drawn]
    audit = Audit(found.given(sample), ~found.right[sample], len(found.right))
    return decide(audit, found.given(found.rest), promise).accepts(found.given(found.rest))


def plain(found: Replay, promise: Promise) -> Outcome:
    """The lowest threshold with a one-sided binomial bound, corrected neither for the search nor for what is gone."""
    sure = found.answers.sureness
    best = np.inf
    for threshold in np.quantile(sure[found.rest], np.arange(STEPS) / STEPS):
        above = found.audit[sure[found.audit] >= threshold]
        wrong = int((~found.right[above]).sum())
        if len(above) and binom.cdf(wrong, len(above), 1 - promise.precision) <= 1 - promise.confidence:
            best = min(best, float(threshold))
    return _outcome(found, promise, np.asarray(sure[found.rest] >= best))


def _outcome(found: Replay, promise: Promise, accepted: Bools) -> Outcome:
    right = float(found.right[found.rest][accepted].mean()) if accepted.any() else 1.0
    return Outcome(float(accepted.mean()), right, right >= promise.precision)


def summed(images: str, policy: str, rule: str, promise: Promise, outcomes: Sequence[Outcome], acc: float) -> Figures:
    """Over all replays."""
    kept = sum(o.kept for o in outcomes)
    interval = binomtest(kept, len(outcomes)).proportion_ci(method="exact")
    coverage = np.array([o.coverage for o in outcomes])
    return Figures(
        images, policy, rule, promise.precision, len(outcomes), kept / len(outcomes), float(interval.low),
        float(interval.high), float(coverage.mean()), float(np.median(coverage)), float((coverage == 0).mean()),
        min((o.right for o in outcomes if o.coverage), default=float("nan")), acc,
    )  # fmt: skip


def measured(name: str, images: Images, policy: str, given: argparse.Namespace) -> Iterator[Figures]:
    """Every promise under every rule, on the same replays."""
    found = [replay(images, policy, given.labels, given.audit, seed) for seed in range(given.replays)]
    accuracy = float(np.mean([r.right[r.rest].mean() for r in found]))
    for precision in map(float, given.precision.split(",")):
        promise = Promise(precision)
        rules = {
            "ours": [ours(r, promise) for r in found],
            f"first yes of each {given.looks}": [first_yes(r, promise, given.looks) for r in found],
            "plain bound": [plain(r, promise) for r in found],
        }
        for rule, outcomes in rules.items():
            yield summed(name, policy, rule, promise, outcomes, accuracy)


def show(row: Figures) -> None:
    """One line for people, one for machines."""
    kept = f"{row.kept:.2f} ({row.low:.2f} to {row.high:.2f})"
    print(
        f"{row.images:<14}{row.policy:<9}{row.rule:<22}{row.precision:<9g}{kept:<22}{row.coverage:<10.3f}"
        f"{row.median:<8.3f}{row.refused:<9.2f}{row.worst:<8.3f}{row.accuracy:.3f}"
    )
    print(json.dumps({"bench": "auto_label", **{k: v for k, v in asdict(row).items() if v == v}}), flush=True)  # noqa: PLR0124


def main() -> None:
    """See the module."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    folder = data_dir()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=folder, help="where the sets lie; else LABELLOOP_DATA")
    parser.add_argument("--sets", default="caltech20,intel_scenes,cifar10_12k", help=f"of {', '.join(SETS)}")
    parser.add_argument("--policies", default="auto,random", help="how the train labels are chosen")
    parser.add_argument("--labels", type=int, default=300, help="train labels")
    parser.add_argument("--audit", type=int, default=400, help="audit labels")
    parser.add_argument("--replays", type=int, default=100)
    parser.add_argument("--precision", default="0.95,0.99", help="promises")
    parser.add_argument("--looks", type=int, default=50, help="audit labels between two looks")
    parser.add_argument("--config", type=Path, default=Path("configs/intel_scenes.yaml"), help="its backbone is used")
    parser.add_argument("--keep", type=Path, default=Path(".labelloop-features"), help="folder that keeps the features")
    given = parser.parse_args()
    if given.folder is None:
        parser.error("name the folder of the sets with --folder or LABELLOOP_DATA")
    print("images        policy   rule                  promised kept (95 % interval)  coverage  median  "
          "refused  worst   accuracy")  # fmt: skip
    for name in given.sets.split(","):
        images = images_of(name, given.folder, given.config, given.keep)
        for policy in given.policies.split(","):
            for row in measured(name, images, policy, given):
                show(row)


if __name__ == "__main__":
    main()
