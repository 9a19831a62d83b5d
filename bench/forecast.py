"""`python -m bench.forecast`: forecasts of accuracy against what came true, on digits and on class folders.

Labels grow in batches, most unsure first and spread over clusters, one in ten drawn at random. At several moments the
accuracy 100 and 200 labels later is forecast from the random labels of that moment alone, and compared with the truth
on the images that nobody labelled. Beside it stand the last value and a straight line over the logarithm of the label
count. Random labels train nothing, so that one run of heads serves many draws of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.ensemble import features_of
from labelloop.config.project import BackboneSpec, Stop
from labelloop.config.settings import data_dir
from labelloop.model import net
from labelloop.model.head import Head
from labelloop.records.curve import RIGHT, WRONG, KeptCurve, Point, Points
from labelloop.rules.acquisition import Query, strategy
from labelloop.rules.learning_curve import curve_of
from labelloop.rules.stop_advice import Act, outlook
from operations.projects.digits import write_digits
from operations.projects.imagefolder import scan
from retrain_worker.heads.logistic import fit_head, rotate

OTHERS = 0.45  # share of the images that never train: random labels and the truth
SHORT = 5  # batches among which the next one is chosen
MOMENTS = (200, 300, 400, 500)  # labels given, random ones among them
LATER = (100, 200)
DRAWS = 2000
TARGETS = (0.8, 0.85, 0.9, 0.95)
FOLDERS = ("intel_scenes", "cifar10_12k", "caltech20", "covid_xray")

Arrays = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Images:
    """A data set: features (n, d) and classes (n,)."""

    name: str
    features: Arrays
    labels: Arrays


@dataclass(frozen=True)
class Run:
    """Heads as labels grew: after so many ``given`` and so many that train; ``wrong`` (heads, other images)."""

    name: str
    given: Arrays
    trained: Arrays
    wrong: Arrays


@dataclass(frozen=True)
class Case:
    """One moment under one draw of the random labels."""

    name: str
    points: Points
    more: tuple[int, ...]
    share: float
    seen: int  # images that the truth is measured on
    now: float  # true error
    later: tuple[float, ...]  # true errors
    reached: int | None  # labels until the true error was first what it is 100 labels later


@dataclass(frozen=True)
class Said:
    """One forecaster on one case: draws of the error now and later (draws, 1 + later)."""

    case: Case
    draws: Arrays


# --- runs


def digits() -> Images:
    """By the built-in network."""
    with tempfile.TemporaryDirectory() as folder:
        files = scan(write_digits(Path(folder)), "")
        backbone = net.build(BackboneSpec(name="pixels"), [])
        starts = range(0, len(files), 64)
        pixels = (np.stack([backbone.decode(f.path.read_bytes()) for f in files[i : i + 64]]) for i in starts)
        features = np.concatenate([backbone.features(p) for p in pixels])
        return Images("digits", features, np.array([str(f.label) for f in files]))


def folder(path: Path, cache: Path | None) -> Images:
    """By mobilenetv2_100, all parts of the folder together; features are computed once where there is a cache."""
    kept = cache / f"{path.name}.npz" if cache else None
    if kept and kept.exists():
        found = np.load(kept)
        return Images(path.name, found["X"], found["y"])
    parts = [path / part for part in ("train", "test", "val") if (path / part).is_dir()] or [path]
    files = [f for part in parts for f in scan(part, f"{part.name}/")]
    images = Images(path.name, features_of(files), np.array([str(f.label) for f in files]))
    if kept:
        np.savez(kept, X=images.features, y=images.labels)
    return images


def run(images: Images, *, seed: int, labels: int, batch: int, quota: float) -> Run:
    """Label on and on; after each batch a head, and what it says of all images that never train."""
    order = np.random.default_rng(seed).permutation(len(images.labels))
    others, pool = np.split(order, [round(OTHERS * len(order))])
    chosen: list[int] = []
    head, strength = None, None
    given, trained, wrong = [], [], []
    for count in range(batch, labels + 1, batch):
        open_rows = np.setdiff1d(pool, chosen)
        wanted = round(count * (1 - quota)) - len(chosen)
        if len(open_rows) < wanted:
            break
        chosen += next_rows(images, head, open_rows, batch, seed)[:wanted].tolist()
        names, counts = np.unique(images.labels[chosen], return_counts=True)
        classes = tuple(str(n) for n in names[counts >= 3])
        if len(classes) < 2:
            continue
        known = [str(label) if label in classes else None for label in images.labels[chosen]]
        fitted = fit_head(rotate(images.features[chosen]), known, [str(r) for r in chosen], classes=classes,
                          strength=strength)  # fmt: skip
        head, strength = fitted.head, fitted.strength
        answers = np.array(classes)[head.probabilities(images.features[others]).argmax(axis=1)]
        given.append(count)
        trained.append(sum(k is not None for k in known))
        wrong.append(answers != images.labels[others])
    return Run(images.name, np.array(given), np.array(trained), np.array(wrong))


def next_rows(images: Images, head: Head | None, rows: Arrays, batch: int, seed: int) -> Arrays:
    """Most unsure first, spread over clusters; before there is a head those that stand for most others."""
    probabilities = None if head is None else head.probabilities(images.features[rows])
    query = Query(len(rows), lambda places: images.features[rows[places]], probabilities, batch=batch, seed=seed)
    return rows[strategy("herding" if head is None else "cluster-margin").order(query, SHORT * batch)]


def cases(found: Run, *, draws: int, quota: float) -> Iterator[Case]:
    """Every moment under every draw."""
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(found.wrong.shape[1])
        for moment in MOMENTS:
            places = [int(np.searchsorted(found.given, moment + more)) for more in (0, *LATER)]
            random = round(quota * moment)
            if places[-1] >= len(found.given) or 2 * random > len(order):
                continue
            truth = found.wrong[:, order[random:]].mean(axis=1)
            until = places[0] + 1
            points = Points(found.trained[:until].astype(float), found.wrong[:until, order[:random]].T.astype(float))
            errors = tuple(float(truth[p]) for p in places)
            seen = len(order) - random
            yield Case(found.name, points, LATER, 1 - quota, seen, errors[0], errors[1:],
                       _reached(found, truth, places))  # fmt: skip


def _reached(found: Run, truth: Arrays, places: Sequence[int]) -> int | None:
    """By the mean of three heads in a row: one head's luck is no progress."""
    smooth = np.convolve(truth, np.ones(3) / 3, mode="same")[places[0] : -1]
    there = np.flatnonzero(smooth <= smooth[places[1] - places[0]])
    return int(found.given[places[0] + there[0]] - found.given[places[0]]) if len(there) else None


