"""Looks in, the value report out: what pre-labels save, what they do to people, and who should be talked with. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from labelloop.records.json import fields_of
from labelloop.rules.value.figures import (
    Anchoring,
    AnswerTimes,
    Checked,
    ClassOverrides,
    Rate,
    anchoring,
    checked,
    classes,
    median,
    of_kind,
    share,
    times,
)
from labelloop.rules.value.looks import Look, Showing
from labelloop.rules.value.unread import Evidence, evidence


@dataclass(frozen=True, slots=True)
class Person:
    """One annotator."""

    who: int
    looks: int  # answers to images of which the model had said something
    overrides: Rate  # of the pre-labels that they saw
    blind: Rate  # answers that are the model's, of those without pre-label
    seconds_shown: float | None  # median
    seconds_blind: float | None
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Unread:
    """Somebody takes what they see far more often than they say the same unseen. Why, the figures do not tell."""

    who: int
    odds: float  # for somebody who looks this is less likely than one in so many
    noticed: int  # looks after which it first was clear
    since: str  # UTC: the first of the looks that speak for it; what follows counts those
    overrides: Rate  # of the pre-labels that they saw
    blind: Rate  # answers other than the model's, of those without pre-label
    seconds_accepted: float | None  # median; supports, and is never a reason by itself
    seconds_blind: float | None
    accepted: int  # labels to be looked at again
    wrong: float  # how many of them are wrong by the model's own probabilities
    tasks: tuple[int, ...] = ()  # which these are, the least sure first


@dataclass(frozen=True, slots=True)
class Value:
    """The whole report."""

    looks: int
    anchoring: Anchoring
    drawn: Rate  # answers that are the model's, of those drawn at random: how good it is. Without people named below
    times: AnswerTimes  # without them, too: nobody saves time by not looking
    checked: Checked
    classes: tuple[ClassOverrides, ...]
    people: tuple[Person, ...]
    warnings: tuple[Unread, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def value_of(looks: Sequence[Look]) -> Value:
    """Of a project's looks, oldest first."""
    people = by_person(looks)
    evidence_of = {who: evidence(mine) for who, mine in people.items()}
    named = {who for who, e in evidence_of.items() if e.named}
    trusted = [look for look in looks if look.who not in named]
    return Value(
        looks=len(looks), anchoring=anchoring(looks), drawn=share(of_kind(trusted, Showing.DRAWN), departed=False),
        times=times(by_person(trusted)), checked=checked(looks),
        classes=classes(looks), people=tuple(_person(who, mine, evidence_of[who]) for who, mine in people.items()),
        warnings=tuple(_unread(who, people[who], evidence_of[who]) for who in people if who in named),
    )  # fmt: skip


def warnings_of(looks: Sequence[Look]) -> tuple[Unread, ...]:
    """Only those who should be talked with."""
    rows = ((who, mine, evidence(mine)) for who, mine in by_person(looks).items())
    return tuple(_unread(who, mine, e) for who, mine, e in rows if e.named)


def by_person(looks: Sequence[Look]) -> Mapping[int, list[Look]]:
    """Who -> their looks, oldest first; most answers first. Not without an account: it may be many."""
    people: dict[int, list[Look]] = {}
    for look in looks:
        if look.who is not None:
            people.setdefault(look.who, []).append(look)
    return dict(sorted(people.items(), key=lambda item: (-len(item[1]), item[0])))


def _person(who: int, looks: Sequence[Look], doubts: Evidence) -> Person:
    shown, blind = of_kind(looks, Showing.SHOWN), of_kind(looks, Showing.HIDDEN, Showing.DRAWN)
    return Person(
        who, len(looks), overrides=share(shown, departed=True), blind=share(blind, departed=False),
        seconds_shown=median(shown), seconds_blind=median(blind), evidence=doubts,
    )  # fmt: skip


def _unread(who: int, looks: Sequence[Look], doubts: Evidence) -> Unread:
    since = looks[doubts.since :]
    blind = of_kind(since, Showing.HIDDEN, Showing.DRAWN)
    accepted = sorted((k for k in since if k.accepted), key=lambda k: k.probability or 0.0)
    return Unread(
        who, doubts.odds, doubts.noticed or len(looks), since[0].at,
        overrides=share(of_kind(since, Showing.SHOWN), departed=True), blind=share(blind, departed=True),
        seconds_accepted=median(accepted), seconds_blind=median(blind), accepted=len(accepted),
        wrong=sum(1 - (k.probability or 0.0) for k in accepted if k.probability is not None),
        tasks=tuple(dict.fromkeys(k.task for k in accepted)),
    )  # fmt: skip


def unread_from(data: Mapping[str, Any]) -> Unread:
    """The inverse of `asdict`."""
    rates = {name: Rate(**fields_of(Rate, data[name])) for name in ("overrides", "blind")}
    return Unread(**{**fields_of(Unread, data), **rates, "tasks": tuple(data["tasks"])})
