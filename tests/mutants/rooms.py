"""Which rules are mutated, which tests must notice, and how many of the mutants they must kill at least."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Room:
    """Modules and the tests that must notice a change in them; ``floor``: share of mutants killed, in [0, 1]."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    floor: float


ROOMS = {
    "gate": Room(
        ("labelloop.rules.gate.paired", "labelloop.rules.gate.rules", "labelloop.rules.gate.verdict"),
        (
            "tests/unit/rules/test_gate.py",
            "tests/unit/rules/test_gate_limits.py",
            "tests/unit/worker/test_contradiction.py",
        ),
        0.95,
    ),
    "trigger": Room(("labelloop.rules.trigger",), ("tests/unit/rules/test_trigger.py",), 0.95),
    "split": Room(("labelloop.rules.split",), ("tests/unit/rules/test_split.py",), 0.80),
    "intervals": Room(
        ("labelloop.rules.intervals", "labelloop.rules.paired_intervals", "retrain_worker.intervals"),
        ("tests/unit/worker/test_evidence.py", "tests/unit/rules/test_value_report.py"),
        0.90,
    ),
    "evidence": Room(
        ("retrain_worker.evidence.collect", "retrain_worker.evidence.answers"),
        (
            "tests/unit/worker/test_evidence.py",
            "tests/unit/worker/test_evidence_figures.py",
            "tests/unit/worker/test_contradiction.py",
        ),
        0.85,
    ),
    "refresh": Room(
        ("retrain_worker.refresh",),
        ("tests/unit/worker/test_refresh.py", "tests/unit/worker/test_retrain.py"),
        0.60,
    ),
    "retrain": Room(
        ("retrain_worker.retrain",),
        ("tests/unit/worker/test_retrain.py", "tests/unit/jobs/test_overtaken.py"),
        0.60,
    ),
    "fit": Room(
        ("retrain_worker.training.fit", "retrain_worker.training.optimiser"),
        ("tests/unit/worker/test_training.py",),
        0.60,
    ),
    "snapshot": Room(
        ("labelloop.store.snapshots",),
        (
            "tests/unit/store/test_snapshot.py",
            "tests/unit/store/test_snapshot_damage.py",
        ),
        0.75,
    ),
    "near": Room(("labelloop.likeness.near",), ("tests/unit/likeness/test_near.py",), 0.90),
}
