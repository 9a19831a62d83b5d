"""`python -m tests.faults.killed`: ask for one run, kill or freeze its worker, count the verdicts; many times.

One stack, one project. The table at the end says what was under way when it happened, and what came of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from labelloop.clock import parse
from labelloop.config.networks import PIXELS
from labelloop.config.project import BackboneSpec, ProjectConfig, Queue, Refresh, Retrain
from labelloop.queue.jobs import KINDS
from labelloop.records.runs import Run
from labelloop.store.projects import ProjectRecord
from labelloop.store.requests import RequestStore
from labelloop.store.runs import RunStore
from labelloop.store.studies import StudyStore
from operations.models.retrain import ask
from operations.models.tune import begin, parse_search
from operations.projects.digits import write_digits
from operations.projects.imagefolder import scan
from operations.projects.setup import ImageSource, set_up, wait_ready
from tests.faults.annotator import Annotator
from tests.faults.invariants import answered_twice
from tests.faults.world import World, running_world

IMAGES = 120
LABELS = 40  # before the first wish
BATCH = 10
FROZEN_S = (1.0, 16.0)  # a worker counts as dead after eight
IN_THE_RUN = 0.7  # share of the blows that wait for the run's record
KILLED = 0.7  # share of the wishes whose worker is killed; the others' freezes
SETTLE_S = 180.0  # with a core for each process that wants one; longer in proportion where more of them wait
LOOK_S = 0.25
FIRST_S = 6.0  # how long a run takes, before any has been seen
WORKERS = {"retrain": "train", "refresh": "refresh", "trial": "train"}
BURN = "while True: pass"


@dataclass(frozen=True)
class Struck:
    """One wish, what happened to whoever worked on it, and what came of it."""

    number: int
    kind: str
    how: str  # kill | freeze
    point: str  # what was under way
    after_s: float
    attempts: int
    verdicts: int
    took_s: float
    busy: bool
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Site:
    """One project on the running stack."""

    world: World
    record: ProjectRecord
    annotator: Annotator

    def runs(self, kind: str) -> list[Run]:
        return [r for r in RunStore(self.world.direct.within(self.record)).all() if r.kind == kind]

    def run_s(self, kind: str) -> float:
        """How long the last runs took; a guess before the first, and for what leaves no such record."""
        done = [r for r in self.runs(kind) if r.done and r.ended_at][-5:]
        spent = [(parse(r.ended_at or "") - parse(r.started_at)).total_seconds() for r in done]
        return statistics.median(spent) if spent else FIRST_S / 2

    def wish(self, kind: str) -> Callable[[], int]:
        """Leave a wish; how many verdicts answer it."""
        known = {r.id for r in self.runs(kind) if r.done}
        if kind == "retrain":
            ask(self.world.direct, self.record, by="killed")
        elif kind == "refresh":
            for _ in range(BATCH):
                self.annotator.act("change")
                self.annotator.act("create")
        else:
            return self._search()
        return lambda: sum(r.done and r.id not in known for r in self.runs(kind))

    def _search(self) -> Callable[[], int]:
        space = {"retrain.epochs": {"choice": [1]}}
        search = parse_search({"sampler": "grid", "pruner": "none", "space": space}, "killed")
        study = begin(self.world.direct, self.record, search, by="killed").name
        return lambda: self._ended_trials(study)

    def _ended_trials(self, study: str) -> int:
        """By the workers' own words: a second verdict would stand where the first one was."""
        log = (self.world.home / "logs" / "train.log").read_text().splitlines()
        said = [line for line in log if study in line and '"trial ended"' in line]
        trials = StudyStore(self.world.direct.within(self.record)).trials(study)
        return max(len(said), sum(t.ended for t in trials))

    def point(self, kind: str) -> str:
        """What is under way now."""
        jobs = [j for j in self.world.direct.queue.jobs() if (j.kind, j.project) == (kind, self.record.key)]
        running = any(r.outcome == "running" for r in self.runs(kind))
        started = next((j for j in jobs if j.status == "started"), None)
        if started:
            return started.stage or ("begun" if running else "taken")
        return "ending" if running else "queued" if jobs else "nothing"

    def at_rest(self, kind: str) -> bool:
        """Nothing is wanted, queued or running, and everybody is there."""
        store = self.world.direct.within(self.record)
        queue = self.world.direct.queue
        idle = not any(queue.active(k, self.record.key) for k in KINDS.values())
        ended = not any(r.outcome == "running" for r in RunStore(store).all())
        return idle and ended and not RequestStore(store).open() and self.world.ready()


def strike(site: Site, kind: str, number: int, source: random.Random, *, usual_s: float, busy: bool) -> Struck:
    """One wish and one blow."""
    tried, verdicts, began = len(site.runs(kind)), site.wish(kind), time.monotonic()
    if source.random() < IN_THE_RUN:  # else most would hit a worker that is still loading its libraries
        _until(lambda: len(site.runs(kind)) > tried or verdicts() > 0, quiet=1, look_s=0.02)
        usual_s = site.run_s(kind)
    time.sleep(source.uniform(0, 1.2 * usual_s))
    point, after_s = "the verdict is there" if verdicts() else site.point(kind), time.monotonic() - began
    how = _blow(site.world, WORKERS[kind], source)
    settled = _until(lambda: verdicts() > 0 and site.at_rest(kind))
    took_s = time.monotonic() - began
    time.sleep(1.5)  # a second one would be queued by now
    settled = settled and _until(lambda: site.at_rest(kind))
    wrong = [*answered_twice(site.world.direct, site.record)]
    if not settled:
        wrong.append(f"not at rest after {SETTLE_S:.0f} s")
    if verdicts() != 1 and not (kind == "refresh" and verdicts()):  # people go on meanwhile: labels for another one
        wrong.append(f"{verdicts()} verdicts")
    attempts = len(site.runs(kind)) - tried
    return Struck(
        number, kind, how, point, round(after_s, 1), attempts, verdicts(), round(took_s, 1), busy, tuple(wrong)
    )  # fmt: skip


