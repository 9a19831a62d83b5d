"""Findings in, the JSON document out: plain types, every number finite. docs/report.md lists its keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from retrain_worker.report.findings import ArmFindings, Compared, Findings

FORMAT = 1
_PICTURES = ("picture", "integrated", "grad_cam")


def document(findings: Findings) -> dict[str, Any]:
    """The whole report without its pictures."""
    inputs = findings.inputs
    unreadable = [{"uri": uri, "problem": problem} for uri, problem in findings.unreadable.items()]
    explained = asdict(findings.explained) if findings.explained else None
    whole: dict[str, Any] = _plain({
        "format": FORMAT, "run": asdict(inputs.origin), "verdict": asdict(inputs.verdict), "notes": findings.notes,
        "classes": findings.classes,
        "test": {"labels": len(inputs.uris), "judged": findings.judged, "unreadable": unreadable},
        "challenger": _arm(findings.challenger), "champion": _arm(findings.champion) if findings.champion else None,
        "comparison": _compared(findings.compared) if findings.compared else None,
        "mistakes": {"count": findings.wrong, "shown": [_without_pictures(asdict(m)) for m in findings.mistakes]},
        "attributions": explained and {**explained, "images": list(map(_without_pictures, explained["images"]))},
        "training": inputs.history, "seed": inputs.seed,
    })  # fmt: skip
    return whole


def _arm(arm: ArmFindings) -> dict[str, Any]:
    record = arm.backbone
    backbone = record and {
        "id": record.id, "name": record.name, "dimension": record.dimension, "provenance": record.provenance,
        "snapshot": record.snapshot, "preprocessing": record.preprocessing, "weights_sha256": record.weights_sha256,
    }  # fmt: skip
    return {
        "name": arm.name, "backbone": backbone, "measures": asdict(arm.measures) if arm.measures else None,
        "intervals": arm.intervals, "robustness": [asdict(row) for row in arm.robustness],
        "serving": asdict(arm.serving) if arm.serving else None,
    }  # fmt: skip


def _compared(compared: Compared) -> dict[str, Any]:
    return {
        **asdict(compared.accuracy), "gained": compared.gained, "lost": compared.lost, "intervals": compared.intervals,
    }  # fmt: skip


def _without_pictures(image: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in image.items() if key not in _PICTURES}


def _plain(value: Any) -> Any:
    """JSON's own types; a number that is not finite, such as the loss of a run that diverged, becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return str(value) if isinstance(value, str) else value
