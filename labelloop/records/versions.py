"""Versions, the backbones they rest on, and the entries of the deployment log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelloop.records.evidence import Evaluation, Verdict


@dataclass(frozen=True, slots=True)
class BackboneRecord:
    """A network without its classifier, and all that must be the same in serving and training."""

    id: str
    name: str
    options: Mapping[str, Any]  # how to build it
    preprocessing: Mapping[str, Any]  # size, resize, mean, std, ...
    dimension: int
    weights_sha256: str
    provenance: str  # where the weights came from, in words
    snapshot: str | None = None  # the labels it was fine-tuned on; None: it never saw any
    checks: Mapping[str, Any] = field(default_factory=dict)  # outputs for a known input
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """(backbone, head, calibration, label order, preprocessing), with where it came from."""

    number: int
    kind: str  # refresh | retrain
    backbone: str
    labels: tuple[str, ...]
    head_key: str
    head_sha256: str
    snapshot: str
    config: str  # ProjectConfig.hash
    code: str  # code_version() of who made it
    parent: str | None
    reference: str | None  # version against which summed-up losses are bounded
    recipe: Mapping[str, Any]  # strength, folds, seed, ...
    evaluation: Evaluation
    verdict: Verdict
    check_features: tuple[tuple[float, ...], ...]  # a few feature rows ...
    check_probabilities: tuple[tuple[float, ...], ...]  # ... and what the head must make of them
    created_at: str

    @property
    def name(self) -> str:
        return f"v{self.number}"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One numbered entry of the append-only log; the last one names the champion."""

    number: int
    version: str  # live from here on
    action: str  # deploy | promote | rollback | reject
    previous: str | None
    by: str
    why: str
    at: str
    fencing: int
    rejected: str | None = None  # a version that a person has refused; the champion stays
    run: str = ""  # the run that delivered it ...
    wish: str = ""  # ... and what that run was to answer


def way_back(log: Iterable[LogEntry]) -> list[str]:
    """The versions that rollbacks go through, the champion last."""
    stack: list[str] = []
    for entry in log:
        if entry.action == "rollback" and entry.version in stack:
            last = len(stack) - 1 - stack[::-1].index(entry.version)
            del stack[last + 1 :]
        else:
            stack.append(entry.version)
    return stack


COLD_START = "cold-start"  # names the order before the first model
