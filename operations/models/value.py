"""A project's answers in, what pre-labels save and do to people out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labelloop.rules.schema import LabelRules
from labelloop.rules.value import Value, looks_of, value_of
from labelloop.rules.value.words import advice, headline, reasons
from labelloop.store.projects import ProjectRecord
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment
from operations.people import people, who


@dataclass(frozen=True, slots=True)
class Warned:
    """One warning in words."""

    headline: str
    reasons: tuple[str, ...]
    advice: str


@dataclass(frozen=True, slots=True)
class Page:
    """The report of one project with the names of its people."""

    title: str
    snapshot: str | None
    blind: float  # share of the chosen images that is shown blind now
    answers: int  # of people, seeds not counted
    value: Value
    names: dict[int, str]  # account -> e-mail, or its number
    warnings: tuple[Warned, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; people by name."""
        value = self.value.to_json()
        for row in (*value["people"], *value["warnings"]):
            row["name"] = self.names[row["who"]]
        for row, warning in zip(value["warnings"], self.warnings, strict=True):
            row |= {"headline": warning.headline, "reasons": warning.reasons, "advice": warning.advice}
        head = {"project": self.title, "snapshot": self.snapshot, "answers": self.answers, "blind": self.blind}
        return head | value


def value(deployment: Deployment, record: ProjectRecord) -> Page:
    """Of the newest snapshot."""
    snapshots = SnapshotStore(deployment.within(record))
    latest = snapshots.latest()
    tasks = snapshots.load(latest.snapshot).tasks.values() if latest else ()
    figures = value_of(looks_of(tasks, LabelRules.of(record.config)))
    accounts = people(deployment) if figures.people else {}
    names = {person.who: who(person.who, accounts) for person in figures.people}
    warnings = tuple(Warned(headline(w, names[w.who]), tuple(reasons(w)), advice(w)) for w in figures.warnings)
    answers = sum(a.label is not None and not a.seed for t in tasks for a in t.annotations)
    return Page(record.title, latest.snapshot if latest else None, record.config.queue.blind, answers, figures, names,
                warnings)  # fmt: skip
