"""`python -m bench.gate`: which refreshes the gate lets through, when the labels are right and when they are not.

A project grows ten rightly labelled images at a time, in the order that the loop asks for. Each batch is also judged as
if somebody had spoilt it: one class given to all, all wrong, three wrong. Beside each verdict stands what that batch
does to the accuracy on images held out. "Harmful": it costs more than two points there; "good": it costs nothing.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.acquisition import SETS, history
from labelloop.config.project import ProjectConfig, load_config
from labelloop.errors import NotEnoughLabelsError
from labelloop.model.classifier import Classifier
from labelloop.records.arrays import Floats
from labelloop.records.evidence import Outcome, Verdict
from labelloop.records.images import Example, Split
from labelloop.rules.acquisition import LabelledRows, QueuePlan, Quota, Situation, UnlabelledPool, choose, plan_queue
from labelloop.rules.gate import judge
from retrain_worker.evidence.collect import LabelSets, Learned, Recipe, refresh_evidence
from retrain_worker.heads.recipe import HeadRecipe
from retrain_worker.replay.history import Draw, draw

IMAGES = 1020  # of a project
HARM = -0.02
COLUMNS = ("set", "batch", "judged", "stopped", "by_accuracy", "by_earlier", "gain")
Given = Mapping[int, int]  # row -> class
Spoil = Callable[[np.random.Generator, Given, int], Given]


def _other(rng: np.random.Generator, truth: int, classes: int) -> int:
    return (truth + 1 + int(rng.integers(classes - 1))) % classes


def right(_rng: np.random.Generator, given: Given, _classes: int) -> Given:
    """As it is."""
    return given


def one_class(rng: np.random.Generator, given: Given, classes: int) -> Given:
    """One class to all."""
    one = int(rng.integers(classes))
    return dict.fromkeys(given, one)


def wrong(rng: np.random.Generator, given: Given, classes: int) -> Given:
    """Any class but the right one."""
    return {row: _other(rng, code, classes) for row, code in given.items()}


def three(rng: np.random.Generator, given: Given, classes: int) -> Given:
    """Three of them wrong."""
    first = list(given)[:3]
    return {**given, **wrong(rng, {row: given[row] for row in first}, classes)}


BATCHES: Mapping[str, Spoil] = {"right": right, "one class to all": one_class, "all wrong": wrong, "three wrong": three}


@dataclass(frozen=True, slots=True)
class Judged:
    """One batch before the gate."""

    batch: str
    verdict: Verdict
    by_accuracy: Verdict  # had it been asked for nothing else
    by_earlier: Verdict  # had the live head not been asked what it thinks of the new labels
    gain: float  # accuracy on the images held out, challenger minus champion
    deviation: float | None  # of the new labels from what the live head expects, in standard errors


@dataclass
class Growing:
    """One project."""

    drawn: Draw
    names: tuple[str, ...]
    config: ProjectConfig
    seed: int
    given: dict[int, int] = field(default_factory=dict)
    champion: Learned | None = None
    _learned: list[Example] | None = None

    def batch(self, size: int = 10) -> dict[int, int]:
        """The next rows, by the project's own order, with their classes."""
        head = self.champion.fitted.head if self.champion else None
        rest = np.array([i for i in range(self._size) if i not in self.given])
        features = self.drawn.pool.features
        pool = UnlabelledPool(
            [f"{i}" for i in rest], [self._group(i) for i in rest], [Split.TRAIN] * len(rest),
            lambda some: features[rest[some]], head.labels if head else (),
            head.probabilities(features[rest]) if head else None, self._labelled(head),
            head.unseen(features[rest]) if head else None,
        )  # fmt: skip
        missing = tuple(name for name in self.names if head and name not in head.labels)
        strategy = choose(self.config.queue.policy, Situation(head is not None, missing=missing)).strategy
        plan = QueuePlan(strategy, window=size, batch=size, seed=self.seed, blind=0.0)
        places = plan_queue(pool, quota=Quota(0.0, 0, 0), plan=plan)
        return {int(p.uri): int(self.drawn.pool.labels[int(p.uri)]) for p in places[:size]}

    def tried(self, batch: Given) -> Learned | None:
        """What a refresh makes of it; None where the labels do not make a head."""
        grown = self._examples({**self.given, **batch})
        taken = {**self.given, **batch}
        open_rows = [i for i in range(self._size) if i not in taken][:1000]
        recipe = Recipe(
            class_min=self.config.refresh.class_min, pool=self.drawn.pool.features[open_rows],
            head=HeadRecipe(self.config.head, self.config.seed, self.champion.fitted.recipe if self.champion else {}),
            choosable=self.names,
        )  # fmt: skip
        champion = self.champion.fitted.head if self.champion else None
        try:
            return refresh_evidence(LabelSets(grown, self._learned), self._rows, champion=champion, recipe=recipe)
        except NotEnoughLabelsError:
            return None

    def learn(self, batch: Given) -> None:
        """Go on with these labels, whatever the gate says: every batch is judged beside all that are right."""
        found = self.tried(batch)
        self.given |= batch
        if found:
            self.champion, self._learned = found, self._examples(self.given)

    def accuracy(self, found: Learned) -> float:
        """On the images held out."""
        head = found.fitted.head
        codes = np.array([self.names.index(name) for name in head.labels])
        said = codes[head.probabilities(self.drawn.test.features).argmax(axis=1)]
        return float((said == self.drawn.test.labels).mean())

    @property
    def _size(self) -> int:
        return len(self.drawn.pool.labels)

    def _group(self, row: int) -> str:
        return f"{self.seed}:{row}"

    def _examples(self, given: Given) -> list[Example]:
        return [Example(i, f"{i}", self._group(i), Split.TRAIN, self.names[code]) for i, code in given.items()]

    def _rows(self, uris: Sequence[str]) -> Floats:
        return self.drawn.pool.features[[int(uri) for uri in uris]]

    def _labelled(self, head: Classifier | None) -> LabelledRows:
        if not self.given:
            return LabelledRows()
        column = {name: k for k, name in enumerate(head.labels if head else ())}
        codes = np.array([column.get(self.names[c], -1) for c in self.given.values()], dtype=np.int64)
        return LabelledRows(self.drawn.pool.features[list(self.given)], codes)