# --- forecasters


def by_curve(case: Case) -> Arrays:
    """What `labelloop curve` says."""
    curve = curve_of(case.points, share=case.share)
    return 1 - np.stack([curve.accuracies(more) for more in (0, *case.more)], axis=1)


def by_last_value(case: Case) -> Arrays:
    """It stays as it is."""
    wrong = case.points.wrong[:, -1]
    rng = np.random.default_rng(0)
    drawn = rng.beta(wrong.sum() + 1, len(wrong) - wrong.sum() + 1, DRAWS)
    return np.repeat(drawn[:, None], 1 + len(case.more), axis=1)


def by_line(case: Case) -> Arrays:
    """Least squares over the logarithm of the label count, the random labels resampled."""
    labels, wrong = case.points.labels, case.points.wrong
    rows = np.concatenate([wrong, np.zeros((1, len(labels))), np.ones((1, len(labels)))])
    errors = np.random.default_rng(0).dirichlet(np.ones(len(rows)), DRAWS) @ rows
    ahead = np.log(labels[-1] + case.share * np.array([0, *case.more]))
    slope, level = np.polyfit(np.log(labels), errors.T, 1)
    return np.asarray(np.clip(level[:, None] + slope[:, None] * ahead, 0, 1))


FORECASTERS: dict[str, Callable[[Case], Arrays]] = {
    "curve": by_curve, "last value": by_last_value, "line in log labels": by_line,
}  # fmt: skip


