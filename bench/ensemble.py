"""`python -m bench.ensemble`: the linear head against the ensemble on kept features of mobilenetv2_100, real images.

For each number of labels, drawn at random: accuracy and log loss on held-out images, CPU seconds of the fit with its
folds, CPU milliseconds per 1000 predictions, bytes. Each member alone, as it votes, stands below the ensemble.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from labelloop.config.project import BackboneSpec
from labelloop.config.settings import data_dir, load_settings
from labelloop.model import net
from labelloop.model.classifier import Classifier
from labelloop.model.ensemble import EnsembleHead
from labelloop.records.arrays import Floats
from operations.projects.imagefolder import LabelledFile, scan
from retrain_worker.heads.ensemble import EnsembleRecipe, fit_ensemble
from retrain_worker.heads.logistic import codes, fit_head, log_loss, rotate

BATCH = 32
DRAWS = 3  # disjoint sets of labels, where there are enough images


@dataclass(frozen=True)
class Images:
    """Features of labelled images; the groups are what their folds go by."""

    features: Floats
    labels: list[str]
    groups: list[str]

    def some(self, rows: Sequence[int]) -> Images:
        return Images(self.features[rows], [self.labels[i] for i in rows], [self.groups[i] for i in rows])


@dataclass(frozen=True)
class Figures:
    """One head at one number of labels, mean over the draws."""

    head: str
    labels: int
    accuracy: float
    log_loss: float
    fit_s: float
    ms_per_1000: float
    bytes: int


def featurised(folder: Path, count: int, cache: Path | None) -> Images:
    """Images of the folder, drawn at random; features are computed once where there is a cache."""
    files = scan(folder, "")
    chosen = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:count]]
    kept = cache / f"{folder.parent.name}-{folder.name}-{len(chosen)}.npy" if cache else None
    features = np.load(kept) if kept and kept.exists() else features_of(chosen)
    if kept and not kept.exists():
        np.save(kept, features)
    return Images(features, [str(f.label) for f in chosen], [f.key for f in chosen])


def features_of(files: Sequence[LabelledFile]) -> Floats:
    """By mobilenetv2_100, (files, 1280)."""
    spec = BackboneSpec(name="mobilenetv2_100", options={"pad_type": "same"})
    backbone = net.build(spec, load_settings().weights_dirs, offline=True)
    print(f"features of {len(files)} images by {backbone.record.name}, weights: {backbone.record.provenance}")
    starts = range(0, len(files), BATCH)
    decoded = (np.stack([backbone.decode(f.path.read_bytes()) for f in files[i : i + BATCH]]) for i in starts)
    return np.concatenate([backbone.features(pixels) for pixels in decoded])


def linear(images: Images, classes: tuple[str, ...]) -> Classifier:
    """The head that a refresh fits."""
    return fit_head(rotate(images.features), images.labels, images.groups, classes=classes).head


def ensemble(images: Images, classes: tuple[str, ...], budget_s: float) -> EnsembleHead:
    """All six members, or those that the budget allows."""
    recipe = EnsembleRecipe(budget_s=budget_s)
    fitted = fit_ensemble(images.features, images.labels, images.groups, classes=classes, recipe=recipe)
    for name, why in fitted.left_out.items():
        print(f"  {name} was left out at {len(images.labels)} labels: {why}")
    return fitted.head


def judged(name: str, count: int, head: Classifier, fit_s: float, test: Images) -> Figures:
    """What the head says of the held-out images."""
    began = time.process_time()
    probabilities = head.probabilities(test.features)
    spent = time.process_time() - began
    truth = codes(test.labels, head.labels)
    return Figures(
        name, count, float((probabilities.argmax(axis=1) == truth).mean()), log_loss(probabilities, truth),
        fit_s, 1e6 * spent / len(truth), len(head.dump()),
    )  # fmt: skip


def alone(head: EnsembleHead) -> Iterator[tuple[str, EnsembleHead]]:
    """Each member as a head of its own."""
    for member in head.members:
        yield member.name, EnsembleHead(head.labels, head.dimension, (member,))


def measured(count: int, train: Images, test: Images, budget_s: float) -> Iterator[Figures]:
    """Both heads, and the members, at one number of labels and one draw after the other."""
    classes = tuple(sorted(set(test.labels)))
    for draw in range(min(DRAWS, len(train.labels) // count)):
        mine = train.some(range(draw * count, (draw + 1) * count))
        fits: dict[str, Callable[[], Classifier]] = {
            "linear": partial(linear, mine, classes),
            "ensemble": partial(ensemble, mine, classes, budget_s),
        }
        for name, fit in fits.items():
            began = time.process_time()
            head = fit()
            yield judged(name, count, head, time.process_time() - began, test)
            if isinstance(head, EnsembleHead):
                yield from (judged(f"{n} alone", count, one, float("nan"), test) for n, one in alone(head))


def means(figures: Sequence[Figures]) -> list[Figures]:
    """One row for each head, in the order in which they came."""
    rows = []
    for name in dict.fromkeys(f.head for f in figures):
        same = [list(asdict(f).values())[2:] for f in figures if f.head == name]
        accuracy, loss, fit_s, ms, size = np.mean(np.array(same, dtype=np.float64), axis=0).tolist()
        rows.append(Figures(name, figures[0].labels, accuracy, loss, fit_s, ms, int(size)))
    return rows


def show(rows: Sequence[Figures]) -> None:
    """One line for each head."""
    for row in rows:
        fit = f"{row.fit_s:8.1f}" if np.isfinite(row.fit_s) else " " * 8
        print(
            f"{row.labels:>6}  {row.head:<21} {row.accuracy:.3f} {row.log_loss:9.3f} {fit} {row.ms_per_1000:8.1f} "
            f"{row.bytes:>11,}",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    folder = data_dir()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, default=folder and folder / "intel_scenes/train")
    parser.add_argument("--test", type=Path, default=folder and folder / "intel_scenes/test")
    parser.add_argument("--labels", default="100,300,1000")
    parser.add_argument("--held-out", type=int, default=600, help="images to judge on")
    parser.add_argument("--budget", type=float, default=600, help="seconds for one ensemble")
    parser.add_argument("--cache", type=Path, help="folder that keeps the features")
    asked = parser.parse_args()
    if not (asked.images and asked.test):
        parser.error("name the folders with --images and --test, or the folder of both with LABELLOOP_DATA")
    counts = [int(c) for c in asked.labels.split(",")]
    train = featurised(asked.images, max(counts), asked.cache)
    test = featurised(asked.test, asked.held_out, asked.cache)
    ensemble(test.some(range(30)), tuple(sorted(set(test.labels))), asked.budget)  # libraries are loaded by now
    print("labels  head               accuracy  log loss    fit s  ms/1000       bytes")
    for count in counts:
        rows = means(list(measured(count, train, test, asked.budget)))
        show(rows)
        for row in rows:
            print(json.dumps({"bench": "ensemble", **{k: v for k, v in asdict(row).items() if v == v}}))  # noqa: PLR0124


if __name__ == "__main__":
    main()