def some_of(drawn: Draw, seed: int) -> Draw:
    """A project's size of it."""
    rows = np.random.default_rng(seed).permutation(len(drawn.pool.labels))[:IMAGES]
    pool = drawn.pool
    return Draw(replace(pool, features=pool.features[rows], labels=pool.labels[rows],
                        groups=[pool.groups[i] for i in rows]), drawn.test)  # fmt: skip


def judged(project: Growing, most: int) -> list[Judged]:
    """Every batch in every state, up to so many labels."""
    rng, found = np.random.default_rng(project.seed), []
    while len(project.given) < most:
        batch = project.batch()
        if project.champion:
            before = project.accuracy(project.champion)
            for name, spoil in BATCHES.items():
                tried = project.tried(spoil(rng, batch, len(project.names)))
                if tried:
                    evaluation, gate = tried.evaluation, project.config.gate
                    verdicts = (
                        judge(evaluation, gate),
                        judge(replace(evaluation, earlier=None, contradiction=None), gate),
                        judge(replace(evaluation, contradiction=None), gate),
                    )
                    news = evaluation.contradiction
                    gain, deviation = project.accuracy(tried) - before, news.deviation if news else None
                    found.append(Judged(name, *verdicts, gain, deviation))
        project.learn(batch)
    return found


def groups_of(found: list[Judged]) -> dict[str, list[Judged]]:
    """By batch, and by what they do."""
    groups = {batch: [j for j in found if j.batch == batch] for batch in BATCHES}
    groups["right, and good"] = [j for j in groups["right"] if j.gain >= 0]
    groups["spoilt, and harmful"] = [j for j in found if j.batch != "right" and j.gain < HARM]
    return groups


def figures(name: str, batch: str, some: list[Judged]) -> dict[str, object]:
    """One row of the table."""
    deviations = [j.deviation for j in some if j.deviation is not None]
    rules = Counter(c.rule for j in some for c in j.verdict.checks if c.outcome is not Outcome.PROMOTE)
    return {
        "bench": "gate", "set": name, "batch": batch, "judged": len(some),
        "stopped": sum(j.verdict.outcome is not Outcome.PROMOTE for j in some),
        "by_accuracy": sum(j.by_accuracy.outcome is not Outcome.PROMOTE for j in some),
        "by_earlier": sum(j.by_earlier.outcome is not Outcome.PROMOTE for j in some),
        "deviation": np.quantile(deviations, (0.05, 0.5, 1.0)).round(1).tolist() if deviations else None,
        "gain": round(100 * float(np.mean([j.gain for j in some])), 2) if some else None, "by": rules,
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with the sets; digits need none")
    parser.add_argument("--sets", default="intel_scenes", help=f"of {', '.join(SETS)}")
    parser.add_argument("--config", type=Path, default=Path("configs/intel_scenes.yaml"))
    parser.add_argument("--keep", type=Path, default=Path(".labelloop-features"), help="kept features")
    parser.add_argument("--projects", type=int, default=5)
    parser.add_argument("--labels", type=int, default=150)
    given = parser.parse_args()
    config = load_config(given.config)
    shown = Table(
        "set", "batch", "judged", "not promoted", "by accuracy alone", "by earlier labels alone", "mean gain, points"
    )
    for name in given.sets.split(","):
        found, everything = history(name, given.data, config, given.keep), []
        for seed in range(given.projects):
            everything += judged(Growing(some_of(draw(found, seed), seed), found.classes, config, seed), given.labels)
        for batch, some in groups_of(everything).items():
            row = figures(name, batch, some)
            shown.add_row(*(str(row[key]) for key in COLUMNS))
            print(json.dumps(row), flush=True)
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