# --- figures


def figures(said: Sequence[Said]) -> dict[str, float]:
    """Over all cases; shares in [0, 1], the rest in points of accuracy."""
    drawn = np.array([np.quantile(_as_measured(s), (0.5, 0.1, 0.9, 0.025, 0.975), axis=0) for s in said])
    middle, low, high, lowest, highest = drawn.transpose(1, 0, 2)
    truth = np.array([s.case.later for s in said])
    gains = np.array([s.draws[:, :1] - s.draws[:, 1:] for s in said])
    true_gains = np.array([s.case.now for s in said])[:, None] - truth
    missed = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
    return {
        "in_80": float(((low <= truth) & (truth <= high)).mean()),
        "in_95": float(((lowest <= truth) & (truth <= highest)).mean()),
        "error": 100 * float(np.median(np.abs(middle - truth))),
        "gain_error": 100 * float(np.median(np.abs(np.median(gains, axis=1) - true_gains))),
        "width_80": 100 * float((high - low).mean()),
        "score_80": 100 * float((high - low + 10 * missed).mean()),
    }


def _as_measured(said: Said) -> Arrays:
    """Draws of the errors to come, with the luck of the images that the truth is measured on."""
    errors, rng = said.draws[:, 1:], np.random.default_rng(1)
    return np.asarray(errors + rng.standard_normal(errors.shape) * np.sqrt(errors * (1 - errors) / said.case.seen))


def reaches(found: Sequence[Case]) -> float:
    """How often labels to what was true 100 labels later lay in the 80 % interval."""
    inside = []
    for case in found:
        if case.reached is None or case.later[0] >= case.now:
            continue
        reach = curve_of(case.points, share=case.share).to(1 - case.later[0])
        inside.append(reach.low is not None and reach.low <= case.reached <= (reach.high or np.inf))
    return float(np.mean(inside)) if inside else float("nan")


def first_stop(found: Run, *, draw: int, quota: float, policy: Stop) -> tuple[float, float] | None:
    """(true accuracy, true gain of the next 100 labels) where whoever looks at every head is first told to stop."""
    order = np.random.default_rng(draw).permutation(found.wrong.shape[1])
    for place, given in enumerate(found.given):
        later = int(np.searchsorted(found.given, given + 100))
        random = round(quota * given)
        if later >= len(found.given):
            return None
        if outlook(_kept(found, place, order[:random]), policy, quota=quota).advice.act is Act.STOP:
            truth = 1 - found.wrong[:, order[random:]].mean(axis=1)
            return float(truth[place]), float(truth[later] - truth[place])
    return None


def _kept(found: Run, place: int, rows: Arrays) -> KeptCurve:
    """As a worker keeps it after that many heads."""
    points = tuple(
        Point(f"v{i}", "refresh", int(found.trained[i]), "b", "linear", "",
              "".join(WRONG if wrong else RIGHT for wrong in found.wrong[i, rows]))
        for i in range(place + 1)
    )  # fmt: skip
    return KeptCurve("", "", f"v{place}", test=len(rows), audit=0, points=points, left=10**6)


def stops(runs: Sequence[Run], *, draws: int, quota: float, policy: Stop) -> tuple[Arrays, float]:
    """What was true at the first advice to stop (stops, 2), and how many of all runs came to one."""
    found = [first_stop(r, draw=draw, quota=quota, policy=policy) for r in runs for draw in range(draws)]
    told = [f for f in found if f]
    return np.array(told).reshape(-1, 2), len(told) / len(found)


