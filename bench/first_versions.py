"""`python -m bench.first_versions`: the first labels of a project, as its worker learns from them and judges them.

Projects grow five labels at a time, in the order that the loop asks for and at random. After 5, 10, 20 and 40 labels:
the product's head (`refresh_evidence`, a thousand unlabelled images) beside the replay's, and what its pre-labels do:
share of images of a class without a label that get one (a wrong one), of right ones that are kept back. Then which
first version the gate lets through, and whether it is worse than none: fewer of its pre-labels right than wrong on the
images held out, or fewer of its answers than of always naming the class with most labels. `--shuffled`: of labels that
say nothing every version is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.acquisition import SETS, history
from bench.backbones import config_of
from bench.gate import Growing, some_of
from labelloop.model.head import speaks
from labelloop.records.evidence import Outcome
from labelloop.rules.gate import judge
from retrain_worker.evidence.collect import Learned
from retrain_worker.replay.history import Draw, draw
from retrain_worker.replay.student import Student

STEP, MOST = 5, 60
COUNTS = (5, 10, 20, 40)
ORDERS = ("auto", "random")


@dataclass(frozen=True, slots=True)
class State:
    """A project after so many labels; shares of the images held out."""

    labels: int
    classes: int  # that the head knows
    accuracy: float
    replay: float  # accuracy of the replay's head with the same labels
    right: float  # pre-labels
    wrong: float
    unknown: float  # images of a class that the head does not know ...
    misled: float | None  # ... of these, with a pre-label; None: there are none
    withheld: float  # of the answers that are right, without one
    promoted: bool
    worse: bool


def states(project: Growing) -> Iterator[State]:
    """One after the other, until a version is live and all that is shown has been seen."""
    for _ in range(MOST // STEP):
        batch = project.batch(STEP)
        learned = project.tried(batch)
        project.given |= batch
        if learned is None:
            continue
        state = _state(project, learned)
        if state.promoted and project.champion is None:
            project.learn({})
        yield state


def _state(project: Growing, learned: Learned) -> State:
    head, test = learned.fitted.head, project.drawn.test
    codes = np.array([project.names.index(name) for name in head.labels])
    said = head.probabilities(test.features)
    shown, right = speaks(said.max(axis=1), head.unseen(test.features)), codes[said.argmax(axis=1)] == test.labels
    unknown = ~np.isin(test.labels, codes)
    given = np.bincount(list(project.given.values()), minlength=len(project.names))
    good, bad = float((shown & right).mean()), float((shown & ~right).mean())
    return State(
        labels=len(project.given), classes=len(codes), accuracy=float(right.mean()), replay=_replayed(project),
        right=good, wrong=bad, unknown=float(unknown.mean()),
        misled=float(shown[unknown].mean()) if unknown.any() else None,
        withheld=float((right & ~shown).sum() / max(1, right.sum())),
        promoted=judge(learned.evaluation, project.config.gate).outcome is Outcome.PROMOTE,
        worse=good < bad or float(right.mean()) < float((test.labels == given.argmax()).mean()),
    )  # fmt: skip


def _replayed(project: Growing) -> float:
    student, rows = Student.of(project.drawn, len(project.names)), np.array(list(project.given))
    student.learn(rows, project.drawn.pool.labels[rows])
    return student.accuracy()


def shuffled(drawn: Draw, seed: int) -> Draw:
    """The same with the pool's labels exchanged."""
    labels = np.random.default_rng(seed).permutation(drawn.pool.labels)
    return replace(drawn, pool=replace(drawn.pool, labels=labels))


def told(name: str, order: str, projects: list[list[State]]) -> Iterator[dict[str, object]]:
    """Rows of both tables."""
    for labels in COUNTS:
        some = [s for states in projects for s in states if s.labels == labels]
        if some:
            means = {
                k: np.mean([v for s in some if (v := asdict(s)[k]) is not None] or [np.nan]) for k in asdict(some[0])
            }
            yield {
                "bench": "few_labels",
                "set": name,
                "order": order,
                **{k: round(float(v), 3) for k, v in means.items()},
            }
    first = [next((s for s in states if s.promoted), None) for states in projects]
    every = [s for states in projects for s in states if s.labels < 50]
    yield {
        "bench": "first_versions", "set": name, "order": order, "projects": len(projects),
        "at": sorted(s.labels for s in first if s), "none": first.count(None),
        "worse": sum(s.worse for s in first if s),
        "judged": len(every), "promoted": sum(s.promoted for s in every),
        "worse_promoted": sum(s.promoted and s.worse for s in every), "worse_of_all": sum(s.worse for s in every),
        "right": round(float(np.mean([s.right for s in first if s] or [np.nan])), 3),
        "wrong": round(float(np.mean([s.wrong for s in first if s] or [np.nan])), 3),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with the sets; digits need none")
    parser.add_argument("--sets", default="digits,covid_xray,caltech20,intel_scenes", help=f"of {', '.join(SETS)}")
    parser.add_argument("--network", default="tf_efficientnet_lite0", help="of all sets but the digits")
    parser.add_argument("--keep", type=Path, default=Path(".labelloop-features"), help="kept features")
    parser.add_argument("--projects", type=int, default=10)
    parser.add_argument("--shuffled", action="store_true", help="labels that have nothing to do with the images")
    given = parser.parse_args()
    config = config_of(given.network)
    shown = Table(
        "set", "order", "labels", "classes", "product", "replay", "right", "wrong", "unknown", "misled", "withheld",
        box=None,
    )  # fmt: skip
    for name in given.sets.split(","):
        found = history(name, given.data, config, given.keep)
        for order in ORDERS:
            ordered = config.model_copy(update={"queue": config.queue.model_copy(update={"policy": order})})
            drawn = [some_of(draw(found, seed), seed) for seed in range(given.projects)]
            drawn = [shuffled(one, seed) if given.shuffled else one for seed, one in enumerate(drawn)]
            projects = [list(states(Growing(d, found.classes, ordered, seed))) for seed, d in enumerate(drawn)]
            for row in told(name, order, projects):
                print(json.dumps(row), flush=True)
                if row["bench"] == "few_labels":
                    shown.add_row(*(str(v) for k, v in row.items() if k not in {"bench", "promoted", "worse"}))
    Console(width=140).print(shown)


if __name__ == "__main__":
    main()
