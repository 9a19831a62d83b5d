"""A version and what it came from in, its model card out (Markdown). Pure. See Mitchell et al. 2019."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from labelloop.records.evidence import Evaluation, Outcome
from labelloop.records.images import ImageFacts, Split
from labelloop.records.tasks import Task
from labelloop.records.versions import BackboneRecord, LogEntry, Version

FEW = 20  # test labels of a class, below which its recall is little more than a hint


@dataclass(frozen=True, slots=True)
class VersionOrigin:
    """A version, what it came from, and what people decided about it."""

    title: str
    version: Version
    backbone: BackboneRecord
    tasks: Sequence[Task]  # of the version's snapshot, classes as they counted
    images: Mapping[str, ImageFacts]
    config: Mapping[str, Any] | None  # None: not kept (made by an older release)
    decisions: Sequence[LogEntry]  # those about this version


def card(origin: VersionOrigin) -> str:
    """The page."""
    version = origin.version
    parts = [
        f"# {origin.title}: {version.name}",
        _summary(origin),
        "## Data\n\n" + _data(origin),
        "## Training\n\n" + _training(origin),
        "## Evaluation\n\n" + _evaluation(version.evaluation),
        "## Verdict\n\n" + _verdict(origin),
        "## Limits\n\n" + _limits(version.evaluation),
        "## Configuration\n\n" + _config(origin),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(origin: VersionOrigin) -> str:
    version = origin.version
    return (
        f"A classifier of images into {len(version.labels)} classes ({', '.join(version.labels)}), made by a "
        f"{version.kind} on {version.created_at[:10]}. It pre-labels images for people, who correct it; it is not "
        "meant to decide anything without them."
    )


def _data(origin: VersionOrigin) -> str:
    counts = {split: _labels(origin, split) for split in Split}
    people = {a.completed_by for t in origin.tasks for a in t.annotations if a.completed_by is not None}
    skipped = sum(t.skipped for t in origin.tasks)
    names = sorted(set().union(*counts.values()))
    rows = [[name, *(str(counts[split].get(name, 0)) for split in Split)] for name in names]
    return (
        f"Snapshot `{origin.version.snapshot}`: {len(origin.tasks)} annotated images, {len(people)} annotators, "
        f"{skipped} skipped. Train labels fit the model, test and audit labels never do.\n\n"
        + _table(["class", *(split.value for split in Split)], rows)
    )


def _labels(origin: VersionOrigin, split: Split) -> Counter[str]:
    pairs = ((t.label, origin.images.get(t.uri)) for t in origin.tasks)
    return Counter(label for label, facts in pairs if label and facts and facts.bucket is split)


def _training(origin: VersionOrigin) -> str:
    version, backbone = origin.version, origin.backbone
    shape = backbone.preprocessing
    rows = [
        ["backbone", f"{backbone.name} (`{backbone.id}`), {backbone.dimension} features"],
        ["weights", backbone.provenance],
        ["preprocessing", f"{shape['size']} pixels, {shape['crop_mode']}, {shape['interpolation']}"
                          + (f", steps {_steps(shape)}" if shape.get("steps") else "")],
        ["head", f"`{version.head_sha256[:12]}`, {', '.join(f'{k} {v}' for k, v in version.recipe.items())}"],
        ["labels it was trained on", str(version.evaluation.labels)],
        ["version before", version.parent or "none"],
        ["code", f"labelloop {version.code}"],
    ]  # fmt: skip
    return _table(["what", "value"], rows)


def _steps(shape: Mapping[str, Any]) -> str:
    return ", ".join(str(step.get("do")) for step in shape["steps"])


def _evaluation(evaluation: Evaluation) -> str:
    rows = [
        ["test split (random, never trained on)", _share(evaluation.test_accuracy), str(evaluation.test_n)],
        ["train labels, out of fold", _interval(evaluation), str(evaluation.judged_on)],
        ["largest class alone", _share(evaluation.majority), str(evaluation.judged_on)],
        ["expected calibration error", _share(evaluation.ece), str(evaluation.judged_on)],
        ["log loss", _share(evaluation.log_loss), str(evaluation.judged_on)],
    ]
    if evaluation.artefact:
        rows.append(["milliseconds per image", f"{evaluation.artefact.ms:.1f}", str(evaluation.artefact.images)])
    recalls = [[r.name, _share(r.challenger), _share(r.champion), str(r.n)] for r in evaluation.recalls]
    classes = _table(["class", "recall", "version before", "labels"], recalls) if recalls else "No recalls were taken."
    return _table(["what", "figure", "labels"], rows) + "\n\n" + classes


def _interval(evaluation: Evaluation) -> str:
    if evaluation.accuracy is None or evaluation.accuracy_low is None or evaluation.accuracy_high is None:
        return "none: the backbone saw every label"
    return f"{evaluation.accuracy:.3f} (95 %: {evaluation.accuracy_low:.3f} to {evaluation.accuracy_high:.3f})"


def _verdict(origin: VersionOrigin) -> str:
    verdict = origin.version.verdict
    lines = [f"**{verdict.outcome.value}**", "", *(f"- {reason}" for reason in verdict.reasons)]
    checks = [
        [c.rule, "content" if c.outcome is Outcome.PROMOTE else c.outcome.value, c.reason] for c in verdict.checks
    ]
    if checks:
        lines += ["", _table(["rule", "says", "why"], checks)]
    decisions = [[d.at[:19], d.action, d.by, d.why] for d in origin.decisions]
    lines += ["", _table(["at", "decision", "by", "why"], decisions) if decisions else "It was never live."]
    return "\n".join(lines)


def _limits(evaluation: Evaluation) -> str:
    few = [f"{r.name} ({r.n})" for r in evaluation.recalls if r.n < FEW]
    smallest = _smallest(evaluation.test_n)
    lines = [f"- {evaluation.test_n} test labels: a difference below {smallest} points cannot be told."]
    if few:
        lines.append(f"- Classes with fewer than {FEW} labels that judge: {', '.join(few)}.")
    if evaluation.waiting:
        waiting = ", ".join(f"{name} ({count})" for name, count in evaluation.waiting.items())
        lines.append(f"- Classes it does not know yet: {waiting}.")
    if evaluation.conflicts:
        lines.append(f"- {len(evaluation.conflicts)} images were left out: duplicates with contradicting labels.")
    return "\n".join(lines)


def _smallest(n: int) -> str:
    """Half width of a 95 % interval of a share near 0.9."""
    return f"{196 * (0.09 / n) ** 0.5:.1f}" if n else "100"


def _config(origin: VersionOrigin) -> str:
    if origin.config is None:
        return f"`{origin.version.config}` (its text was not kept)."
    text = yaml.safe_dump(dict(origin.config), sort_keys=False).strip()
    return f"`{origin.version.config}`:\n\n```yaml\n{text}\n```"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
