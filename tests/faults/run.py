"""`python -m tests.faults.run`: seeded schedules against one running stack, a line each, a table at the end."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from labelloop.config.networks import PIXELS
from labelloop.config.project import BackboneSpec, ProjectConfig, Queue, Refresh, Retrain
from labelloop.store.projects import ProjectRecord
from operations.projects.digits import write_digits
from operations.projects.drain import drain
from operations.projects.imagefolder import scan
from operations.projects.setup import ImageSource, set_up, wait_ready
from tests.faults.annotator import Annotator
from tests.faults.invariants import Judge, fingerprint
from tests.faults.schedule import Fault, Schedule, make_schedule
from tests.faults.world import World, running_world

IMAGES = 120
SPARE = 12
PACE_S = 0.02
SETTLE_S = 120.0  # no recovery takes so long: what is not at rest by then never will be


@dataclass(frozen=True)
class Outcome:
    """How one schedule ended."""

    seed: int
    faults: tuple[str, ...]
    actions: int
    took_s: float
    recovery_s: float  # from the last fault's end (and the last action) until all is at rest
    annotations: int
    versions: int
    broken: tuple[str, ...]
    processes: int = 0
    memory_mb: float = 0.0


def run_schedule(world: World, schedule: Schedule) -> Outcome:
    """A project of its own, people and faults at once, then the judge."""
    began = time.monotonic()
    record, annotator = _project(world, schedule)
    judge = Judge(world, record)
    threads = _start_faults(world, schedule.faults, annotator)
    ready = time.monotonic()
    for action in schedule.actions:
        annotator.act(action)
        time.sleep(PACE_S)
    for thread in threads:
        thread.join()
    world.heal()
    healed = time.monotonic()
    pending = _wait(judge)
    recovery = time.monotonic() - healed
    broken = pending or _judged(world, record, judge)
    studio = judge.in_studio()
    outcome = Outcome(
        schedule.seed, tuple(map(str, schedule.faults)), annotator.done, round(time.monotonic() - began, 1),
        round(recovery, 1), len(studio), len(world.direct.registry(record).versions()), tuple(broken),
        world.processes(), round(sum(world.memory_mb().values())),
    )  # fmt: skip
    print(
        f"  set-up {ready - began:.0f} s, people {healed - ready:.0f} s; snapshot {fingerprint(judge.in_snapshot())}, "
        f"Label Studio {fingerprint(studio)}", file=sys.stderr,
    )  # fmt: skip
    world.direct.projects.remove(record.key)
    return outcome


def _project(world: World, schedule: Schedule) -> tuple[ProjectRecord, Annotator]:
    name = f"faults-{schedule.seed}-{int(time.time())}"
    files = scan(write_digits(world.home / "digits"), f"{name}/")
    random.Random(schedule.seed).shuffle(files)
    config = ProjectConfig(
        name=name, backbone=BackboneSpec(name=PIXELS), seed=schedule.seed, refresh=Refresh(after=10),
        queue=Queue(window=100), retrain=Retrain(epochs=1, backbone_rate=1.0, automatic=False),
    )  # fmt: skip
    source = ImageSource(config, files[:IMAGES], f"{name}/", 0)
    record, _ = set_up(world.proxied, source, lambda *_: None)
    wait_ready(world.direct, record, lambda *_: None)
    bucket = world.direct.settings.image_buckets[0]
    spare = files[IMAGES : IMAGES + SPARE]
    truth = {f"s3://{bucket}/{f.key}": f.label for f in [*source.files, *spare]}
    known = {f"s3://{bucket}/{f.key}": truth[f"s3://{bucket}/{f.key}"] for f in source.files}
    return record, Annotator(world, record, {**truth, **known}, list(spare), schedule.seed)


def _start_faults(world: World, faults: Sequence[Fault], annotator: Annotator) -> list[threading.Thread]:
    def happen(fault: Fault) -> None:
        while annotator.done < fault.at:
            time.sleep(0.01)
        world.break_(fault)

    threads = [threading.Thread(target=happen, args=(fault,), daemon=True) for fault in faults]
    for thread in threads:
        thread.start()
    return threads


def _wait(judge: Judge) -> list[str]:
    """Until all is at rest, twice in a row; what is not, at the end of the patience."""
    began, quiet = time.monotonic(), 0
    pending: list[str] = ["never looked"]
    while quiet < 2 and time.monotonic() - began < SETTLE_S:
        pending = judge.settled()
        quiet = 0 if pending else quiet + 1
        time.sleep(0.5)
    return pending


def _judged(world: World, record: ProjectRecord, judge: Judge) -> list[str]:
    drain(replace(world.direct), record)
    return _wait(judge) or judge.broken()  # the drain may have made the first version


def told(outcome: Outcome) -> str:
    """One schedule in a line; a failure names its seed."""
    state = "held" if not outcome.broken else "BROKEN: " + "; ".join(outcome.broken)
    faults = ", ".join(outcome.faults)
    return f"seed {outcome.seed}: {faults} → recovery {outcome.recovery_s} s of {outcome.took_s} s; {state}"


def table(outcomes: Sequence[Outcome]) -> str:
    """Faults × recoveries, in Markdown: single faults by name, several at once in one row."""
    rows: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        kind = outcome.faults[0] if len(outcome.faults) == 1 else "several in one schedule (3 to 7)"
        rows[kind].append(outcome)
    lines = ["| fault | schedules | recovery, median | longest | invariants |", "|---|---|---|---|---|"]
    for kind, found in rows.items():
        times = [o.recovery_s for o in found]
        bad = sum(bool(o.broken) for o in found)
        lines.append(
            f"| {kind} | {len(found)} | {statistics.median(times):.1f} s | {max(times):.1f} s "
            f"| {'held' if not bad else f'{bad} broken'} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=100)
    parser.add_argument("--actions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule; one that failed is named")
    parser.add_argument("--only", type=int, nargs="*", help="these seeds instead")
    parser.add_argument("--out", type=Path, help="a JSON line per schedule is appended here")
    parser.add_argument("--home", type=Path, help="keep the stack's data and logs here")
    asked = parser.parse_args(argv)
    seeds = asked.only or range(asked.seed, asked.seed + asked.schedules)
    console, outcomes = Console(stderr=True), []
    with tempfile.TemporaryDirectory(prefix="labelloop-faults-") as folder:
        home = asked.home or Path(folder)
        with running_world(home, lambda line: console.print(line, style="dim")) as world:
            for i, seed in enumerate(seeds, 1):
                outcome = run_schedule(world, make_schedule(seed, asked.actions))
                outcomes.append(outcome)
                console.print(f"{i}/{len(seeds)} {told(outcome)}", highlight=False, markup=False)
                if asked.out:
                    with asked.out.open("a") as file:
                        file.write(json.dumps(asdict(outcome)) + "\n")
    print(table(outcomes))
    return 1 if any(o.broken for o in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
