"""`python -m bench.unread`: who accepts pre-labels unread is noticed, who looks is left in peace. Or not.

Simulated people label the real images of a folder (scikit-learn's digits without one) over the loop's own rules:
features by the project's own path, a head after every ten labels, judged by the gate, the queue in the default order,
answers kept as annotations and read back as `labelloop value` reads them. Each replay has other buckets, other blind
images and another first order. Starts: `nothing`; `seeds`, 40 labels as `make demo` reveals them; `team`, with two more
people, who look; `late`, when the model was right on 97 of the last 100 that it showed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.tools.offline import PREFIX, OfflineProject
from labelloop.clock import LABEL_STUDIO_FORMAT, parse
from labelloop.config.project import ProjectConfig, load_config
from labelloop.errors import NotEnoughLabelsError
from labelloop.model.classifier import Classifier
from labelloop.records.arrays import Floats
from labelloop.records.evidence import Outcome
from labelloop.records.images import JUDGING, Example, Split
from labelloop.records.tasks import Annotation, QueuePlace, Seen, Task
from labelloop.rules.acquisition import LabelledRows, QueuePlan, Quota, Situation, UnlabelledPool, choose, plan_queue
from labelloop.rules.gate import judge
from labelloop.rules.split import split_of, unit
from labelloop.rules.value import Look, looks_of
from labelloop.rules.value.report import by_person
from labelloop.rules.value.unread import evidence
from operations.projects.digits import write_digits
from operations.projects.imagefolder import require_labels, scan
from retrain_worker.evidence.collect import LabelSets, Recipe, refresh_evidence
from retrain_worker.heads.recipe import POOL_MOST, HeadRecipe

AT = parse("2026-01-01T00:00:00Z").strftime(LABEL_STUDIO_FORMAT)
SEEDS = 40
LATE = (97, 100)  # right, of the last shown: the model is good
LATEST = 800  # labels after which the late start begins, however good it is

Truth = str
Answer = Callable[[np.random.Generator, Truth, str | None, Sequence[str]], str]  # truth, what is shown, classes


@dataclass(frozen=True)
class Images:
    """Labelled images with their features; rows of all three belong together."""

    features: Floats
    truth: Sequence[str]
    uris: Sequence[str]
    config: ProjectConfig

    @property
    def classes(self) -> list[str]:
        return sorted(set(self.truth))


def careful(slips: float, missed: float) -> Answer:
    """Slips now and then, lets some wrong pre-labels pass."""

    def answer(rng: np.random.Generator, truth: Truth, shown: str | None, classes: Sequence[str]) -> str:
        mine = truth if rng.random() >= slips else str(rng.choice([c for c in classes if c != truth]))
        return shown if shown is not None and (mine == shown or rng.random() < missed) else mine

    return answer


def unread(otherwise: Answer, share: float = 1.0) -> Answer:
    """Takes this share of the pre-labels without a look."""

    def answer(rng: np.random.Generator, truth: Truth, shown: str | None, classes: Sequence[str]) -> str:
        return shown if shown is not None and rng.random() < share else otherwise(rng, truth, shown, classes)

    return answer


def guess(right: float) -> Answer:
    """Right on this share, else anything."""
    return lambda rng, truth, _shown, classes: truth if rng.random() < right else str(rng.choice(classes))


LOOKS = careful(0.035, 0.1)
PEOPLE: Mapping[str, Answer] = {
    "looks": LOOKS,
    "looks, worse": careful(0.05, 0.2),
    "unread, guesses": unread(guess(0.0)),
    "unread, half right": unread(guess(0.5)),
    "unread, blind with care": unread(LOOKS),
    "every second unread": unread(LOOKS, 0.5),
}


@dataclass
class Replay:
    """One project from one seed. People take turns; who is last in ``people`` is watched."""

    images: Images
    seed: int
    answers: dict[int, Task] = field(default_factory=dict)  # row -> its task
    shown: list[bool] = field(default_factory=list)  # whether each shown pre-label was right
    _head: Classifier | None = None
    _learned: list[Example] | None = None  # what the head that serves has learned from
    _recipe: Mapping[str, Any] = field(default_factory=dict)  # how it was fitted: where the next search begins

    def __post_init__(self) -> None:
        shares = self.images.config.buckets.shares()
        self._groups = [f"{self.seed}:{uri}" for uri in self.images.uris]  # another seed, other buckets
        self._buckets = [split_of(g, shares) for g in self._groups]
        self._rows = {uri: i for i, uri in enumerate(self.images.uris)}

    def copy(self) -> Replay:
        """To go on from here in different ways."""
        found = Replay(self.images, self.seed, dict(self.answers), list(self.shown))
        found._head, found._learned, found._recipe = self._head, self._learned, self._recipe
        return found

    def run(self, people: Mapping[int, Answer], rng: np.random.Generator) -> Iterator[int]:
        """Label on and on; yields the number of labels after each batch."""
        turn = 0
        while places := self._places():
            for place in places:
                who = list(people)[turn % len(people)]
                turn += 1
                self._label(place, who, people[who], rng)
            self._refresh()
            yield len(self.answers)

    def reveal(self, count: int) -> None:
        """The truth of a few train images, which nobody was asked for."""
        train = [i for i, bucket in enumerate(self._buckets) if bucket is Split.TRAIN]
        for row in np.random.default_rng(self.seed).permutation(train)[:count].tolist():
            given = Annotation(row, AT, AT, self.images.truth[row], seed=True)
            self.answers[row] = Task(-row - 1, self.images.uris[row], AT, (given,))
        self._refresh()

    def looks(self, who: int) -> list[Look]:
        """Of one person, as the report reads them."""
        return by_person(looks_of(self.answers.values())).get(who, [])

    @property
    def is_late(self) -> bool:
        right, of = LATE
        return len(self.answers) >= LATEST or (len(self.shown) >= of and sum(self.shown[-of:]) >= right)

    def _places(self) -> tuple[QueuePlace, ...]:
        config, features = self.images.config, self.images.features
        rows = [i for i in range(len(features)) if i not in self.answers]
        pool = UnlabelledPool(
            [self.images.uris[i] for i in rows], [self._groups[i] for i in rows], [self._buckets[i] for i in rows],
            lambda some: features[np.array(rows)[some]], self._head.labels if self._head else (),
            self._head.probabilities(features[rows]) if self._head and rows else None, self._labelled(),
            self._head.unseen(features[rows]) if self._head and rows else None,
        )  # fmt: skip
        given = [i for i, task in self.answers.items() if not task.annotations[0].seed]
        random = sum(self._buckets[i] in JUDGING for i in given)
        missing = tuple(name for name in self.images.classes if self._head and name not in self._head.labels)
        strategy = choose(config.queue.policy, Situation(self._head is not None, missing=missing)).strategy
        batch = config.refresh.after
        plan = QueuePlan(strategy, window=batch, batch=batch, seed=self.seed, blind=config.queue.blind)
        return plan_queue(pool, quota=Quota(config.queue.quota, len(given), random), plan=plan)

    def _labelled(self) -> LabelledRows:
        """The train images that are labelled, as a strategy sees them."""
        train = [(i, t.label) for i, t in self.answers.items() if self._buckets[i] is Split.TRAIN]
        column = {name: k for k, name in enumerate(self._head.labels if self._head else ())}
        codes = np.array([column.get(label or "", -1) for _, label in train], dtype=np.int64)
        return LabelledRows(self.images.features[[i for i, _ in train]], codes) if train else LabelledRows()

    def _label(self, place: QueuePlace, who: int, answer: Answer, rng: np.random.Generator) -> None:
        row, number = self._rows[place.uri], len(self.answers)
        shown = None if place.blind else place.label
        seen = Seen("v", place.label, place.blind or place.label is None, place.probability,
                    place.blind and place.why != "quota")  # fmt: skip
        if shown is not None:
            self.shown.append(shown == self.images.truth[row])
        said = answer(rng, self.images.truth[row], shown, self.images.classes)
        at = f"{AT[:-8]}{number:06d}Z"
        self.answers[row] = Task(
            number, place.uri, at, (Annotation(number, at, at, said, completed_by=who, seen=seen),)
        )

    def _refresh(self) -> None:
        config = self.images.config
        grown = [Example(t.id, t.uri, self._groups[i], self._buckets[i], t.label)
                 for i, t in self.answers.items() if t.label is not None]  # fmt: skip
        head = HeadRecipe(config.head, config.seed, self._recipe)
        recipe = Recipe(config.refresh.class_min, head, pool=self._unlabelled(), choosable=self.images.classes)
        sets = LabelSets(grown, self._learned)
        try:
            learned = refresh_evidence(sets, self._features, champion=self._head, recipe=recipe)
        except NotEnoughLabelsError:
            return
        if judge(learned.evaluation, config.gate).outcome is Outcome.PROMOTE:
            self._head, self._learned, self._recipe = learned.fitted.head, grown, learned.fitted.recipe

    def _unlabelled(self) -> Floats | None:
        """A sample of train images from which a head learns, too (`retrain_worker.evidence.history.unlabelled`)."""
        free = [i for i, b in enumerate(self._buckets) if b is Split.TRAIN and i not in self.answers]
        drawn = sorted(free, key=lambda i: unit(f"pool:{self._groups[i]}"))[:POOL_MOST]
        return self.images.features[sorted(drawn)] if drawn and self.images.config.head.pool else None

    def _features(self, uris: Sequence[str]) -> Floats:
        return self.images.features[[self._rows[uri] for uri in uris]]


@dataclass(frozen=True)
class Ended:
    """How one replay ended for the person who was watched."""

    labels: int  # of them
    noticed: int | None  # of their labels when they were named first; None: never
    seen: int | None  # the same, counted from their first pre-label on
    right: float | None  # share of the pre-labels that were right


def watch(replay: Replay, people: Mapping[int, Answer], most: int, rng: np.random.Generator) -> Ended:
    """Until there are so many labels more, or the last of ``people`` is named."""
    who, begun = list(people)[-1], len(replay.answers)
    first = len(replay.shown)
    for count in replay.run(people, rng):
        looks = replay.looks(who)
        noticed = evidence(looks).noticed
        if noticed or count - begun >= most:
            break
    mine = sorted(t.id for t in replay.answers.values() if t.annotations[0].completed_by == who)
    right = replay.shown[first:]
    at = mine.index(looks[noticed - 1].task) + 1 if noticed else None
    return Ended(len(mine), at, noticed, sum(right) / len(right) if right else None)


def starts(images: Images, seed: int, names: Sequence[str]) -> Iterator[tuple[str, Replay, Mapping[int, Answer]]]:
    """(name, replay, who else labels) of each start; the late one is labelled by somebody who looks, until it is."""
    if "nothing" in names:
        yield "nothing", Replay(images, seed), {}
    if "seeds" in names:
        seeded = Replay(images, seed)
        seeded.reveal(SEEDS)
        yield "seeds", seeded, {}
    if "team" in names:
        yield "team", Replay(images, seed), {2: LOOKS, 3: LOOKS}
    if "late" in names:
        late, rng = Replay(images, seed), np.random.default_rng(seed)
        for _ in late.run({2: LOOKS}, rng):
            if late.is_late:
                break
        yield "late", late, {}


def opened(folder: Path | None, config: Path | None, home: Path) -> Images:
    """Featurised by the project's own path."""
    files = scan(folder or write_digits(home / "digits"), "")
    labels = require_labels(files, "bench.unread")
    settled = load_config(config) if config else ProjectConfig()
    offline = OfflineProject(settled, files, home)
    known = offline.project.catalogue.images
    uris = [PREFIX + f.key for f in files if not known[PREFIX + f.key].problem]
    backbone = offline.project.registry.initial_backbone()
    assert backbone is not None
    features = offline.project.features(backbone.id).rows(uris)
    return Images(features, [labels[uri.removeprefix(PREFIX)] for uri in uris], uris, settled)


