"""`python -m bench.live`: labels that the whole loop needs to a test accuracy, by order of labelling.

Real Label Studio, watcher, workers and backend of one embedded stack. Each run is a project of its own, labelled by
`simulate`'s annotators to its end. A seed draws the same images for every order and number of people, and with them the
same buckets.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.connect import deployment_of
from cli.up import make_stack
from labelloop.records.json import digest
from operations.deployment import Deployment
from operations.projects.imagefolder import LabelledFile
from operations.projects.setup import ImageSource
from operations.simulation.oracle import Rates
from operations.simulation.simulate import Job, prepare, simulate


def some(files: Sequence[LabelledFile], each: int | None, seed: int) -> list[LabelledFile]:
    """So many of each class, drawn by the seed; all without a number."""
    drawn = sorted(files, key=lambda f: digest(f"{seed}:{f.path.parent.name}/{f.path.name}".encode()))
    found: dict[str | None, list[LabelledFile]] = {}
    for file in drawn:
        found.setdefault(file.label, []).append(file)
    return [file for same in found.values() for file in same[:each]]


def ordered(source: ImageSource, policy: str) -> ImageSource:
    """The same project, its images asked for in this order."""
    queue = source.config.queue.model_copy(update={"policy": policy})
    return replace(source, config=source.config.model_copy(update={"queue": queue}))


def run(
    deployment: Deployment, home: Path, policy: str, people: int, seed: int, given: argparse.Namespace
) -> dict[str, Any]:
    """One project's figures."""
    source, test = prepare(home, images=given.images, test=given.test, config=given.config, reveal=0, seed=seed)
    source = ordered(replace(source, files=some(source.files, given.each, seed)), policy)
    job = Job(given.labels, Rates(), seed, people=people, target=given.target)
    began = time.monotonic()
    figures = simulate(deployment, source, some(test, given.test_each, 0), job, lambda *_: None)
    accuracy = figures["test_accuracy_per_version"]
    curve = sorted(
        (figures["labels_by_version"][v], a) for v, a in accuracy.items() if v in figures["labels_by_version"]
    )
    return {
        "bench": "live", "policy": policy, "people": people, "seed": seed, "images": len(source.files),
        "labels": figures["labels"], "to_target": figures["labels_to_target"], "curve": curve,
        "accuracy": figures["test_accuracy"], "lost": figures["lost"], "twice": figures["labelled_twice"],
        "versions": figures["versions"], "runs": figures["runs"], "live_p95_s": figures["submit_to_live_p95_s"],
        "minutes": round((time.monotonic() - began) / 60, 1),
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]], target: float) -> Table:
    """A line for each order and number of people, seeds side by side."""
    shown = Table("order", "people", f"labels to {target:.2f}, by seed", "test accuracy at the end, by seed", "lost")
    for policy, people in dict.fromkeys((r["policy"], r["people"]) for r in rows):
        mine = [r for r in rows if (r["policy"], r["people"]) == (policy, people)]
        to = ", ".join(f"{r['to_target'] or 'not in ' + str(r['labels'])}" for r in mine)
        ends = ", ".join(f"{r['accuracy']:.3f}" for r in mine)
        shown.add_row(policy, str(people), to, ends, str(sum(r["lost"] for r in mine)))
    return shown


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="class folders")
    parser.add_argument("--test", type=Path, required=True, help="the same, never in a project")
    parser.add_argument("--config", type=Path, default=Path("configs/intel_scenes.yaml"))
    parser.add_argument("--policies", default="auto,random")
    parser.add_argument("--people", default="1,3")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--labels", type=int, default=150)
    parser.add_argument("--target", type=float, default=0.8)
    parser.add_argument("--each", type=int, help="images of each class in a project; else all")
    parser.add_argument("--test-each", type=int, help="test images of each class; else all")
    given = parser.parse_args()
    console, rows = Console(stderr=True), []
    with tempfile.TemporaryDirectory(prefix="labelloop-bench-") as folder, make_stack(Path(folder), console) as stack:
        state = stack.start()
        stack.wait_ready()
        deployment = deployment_of(state)
        for seed in map(int, given.seeds.split(",")):
            for people in map(int, given.people.split(",")):
                for policy in given.policies.split(","):
                    rows.append(run(deployment, Path(folder), policy, people, seed, given))
                    print(json.dumps(rows[-1]), flush=True)
        deployment.close()
    Console(width=130).print(table(rows, given.target))


if __name__ == "__main__":
    main()