def show_stops(name: str, runs: Sequence[Run], *, draws: int, quota: float) -> None:
    """How right the advice was: a target on its own, then a small gain on its own."""
    for target in TARGETS:
        told, share = stops(runs, draws=draws, quota=quota, policy=Stop(target=target, gain=0.0))
        missed = np.maximum(target - told[:, 0], 0)
        row = {"target": target, "advised": share, "wrong": share * float((missed > 0).mean()) if len(told) else 0.0,
               "short": 100 * float(missed.max(initial=0))}  # fmt: skip
        print(f"  stop at {target:.2f}: advised in {share:.2f} of all runs, wrongly in {row['wrong']:.2f}, "
              f"{row['short']:.1f} points short at worst")  # fmt: skip
        print(json.dumps({"bench": "forecast", "set": name, **row}))
    told, share = stops(runs, draws=draws, quota=quota, policy=Stop())
    gains = 100 * told[:, 1]
    if len(told):
        more = (gains > 100 * Stop().gain).mean()
        print(f"  stop for small gain: advised in {share:.2f} of all runs; the next 100 labels then brought "
              f"{gains.mean():+.2f} points on average, more than half a point in {more:.2f}")  # fmt: skip
    else:
        print("  stop for small gain: never advised")
    print(json.dumps({"bench": "forecast", "set": name, "small_gain": share, "gains": gains.round(2).tolist()}))


def show(name: str, found: Sequence[Case]) -> None:
    """A table for people, a line of JSON for machines."""
    print(f"\n{name}: {len(found)} moments, {len(LATER)} forecasts each")
    print("                        in 80 %  in 95 %  error  gain error  width 80 %  score 80 %")
    for who, forecast in FORECASTERS.items():
        row = figures([Said(case, forecast(case)) for case in found])
        print(f"  {who:<20}  {row['in_80']:7.3f}  {row['in_95']:7.3f}  {row['error']:5.2f}  {row['gain_error']:10.2f}"
              f"  {row['width_80']:10.1f}  {row['score_80']:10.1f}")  # fmt: skip
        print(json.dumps({"bench": "forecast", "set": name, "by": who, **row}))
    reached = reaches(found)
    print(f"  labels to the accuracy of 100 labels later: {reached:.3f} in the 80 % interval")
    print(json.dumps({"bench": "forecast", "set": name, "reach_in_80": reached}), flush=True)


def _kept_run(images: Images, given: argparse.Namespace, seed: int) -> Run:
    """Made once where there is a cache."""
    name = f"run-{images.name}-{seed}-{given.labels}-{given.batch}-{given.quota}.npz"
    kept = given.cache / name if given.cache else None
    if kept and kept.exists():
        found = np.load(kept)
        return Run(images.name, found["given"], found["trained"], found["wrong"])
    made = run(images, seed=seed, labels=given.labels, batch=given.batch, quota=given.quota)
    if kept:
        np.savez_compressed(kept, given=made.given, trained=made.trained, wrong=made.wrong)
    return made


def main() -> None:
    """See the module."""
    root = data_dir()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="digits," + ",".join(FOLDERS), help="digits, and folders of LABELLOOP_DATA")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--labels", type=int, default=700)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--quota", type=float, default=0.1)
    parser.add_argument("--draws", type=int, default=20, help="of the random labels, for each run")
    parser.add_argument("--cache", type=Path, help="folder that keeps the features")
    given = parser.parse_args()
    everything: list[Case] = []
    all_runs: list[Run] = []
    if given.cache:
        given.cache.mkdir(parents=True, exist_ok=True)
    for name in given.sets.split(","):
        if name != "digits" and root is None:
            parser.error(f"{name} is a folder of LABELLOOP_DATA, which is not set; --sets digits needs none")
        images = digits() if name == "digits" else folder(root / name, given.cache)
        seeds = [int(seed) for seed in given.seeds.split(",")]
        runs = [_kept_run(images, given, seed) for seed in seeds]
        found = [case for made in runs for case in cases(made, draws=given.draws, quota=given.quota)]
        if found:
            show(name, found)
            show_stops(name, runs, draws=given.draws // 2, quota=given.quota)
        else:
            print(f"\n{name}: too few images for {MOMENTS[0] + LATER[-1]} labels")
        everything, all_runs = everything + found, all_runs + runs
    show("all", everything)
    show_stops("all", all_runs, draws=given.draws // 2, quota=given.quota)


if __name__ == "__main__":
    main()
