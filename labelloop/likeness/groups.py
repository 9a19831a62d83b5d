"""New images and their relatives in, two decisions out. Pure.

The **group** says where an image stands: what is related stands in one split. Too large a group costs little. The
**twin** says what an image counts as: only what is proven to be the same counts once, and may contradict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from labelloop.config.shares import SplitShares
from labelloop.likeness.proof import PROVEN, Kinship
from labelloop.likeness.relatives import Relative
from labelloop.records.given import Given
from labelloop.records.images import ImageFacts, Split
from labelloop.rules.split import split_of

KNOWN_FIRST = 500  # images of a new project that are known before any of them is placed


def can_place(images: int, pool: int | None) -> bool:
    """Whether enough images are known to tell a camera from a copy. ``pool``: how many there are; None: these."""
    return pool is None or images >= min(KNOWN_FIRST, pool)


@dataclass(slots=True)
class _Groups:
    """Groups as they grow. Those that were decided before never change."""

    decided: dict[str, Split]
    cap: int
    own: dict[str, str] = field(default_factory=dict)  # uri -> group, before groups became one
    into: dict[str, str] = field(default_factory=dict)  # group -> the one that it has become
    size: Counter[str] = field(default_factory=Counter)

    def of(self, uri: str) -> str:
        """The group of a placed image now."""
        group = self.own[uri]
        while group in self.into:
            group = self.into[group]
        return group

    def put(self, uri: str, group: str) -> None:
        """Place an image."""
        self.own[uri] = group
        self.size[group] += 1

    def unite(self, group: str, other: str, *, proven: bool) -> str:
        """The group of both; two that were decided stay two, and so do large ones without proof."""
        if group == other or (group in self.decided and other in self.decided):
            return group
        if not proven and self.size[group] + self.size[other] >= self.cap:
            return group
        kept, merged = (other, group) if other in self.decided else (group, other)
        self.into[merged] = kept
        self.size[kept] += self.size.pop(merged, 0)
        return kept


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides beside the images."""

    shares: SplitShares
    cap: int  # see `labelloop.likeness.relatives.crowd_cap`
    stated: Callable[[ImageFacts], Given] = lambda _facts: Given()
    own_test: bool = False  # people brought a test set of their own


class Pictures(Protocol):
    """How pictures compare."""

    def of(self, uri: str, placed: Container[str], cap: int) -> list[Relative]:
        """Relatives of an image among placed ones, the nearest first."""

    def is_same(self, uri: str, other: str) -> bool:
        """Whether two images are proven to be one picture."""


def place(
    new: Iterable[ImageFacts],
    placed: Iterable[ImageFacts],
    pictures: Pictures,
    rules: Rules,
    splits: Mapping[str, Split],
) -> list[ImageFacts]:
    """The new images with group, split and twin. ``splits``: of groups that were decided before."""
    work = _Placing(pictures, rules, _Groups(dict(splits), rules.cap))
    for facts in placed:
        if facts.group:
            work.add(facts)
    ordered = sorted(new, key=lambda f: (rules.stated(f).bucket is None, f.uri))  # an own test set comes first
    return work.done([work.place(facts) for facts in ordered])


@dataclass(slots=True)
class _Placing:
    pictures: Pictures
    rules: Rules
    groups: _Groups
    placed: dict[str, ImageFacts] = field(default_factory=dict)
    by_bytes: dict[str, str] = field(default_factory=dict)  # sha256 -> the first image
    first: dict[str, str] = field(default_factory=dict)  # twin -> the image that speaks for it
    apart: set[str] = field(default_factory=set)  # images that are proven to stand on two sides

    def add(self, facts: ImageFacts) -> None:
        """An image that is placed."""
        self.placed[facts.uri] = facts
        self.groups.put(facts.uri, facts.group)
        self.by_bytes.setdefault(facts.sha256, facts.uri)
        if facts.sha256 == facts.twins:
            self.first.setdefault(facts.twins, facts.uri)

    def place(self, facts: ImageFacts) -> ImageFacts:
        """Group and twin; the split follows when all groups are known."""
        stated, copy = self.rules.stated(facts), self.by_bytes.get(facts.sha256)
        if copy is not None:
            related = [Relative(copy, Kinship.SAME, is_twin=True)]
        else:
            related = self.pictures.of(facts.uri, self.placed, self.rules.cap)
        twin = self._twin(facts, related)
        group = stated.group or self._group(facts, related, stated)
        placed = replace(facts, group=group, twin=twin)
        self.add(placed)
        if stated.bucket is not None:
            self.groups.decided[group] = stated.bucket
        if stated.group and self._elsewhere(group, related, stated):
            self.apart.add(facts.uri)
        return placed

    def done(self, images: list[ImageFacts]) -> list[ImageFacts]:
        """With their groups as they are in the end, and splits."""
        return [self._in_split(facts, self.groups.of(facts.uri)) for facts in images]

    def _in_split(self, facts: ImageFacts, group: str) -> ImageFacts:
        if facts.uri in self.apart:
            return replace(facts, group=group, bucket=Split.QUARANTINE)
        split = self._split(group)
        if facts.earlier:
            split = stays(facts, joins=group in self.groups.decided, split=split)
        return replace(facts, group=group, bucket=split)

    def _twin(self, facts: ImageFacts, related: Sequence[Relative]) -> str:
        """Of whom it is the twin: of every picture that counts as that one, the first must be proven the same."""
        for relative in related:
            if relative.is_twin:
                twin = self.placed[relative.uri].twins
                speaker = self.first.get(twin, relative.uri)
                if speaker == relative.uri or self.pictures.is_same(facts.uri, speaker):
                    return twin
        return facts.sha256

    def _group(self, facts: ImageFacts, related: Sequence[Relative], stated: Given) -> str:
        proven = list(dict.fromkeys(self.groups.of(r.uri) for r in related if r.kinship in PROVEN))
        near = list(dict.fromkeys(self.groups.of(r.uri) for r in related if r.kinship not in PROVEN))
        sides = {self.groups.decided.get(g) for g in proven} | {stated.bucket}
        if len(sides - {None}) > 1:
            self.apart.add(facts.uri)
            return facts.sha256
        ours = proven + [g for g in near if g not in proven and self._may_join(g, stated)]
        group = next((g for g in ours if g in self.groups.decided), next(iter(ours), facts.sha256))
        for other in ours:
            group = self.groups.unite(group, other, proven=other in proven)
        return group

    def _may_join(self, group: str, stated: Given) -> bool:
        """Whether it joins for a likeness that is no proof: never into or out of people's own test set."""
        theirs = self.rules.own_test and self.groups.decided.get(group) is Split.TEST
        return stated.bucket is None and not theirs and self.groups.size[group] < self.groups.cap

    def _split(self, group: str) -> Split:
        return self.groups.decided.get(group) or split_of(group, self.rules.shares)

    def _elsewhere(self, group: str, related: Sequence[Relative], stated: Given) -> bool:
        """Whether the same picture stands in another split than the group that people gave."""
        here = stated.bucket or self._split(group)
        others = {self.groups.of(r.uri) for r in related if r.kinship in PROVEN} - {group}
        return any(self._split(other) is not here for other in others)


def stays(facts: ImageFacts, *, joins: bool, split: Split) -> Split:
    """Where an overwritten file stands: as before. What shows the same as images of another split stands in none."""
    apart = split is not facts.bucket and (joins or split is Split.QUARANTINE)
    return Split.QUARANTINE if apart else facts.bucket
