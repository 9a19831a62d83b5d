"""`python -m bench.finetune`: a project's whole retrain on class folders, judged on images that the loop never saw.

The workers' own jobs run in this process: features and a linear head (refresh), then the fine-tune with its gate and
report (retrain). What they registered is loaded as the backend loads it and answers for the bytes of the images held
out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import structlog
import yaml
from sklearn.metrics import precision_recall_fscore_support

from bench.tools.offline import OfflineProject, folders, without_shared
from labelloop.config.project import ProjectConfig, load_config, parse_config
from labelloop.errors import ImageUnreadableError
from labelloop.records.versions import Version
from labelloop.store.reports import kept_report
from operations.projects.imagefolder import LabelledFile
from retrain_worker.evidence.artefact import served
from retrain_worker.intervals import wilson
from retrain_worker.refresh import RunResult, refresh
from retrain_worker.retrain import retrain

BATCH = 32


@dataclass(frozen=True)
class Row:
    """One class. Shares in [0, 1]."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Figures:
    """A version on the images held out."""

    version: str
    kind: str
    verdict: str
    accuracy: float
    low: float
    high: float
    n: int
    seconds: float
    ms_per_image: float
    rows: tuple[Row, ...]


def judged(world: OfflineProject, name: str, test: Sequence[LabelledFile], seconds: float) -> Figures:
    """Bytes in, answers out, by what is kept of the version."""
    version = world.project.registry.version(name)
    arm = served(world.project, world.project.registry.backbone(version.backbone), world.project.registry.head(version))
    truth, answers, spent = [], [], 0.0
    for start in range(0, len(test), BATCH):
        pixels = []
        for file in test[start : start + BATCH]:
            try:
                pixels.append(arm.backbone.decode(file.path.read_bytes()))
                truth.append(str(file.label))
            except ImageUnreadableError as error:
                print(f"left out: {file.path}: {error}")
        began = time.monotonic()
        answers += [arm.head.labels[i] for i in arm(np.stack(pixels)).argmax(axis=1)]
        spent += time.monotonic() - began
    return _figures(version, truth, answers, seconds, 1000 * spent / len(truth))


def _figures(version: Version, truth: Sequence[str], answers: Sequence[str], seconds: float, ms: float) -> Figures:
    names = sorted({*truth, *version.labels})
    columns = precision_recall_fscore_support(truth, answers, labels=names, zero_division=0.0)
    rows = tuple(Row(n, float(p), float(r), float(f), int(s)) for n, p, r, f, s in zip(names, *columns, strict=True))
    right = sum(a == b for a, b in zip(truth, answers, strict=True))
    low, high = wilson(right, len(truth))
    return Figures(
        version.name, version.kind, version.verdict.outcome.value, right / len(truth), low, high, len(truth),
        seconds, ms, rows,
    )  # fmt: skip


def shown(found: Figures) -> None:
    """A table for people, a line for machines."""
    bounds = f"95 % interval {found.low:.4f} to {found.high:.4f}"
    cost = f"{found.seconds:.0f} s, {found.ms_per_image:.1f} ms an image"
    print(f"\n{found.version} ({found.kind}, {found.verdict}), {cost}")
    print(f"accuracy {found.accuracy:.4f} on {found.n} held-out images, {bounds}")
    print("\n| class | precision | recall | F1 | images |\n|---|---|---|---|---|")
    for row in found.rows:
        print(f"| {row.name} | {row.precision:.3f} | {row.recall:.3f} | {row.f1:.3f} | {row.support} |")
    print(json.dumps(asdict(found)))


def configured(path: Path, changes: Sequence[str]) -> ProjectConfig:
    """The YAML file, with ``a.b=value`` replaced."""
    spec = load_config(path).model_dump(mode="json")
    for change in changes:
        key, _, value = change.partition("=")
        *parents, last = key.split(".")
        place = spec
        for parent in parents:
            place = place[parent]
        place[last] = yaml.safe_load(value)
    return parse_config(spec, str(path))


def main() -> None:
    """See the module."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="class folders the project is made of")
    parser.add_argument("--test", type=Path, help="class folders held out; else a share of --train")
    parser.add_argument("--share", type=float, default=0.2, help="that share")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. retrain.epochs=3")
    parser.add_argument("--report", type=Path, help="where the evaluation report goes")
    given = parser.parse_args()
    train, test = folders(given.train, given.test, given.share)
    kept = without_shared(train, test)
    left_out = len(train) - len(kept)
    print(f"{len(kept)} images to learn from ({left_out} show what a held-out one shows), {len(test)} held out")
    whole_cycle(configured(given.config, given.set), kept, test, given.report)


def whole_cycle(
    config: ProjectConfig, train: Sequence[LabelledFile], test: Sequence[LabelledFile], report: Path | None
) -> None:
    """Features, a head, a fine-tune with its gate and report; both versions judged on the images held out."""
    with tempfile.TemporaryDirectory() as folder:
        world = OfflineProject(config, train, Path(folder))
        print(f"features of {len(train)} images in {world.featurised_s:.0f} s")
        for job in (refresh, retrain):
            began = time.monotonic()
            ended: RunResult = job(world.context, world.project, world.snapshot)
            took = time.monotonic() - began
            print("\n" + "\n".join(ended.verdict.reasons))
            if ended.training:
                print(json.dumps(dict(ended.training)))
            if ended.version:
                shown(judged(world, ended.version, test, took))
        page = kept_report(world.project.store, ended.version) if ended.version else None
        if report and page:
            report.write_text(page.html)


if __name__ == "__main__":
    main()
