"""What the rules found, as one verdict; and whether a person has the last word."""

from __future__ import annotations

from dataclasses import replace

from labelloop.config.project import Gate
from labelloop.records.evidence import Check, Evaluation, Outcome, Verdict
from labelloop.rules.gate.paired import compared
from labelloop.rules.gate.rules import RULES

SEVERITY = {Outcome.PROMOTE: 0, Outcome.HOLD: 1, Outcome.REJECT: 2}


def judge(evaluation: Evaluation, policy: Gate) -> Verdict:
    """Whether the challenger goes live: only where no rule objects, and approval is not a person's."""
    comparison = compared(evaluation, policy)
    first = Check("comparison", comparison.outcome, "; ".join(comparison.reasons[:1]))
    checks = [check for rule in RULES if (check := rule(evaluation, policy))]
    against = sorted((c for c in checks if SEVERITY[c.outcome]), key=lambda c: -SEVERITY[c.outcome])
    worst = max([comparison.outcome, *(c.outcome for c in against)], key=lambda o: SEVERITY[o])
    reasons = tuple(c.reason for c in against)
    if SEVERITY[comparison.outcome] == SEVERITY[worst]:  # the graver reason stands first
        reasons = (*comparison.reasons, *reasons)
    else:
        reasons = (*reasons, *comparison.reasons)
    reasons += tuple(c.reason for c in checks if c.warns)
    return _approved(Verdict(worst, reasons, (first, *checks)), evaluation, policy)


def _approved(verdict: Verdict, evaluation: Evaluation, policy: Gate) -> Verdict:
    by_itself = policy.approval == "auto" or (policy.approval == "auto-for-refresh" and evaluation.kind != "retrain")
    if by_itself or verdict.outcome is not Outcome.PROMOTE:
        return verdict
    why = f"all rules pass; waits for a person (gate.approval: {policy.approval}): `labelloop promote` or `reject`"
    return replace(verdict, outcome=Outcome.HOLD, reasons=(why, *verdict.reasons), awaits=True)
