"""`python -m bench.acquisition`: labels that each order of labelling needs, ours and scikit-activeml's, against random.

Every arm of a seed sees the same pool, features, head and checkpoints; arms that need a model begin with the same ten
images. A seed's curves go to a JSON file as soon as it ends, so that a run goes on where it was stopped and several can
share the seeds (`--seeds 0-4`, `--seeds 5-9`, then `--seeds 0-9` for the table); the picture lies beside.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cli.here.replay_data import history_of_folders
from cli.terminal.reporting import reporting
from cli.views.replay import plot_replay
from labelloop.config.networks import PIXELS
from labelloop.config.project import BackboneSpec, ProjectConfig, load_config
from labelloop.config.settings import load_settings
from labelloop.rules.acquisition import STRATEGIES
from operations.projects.digits import write_digits
from retrain_worker.replay.arm import ArmCurve, Chooser, by_policy
from retrain_worker.replay.comparison import compare
from retrain_worker.replay.history import ReplayHistory
from retrain_worker.replay.rounds import RANDOM, Replayed, ReplayPlan, replay

OURS = ("auto", "uncertain-herding", "cluster-margin", "margin", "herding")


@dataclass(frozen=True, slots=True)
class Set:
    """A data set and the budgets at which orders are compared."""

    train: str
    test: str | None
    budgets: tuple[int, ...]


SETS: Mapping[str, Set] = {
    "digits": Set("digits", None, (100, 200, 500)),
    "covid_xray": Set("covid_xray/train", "covid_xray/val", (100, 200)),
    "caltech20": Set("caltech20", None, (100, 200, 600)),
    "intel_scenes": Set("intel_scenes/train", "intel_scenes/test", (200, 600, 2000)),
    "cifar10_12k": Set("cifar10_12k/train", "cifar10_12k/test", (600, 2000)),
}


def history(
    name: str, data: Path, config: ProjectConfig, keep: Path, *, digits: ProjectConfig | None = None
) -> ReplayHistory:
    """The set's features; the few images of the X-ray set are split by each seed, its own val folder included.

    ``digits``: the config of the digits, which are seen by the pixel network unless it says otherwise.
    """
    chosen = SETS[name]
    with tempfile.TemporaryDirectory() as folder, reporting(Console(stderr=True)) as report:
        if name == "digits":
            images = write_digits(keep / "digits")
            plain = digits or ProjectConfig(backbone=BackboneSpec(name=PIXELS))
            return history_of_folders(images, None, plain, load_settings(), keep=keep, report=report)
        test = data / chosen.test if chosen.test else None
        train = data / chosen.train
        if name == "covid_xray" and test:
            train, test = _together(Path(folder), train, test), None
        return history_of_folders(train, test, config, load_settings(), keep=keep, report=report)


def _together(folder: Path, *parts: Path) -> Path:
    """One tree of class folders with the images of several, as links."""
    for part in parts:
        for path in sorted(p for p in part.rglob("*") if p.is_file() and p.parent != part):
            place = folder / path.parent.name
            place.mkdir(exist_ok=True)
            (place / f"{part.name}-{path.name}").symlink_to(path)
    return folder


def table(found: Replayed, budgets: Sequence[int]) -> Table:
    """Times fewer labels at each budget, area, worst checkpoint."""
    shown = Table(box=None)
    for head in ("order", *(f"times fewer at {b}" for b in budgets), "area", "worst points (at)"):
        shown.add_column(head)
    rows = [(name, *_figures(found.curves, name, budgets)) for name in found.curves]
    for name, cells, area, worst in sorted(rows, key=lambda row: -row[2]):
        shown.add_row(name, *cells, f"{area:.4f}", worst)
    return shown


def _figures(
    curves: Mapping[str, Sequence[ArmCurve]], name: str, budgets: Sequence[int]
) -> tuple[list[str], float, str]:
    cells, last = [], None
    for budget in budgets:
        ours, random = ([c.until(budget) for c in curves[arm]] for arm in (name, RANDOM))
        last = compare(ours, random, name)
        ratio = last.times_fewer
        cells.append(f"{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f})")
    assert last is not None
    low, middle, high = (100 * v for v in (last.worst.low, last.worst.value, last.worst.high))
    return cells, last.area, f"{middle:+.1f} ({low:+.1f} to {high:+.1f}) at {last.worst_at}"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with the sets; digits need none")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--config", type=Path, default=Path("configs/intel_scenes.yaml"), help="the backbone's")
    parser.add_argument("--keep", type=Path, default=Path(".labelloop-features"), help="kept features")
    parser.add_argument("--seeds", default="0-9", help="first and last")
    parser.add_argument("--ours", default=",".join(OURS), help="our strategies")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--plain-head", action="store_true", help="a head that learns from labels alone")
    parser.add_argument("--out", type=Path, required=True, help="folder for curves (JSON) and pictures (SVG)")
    given = parser.parse_args()
    for name in given.sets.split(","):
        found = _replayed(name, given)
        Console(width=200).print(f"\n{name}, seeds {given.seeds}", table(found, SETS[name].budgets))
        _keep(found, name, given)


def _replayed(name: str, given: argparse.Namespace) -> Replayed:
    choosers: dict[str, Chooser] = {n: by_policy(n) for n in (RANDOM, *given.ours.split(","))}
    if not given.no_peers:
        from bench.tools.peers import peers

        choosers |= peers()
    assert set(given.ours.split(",")) <= {*STRATEGIES, "auto"}
    found = history(name, given.data, load_config(given.config), given.keep)
    first, last = map(int, given.seeds.split("-"))
    curves: dict[str, list[ArmCurve]] = {order: [] for order in choosers}
    with reporting(Console(stderr=True)) as report:
        for seed in range(first, last + 1):
            for order, curve in _of_seed(name, seed, found, choosers, given).items():
                curves[order].append(curve)
            report(f"replay {name}", seed - first + 1, last - first + 1)
    return Replayed(found.name, len(found.classes), curves)


def _of_seed(
    name: str, seed: int, found: ReplayHistory, choosers: Mapping[str, Chooser], given: argparse.Namespace
) -> dict[str, ArmCurve]:
    """Curves of one seed by order, those that are kept from before not run again."""
    path = given.out / _stem(name, given) / f"{seed}.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    missing = {order: chooser for order, chooser in choosers.items() if order not in kept}
    if missing:
        plan = ReplayPlan(1, SETS[name].budgets[-1], with_pool=not given.plain_head, first=seed)
        fresh = replay(found, missing, plan, lambda *_: None).curves
        kept |= {order: [curve.labels, curve.accuracy] for order, [curve] in fresh.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept))
    return {order: ArmCurve(*map(tuple, kept[order])) for order in choosers}


def _stem(name: str, given: argparse.Namespace) -> str:
    return f"{name}-plain" if given.plain_head else name


def _keep(found: Replayed, name: str, given: argparse.Namespace) -> None:
    for arm in found.curves:
        cells, area, worst = _figures(found.curves, arm, SETS[name].budgets)
        print(json.dumps({"bench": "acquisition", "set": name, "order": arm, "times_fewer": cells, "area": area,
                          "worst": worst, "plain_head": given.plain_head}))  # fmt: skip
    curves = {arm: [list(map(list, (c.labels, c.accuracy))) for c in cs] for arm, cs in found.curves.items()}
    (given.out / f"{_stem(name, given)}.json").write_text(json.dumps(curves))
    plot_replay(found, given.out / f"{_stem(name, given)}.svg")


if __name__ == "__main__":
    main()
