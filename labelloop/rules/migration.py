"""Classes of the label config and of the labels in; what a person has to decide, and the decision, out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from enum import StrEnum
from shlex import quote

from labelloop.errors import SettingsError
from labelloop.labels.results import LabelSchema
from labelloop.rules.schema import LabelRules

ALIKE = 0.6  # names that share so much may mean the same; difflib's ratio, letters' case ignored
LabelMap = Mapping[str, str | None]


class ProposedStep(StrEnum):
    """What can be done with a class that is gone."""

    RENAME = "rename"  # into a class that is new
    MERGE = "merge"  # into a class that has labels of its own
    DROP = "drop"  # its labels do not count


@dataclass(frozen=True, slots=True)
class Proposal:
    """A guess; a person decides."""

    kind: ProposedStep
    old: str
    new: str | None
    why: str

    @property
    def option(self) -> str:
        """As it is given to `labelloop schema`."""
        return f"--drop {quote(self.old)}" if self.new is None else f"--map {quote(f'{self.old}={self.new}')}"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person decided."""

    maps: Mapping[str, str] = field(default_factory=dict)
    drops: Collection[str] = ()
    keeps: Collection[str] = ()  # take an earlier decision back

    def __bool__(self) -> bool:
        return bool(self.maps or self.drops or self.keeps)


@dataclass(frozen=True, slots=True)
class Change:
    """How one label config differs from the one before."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    hidden: str | None = None  # why the new one cannot be followed: labels would no longer be found


def changed(before: LabelSchema, after: LabelSchema, *, labelled: bool) -> Change:
    """What a new label config brings. Where there are labels, their control must keep its name."""
    hidden = None
    if labelled and before.control != after.control:
        hidden = (
            f"<Choices> is now called {after.control!r} in the label config, and the labels were given under "
            f"{before.control!r}: call it {before.control!r} again, or they are lost to Label Studio and to us"
        )
    return Change(
        tuple(c for c in after.classes if c not in before.classes),
        tuple(c for c in before.classes if c not in after.classes), hidden,
    )  # fmt: skip


def undecided(labels: Iterable[str], classes: Collection[str]) -> dict[str, int]:
    """Class -> labels, of the classes that people gave and the label config lacks. ``labels`` as they count."""
    counts = Counter(labels)
    return {name: counts[name] for name in sorted(counts) if name not in classes}


def in_words(waiting: Mapping[str, int]) -> tuple[str, ...]:
    """The same for people."""
    return tuple(f"class {name!r} ({n} label{'' if n == 1 else 's'})" for name, n in waiting.items())


def propose(waiting: Collection[str], classes: Collection[str], labelled: Collection[str]) -> tuple[Proposal, ...]:
    """The likeliest for each class that has to be decided, likeliest first. ``labelled``: classes that have labels."""
    fresh = [c for c in classes if c not in labelled]
    proposals: list[Proposal] = []
    for old, new in _pairs(waiting, fresh):
        proposals.append(
            Proposal(ProposedStep.RENAME, old, new, f"{new!r} is new and has no labels; the names are alike")
        )
    left = [old for old in waiting if old not in {p.old for p in proposals}]
    if len(left) == 1 and len(rest := [c for c in fresh if c not in {p.new for p in proposals}]) == 1:
        proposals.append(Proposal(ProposedStep.RENAME, left[0], rest[0], "one class went and one came"))
        left = []
    for old in left:
        alike = _pairs([old], [c for c in classes if c in labelled])
        if alike:
            proposals.append(Proposal(ProposedStep.MERGE, old, alike[0][1], "the names are alike"))
        else:
            proposals.append(Proposal(ProposedStep.DROP, old, None, "no class of the label config has a name like it"))
    return tuple(proposals)


def decide(
    label_map: LabelMap, wishes: Wishes, *, labelled: Collection[str], classes: Collection[str]
) -> dict[str, str | None]:
    """The new `label_map`; SettingsError says which wish cannot be and why.

    ``labelled``: every class that anybody gave, as it was given. ``classes``: those of the label config.
    """
    decided = dict(label_map)
    _once(wishes)
    for old in wishes.keeps:
        _can_keep(old, label_map, classes)
        del decided[old]
    for old in [*wishes.maps, *wishes.drops]:
        if old not in labelled and old not in label_map:
            raise SettingsError(f"no label was ever given as {old!r}; classes that have labels: {_listed(labelled)}")
    for old, new in wishes.maps.items():
        if new not in classes or new == old:
            raise SettingsError(
                f"{old!r} cannot become {new!r}: it must be another class of the label config ({_listed(classes)})"
            )
        decided[old] = new
    decided.update(dict.fromkeys(wishes.drops))
    _check_ends(decided, classes)
    return decided


def _once(wishes: Wishes) -> None:
    counts = Counter([*wishes.maps, *wishes.drops, *wishes.keeps])
    twice = [name for name, n in counts.items() if n > 1]
    if twice:
        raise SettingsError(f"say one thing about each class: {_listed(twice)} is named more than once")


def _can_keep(old: str, label_map: LabelMap, classes: Collection[str]) -> None:
    if old not in label_map:
        raise SettingsError(f"nothing was decided about {old!r}: there is nothing to take back")
    if old not in classes:
        raise SettingsError(f"add {old!r} to the label config first: its labels need a class to count as")


def _check_ends(label_map: LabelMap, classes: Collection[str]) -> None:
    """Maps may go over several classes (so that each can be taken back), but must end at one that people can give."""
    ends = {old: LabelRules(label_map).resolve(old) for old in label_map}
    circle = [old for old, end in ends.items() if end in label_map]
    if circle:
        raise SettingsError(f"the maps of {_listed(circle)} go in a circle: take one of them back with --keep")
    lost = {old: end for old, end in ends.items() if end is not None and end not in classes}
    if lost:
        raise SettingsError(
            f"{_listed(lost)} would count as a class that the label config lacks: map or drop "
            f"{_listed(set(lost.values()))}, too"
        )


def _pairs(olds: Collection[str], fresh: Collection[str]) -> list[tuple[str, str]]:
    """Each old with at most one new, the most alike first."""
    ranked = sorted(((_alike(o, n), o, n) for o in olds for n in fresh), key=lambda x: (-x[0], x[1], x[2]))
    renames: dict[str, str] = {}
    for ratio, old, new in ranked:
        if ratio >= ALIKE and old not in renames and new not in renames.values():
            renames[old] = new
    return list(renames.items())


def _alike(one: str, two: str) -> float:
    return SequenceMatcher(None, one.casefold(), two.casefold()).ratio()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(n) for n in sorted(names)) or "none"