def measure(images: Images, asked: argparse.Namespace, console: Console) -> list[dict[str, object]]:
    """Every person from every start, so many times."""
    ends: dict[tuple[str, str], list[Ended]] = {}
    for seed in range(asked.replays):
        for start, replay, others in starts(images, seed, asked.starts.split(",")):
            for number, (name, answer) in enumerate(PEOPLE.items()):
                if asked.people and name not in asked.people:
                    continue
                rng = np.random.default_rng([seed, number])
                most = asked.labels if not name.startswith("unread") else asked.unread_labels
                ends.setdefault((start, name), []).append(watch(replay.copy(), {**others, 1: answer}, most, rng))
        console.print(f"replay {seed + 1} of {asked.replays}")
    return [figures(start, name, found, len(images.uris)) for (start, name), found in ends.items()]


def figures(start: str, name: str, found: Sequence[Ended], images: int) -> dict[str, object]:
    """One row of the table."""
    at = sorted(e.noticed for e in found if e.noticed)
    looks = sorted(e.seen for e in found if e.seen)
    shares = [e.right for e in found if e.right is not None]
    return {
        "bench": "unread", "images": images, "start": start, "person": name, "replays": len(found),
        "labels": max(e.labels for e in found), "noticed": len(at), "within_100": sum(a <= 100 for a in at),
        "median": statistics.median(at) if at else None, "last": at[-1] if at else None,
        "since_first_pre_label_last": looks[-1] if looks else None,
        "since_first_within_100": sum(n <= 100 for n in looks),
        "pre_labels_right": round(statistics.mean(shares), 3) if shares else None,
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="class folders; else scikit-learn's digits")
    parser.add_argument("--config", type=Path, help="a project's YAML: its backbone, queue and gate")
    parser.add_argument("--replays", type=int, default=20)
    parser.add_argument("--labels", type=int, default=400, help="in all, while somebody who looks is watched")
    parser.add_argument("--unread-labels", type=int, default=400, help="in all, while somebody who does not is")
    parser.add_argument("--people", nargs="*", help=f"of: {'; '.join(PEOPLE)}; else all")
    parser.add_argument("--starts", default="nothing,seeds,team,late")
    asked = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="labelloop-bench-") as home:
        rows = measure(opened(asked.images, asked.config, Path(home)), asked, console)
    table = Table("start", "person", "noticed", "within 100", "since the first pre-label",
                  "labels until then (median, last)", "pre-labels right")  # fmt: skip
    for row in rows:
        until = f"{row['median']}, {row['last']}" if row["noticed"] else ""
        table.add_row(str(row["start"]), str(row["person"]), f"{row['noticed']} of {row['replays']}",
                      str(row["within_100"]), str(row["since_first_within_100"]), until,
                      str(row["pre_labels_right"]))  # fmt: skip
    Console(width=130).print(table)
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