def _blow(world: World, worker: str, source: random.Random) -> str:
    pid = world.pid(worker)
    kill, frozen_s = source.random() < KILLED, source.uniform(*FROZEN_S)
    if pid is None:
        return "down"
    os.kill(pid, signal.SIGKILL if kill else signal.SIGSTOP)
    if not kill:
        time.sleep(frozen_s)
        os.kill(pid, signal.SIGCONT)
    return "kill" if kill else "freeze" if frozen_s < 8 else "freeze for long"


def _until(condition: Callable[[], bool], *, quiet: int = 2, look_s: float = LOOK_S) -> bool:
    """So many times in a row: between two registries a job is in neither for a moment."""
    waited_s, last, seen = 0.0, time.monotonic(), 0
    while seen < quiet and waited_s < SETTLE_S:
        seen = seen + 1 if condition() else 0
        time.sleep(look_s)
        now = time.monotonic()
        waited_s, last = waited_s + (now - last) / _crowd(), now
    return seen == quiet


def _crowd() -> float:
    """How many processes wait for each core; at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _site(world: World, seed: int) -> Site:
    name = f"killed-{seed}"
    files = scan(write_digits(world.home / "digits"), f"{name}/")
    random.Random(seed).shuffle(files)
    config = ProjectConfig(
        name=name, backbone=BackboneSpec(name=PIXELS), seed=seed, refresh=Refresh(after=BATCH), queue=Queue(window=100),
        retrain=Retrain(epochs=1, backbone_rate=1.0, automatic=False, validation=0.2),
    )  # fmt: skip
    record, _ = set_up(world.direct, ImageSource(config, files[:IMAGES], f"{name}/", 0), lambda *_: None)
    wait_ready(world.direct, record, lambda *_: None)
    bucket = world.direct.settings.image_buckets[0]
    annotator = Annotator(world, record, {f"s3://{bucket}/{f.key}": f.label for f in files[:IMAGES]}, [], seed)
    for _ in range(LABELS):
        annotator.act("create")
    site = Site(world, record, annotator)
    assert _until(lambda: bool(site.runs("refresh")) and site.at_rest("refresh")), "the project is never at rest"
    return site


@contextmanager
def _burning(processes: int) -> Iterator[None]:
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(processes)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def table(found: Sequence[Struck]) -> str:
    """Blow and point × what came of it, in Markdown."""
    rows: dict[tuple[str, str, str], list[Struck]] = defaultdict(list)
    for each in found:
        rows[each.kind, each.how, each.point].append(each)
    lines = ["| run | blow | under way | times | one verdict | attempts | s, median | longest |", "|---|" + "---|" * 7]
    for (kind, how, point), several in sorted(rows.items()):
        right = sum(not s.wrong for s in several)
        attempts = statistics.mean(s.attempts for s in several)
        times = [s.took_s for s in several]
        lines.append(
            f"| {kind} | {how} | {point} | {len(several)} | {right} | {attempts:.1f} | {statistics.median(times):.0f} "
            f"| {max(times):.0f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=["retrain"], choices=sorted(WORKERS), help="in turn")
    parser.add_argument("--busy", type=int, default=2, help="processes that burn beside the second half")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further one after so long")
    parser.add_argument("--out", type=Path, help="a JSON line per wish is appended here")
    parser.add_argument("--home", type=Path, help="keep the stack's data and logs here")
    asked = parser.parse_args(argv)
    with (
        tempfile.TemporaryDirectory(prefix="labelloop-killed-") as folder,
        running_world(asked.home or Path(folder)) as world,
    ):
        found = _strikes(_site(world, asked.seed), asked)
    print(table(found))
    return 1 if any(s.wrong for s in found) else 0


def _strikes(site: Site, asked: argparse.Namespace) -> list[Struck]:
    found: list[Struck] = []
    source, began = random.Random(f"killed:{asked.seed}"), time.monotonic()
    usual: dict[str, float] = defaultdict(lambda: FIRST_S)
    for number in range(asked.times):
        if time.monotonic() - began > asked.seconds:
            break
        kind, busy = asked.kinds[number % len(asked.kinds)], number >= asked.times // 2
        with _burning(asked.busy if busy else 0):
            struck = strike(site, kind, number, source, usual_s=usual[kind], busy=busy)
        if struck.attempts <= 1:
            usual[kind] = (usual[kind] + min(struck.took_s, 30.0)) / 2
        found.append(struck)
        print(json.dumps(asdict(struck)), file=sys.stderr, flush=True)
        if asked.out:
            with asked.out.open("a") as file:
                file.write(json.dumps(asdict(struck)) + "\n")
    return found


if __name__ == "__main__":
    sys.exit(main())
