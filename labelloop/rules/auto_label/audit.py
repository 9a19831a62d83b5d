"""Images and people's answers in, the images that are left and the random sample that speaks for them out. Pure.

The quota draws audit images in a random order that is fixed for ever. Answers count as far as this order has been
worked off: what people labelled further back they chose themselves, or it came with an import, or other images have
joined the order since. So the sample is random, whatever else people did. A person who skipped an image, or gave it two
classes, said that no label is right for it: in the sample every answer to it is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from labelloop.records.images import JUDGING, ImageFacts, Split
from labelloop.records.tasks import Task
from labelloop.rules.acquisition import lot

GAPS = 0.02  # share of the sample that may lack an answer: images that lie in front of somebody. They count as wrong


class AnswerState(Enum):
    """What people have said of a group of images that show the same."""

    OPEN = "nothing"
    ANSWERED = "something"
    SEEN = "something, with a prediction in sight"  # speaks for nothing where it judges


@dataclass(frozen=True, slots=True)
class AuditGroup:
    """Images of one picture count once; the first by name stands for all."""

    id: str
    uris: tuple[str, ...]
    bucket: Split
    state: AnswerState = AnswerState.OPEN
    label: str | None = None  # None: no answer, or none that could be right
    related: str = ""  # what the random order draws: related pictures stand in one split; empty: the group alone

    @property
    def drawn_by(self) -> str:
        """Its name in the random order."""
        return self.related or self.id

    @property
    def uri(self) -> str:
        """The image whose features speak for the group."""
        return self.uris[0]


@dataclass(frozen=True, slots=True)
class Ground:
    """What may be labelled, and what speaks for it."""

    rest: tuple[AuditGroup, ...]  # nobody has answered any image of theirs
    sample: tuple[AuditGroup, ...]  # audit groups drawn at random from ``images``
    images: int  # groups: ``rest``, ``sample`` and all that people labelled otherwise
    gaps: int  # groups of the sample that nobody has answered yet
    later: int  # audit groups with an answer behind the first unanswered ones of the random order: do not count yet
    seen: int  # audit groups that were answered with a prediction in sight: do not count
    open_audit: int  # audit groups that nobody has answered


def groups_of(images: Iterable[ImageFacts], tasks: Iterable[Task], usable: Collection[str]) -> list[AuditGroup]:
    """Groups of readable images among ``usable`` uris, by id. What is in quarantine stands for nothing else."""
    members: dict[str, list[ImageFacts]] = defaultdict(list)
    group_ids: dict[str, str] = {}
    for facts in images:
        group_ids[facts.uri] = facts.twins
        if facts.uri in usable and facts.group and not facts.problem and facts.bucket is not Split.QUARANTINE:
            members[facts.twins].append(facts)
    answers: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        if task.annotations and task.uri in group_ids:
            answers[group_ids[task.uri]].append(task)
    return [_group(id, members[id], answers.get(id, ())) for id in sorted(members)]


def ground_of(groups: Sequence[AuditGroup], seed: int) -> Ground:
    """Divide them. ``seed``: the project's, which decides the random order."""
    audit = _in_order(groups, Split.AUDIT, seed)
    sample = _worked_off(audit)
    tested = [g for g in _worked_off(_in_order(groups, Split.TEST, seed)) if g.state is not AnswerState.OPEN]
    rest = tuple(g for g in groups if g.state is AnswerState.OPEN)
    counted = [g for g in audit if g.state is AnswerState.ANSWERED]
    gaps = sum(g.state is not AnswerState.ANSWERED for g in sample)
    return Ground(
        rest, tuple(sample), images=len(groups) - len(tested), gaps=gaps,
        later=len(counted) - (len(sample) - gaps), seen=sum(g.state is AnswerState.SEEN for g in audit),
        open_audit=sum(g.state is AnswerState.OPEN for g in audit),
    )  # fmt: skip


def _group(name: str, images: Sequence[ImageFacts], tasks: Sequence[Task]) -> AuditGroup:
    uris = tuple(sorted(f.uri for f in images))
    group = AuditGroup(name, uris, images[0].bucket, related=images[0].group)
    if not tasks:
        return group
    labels = {task.label for task in tasks if task.label is not None}
    state = AnswerState.SEEN if group.bucket in JUDGING and any(map(_anchored, tasks)) else AnswerState.ANSWERED
    return AuditGroup(name, uris, group.bucket, state, labels.pop() if len(labels) == 1 else None, group.related)


def _anchored(task: Task) -> bool:
    """Whether the answer that counts was given with a prediction in sight."""
    counted = task.counted
    return counted is not None and counted.seen is not None and not counted.seen.blind


def _in_order(groups: Iterable[AuditGroup], split: Split, seed: int) -> list[AuditGroup]:
    """As the quota draws them: of related pictures one speaks, an answered one where there is any."""
    speakers: dict[str, AuditGroup] = {}
    for group in sorted((g for g in groups if g.bucket is split), key=lambda g: (g.state is AnswerState.OPEN, g.uri)):
        speakers.setdefault(group.drawn_by, group)
    return sorted(speakers.values(), key=lambda g: lot(seed, g.drawn_by))


def _worked_off(drawn: Sequence[AuditGroup]) -> Sequence[AuditGroup]:
    """The longest beginning with next to no gaps: a random sample of its split, and so of all images."""
    gaps, end = 0, 0
    for place, group in enumerate(drawn, 1):
        gaps += group.state is not AnswerState.ANSWERED
        if group.state is AnswerState.ANSWERED and gaps <= GAPS * place:
            end = place
    return drawn[:end]
