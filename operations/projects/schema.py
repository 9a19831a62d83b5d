"""A project's classes in Label Studio, in labels and in the champion in; what to decide, and the decision, out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from labelloop.config.project import parse_config
from labelloop.labels.results import parse_label_config
from labelloop.queue.channels import NUDGE_CHANNEL, publish
from labelloop.records.images import Split
from labelloop.records.tasks import Task
from labelloop.rules.migration import Proposal, Wishes, decide, propose, undecided
from labelloop.rules.schema import LabelRules
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment

NOWHERE = "unknown"  # split of an image that has not been read yet
SPLITS = (*(b.value for b in Split), NOWHERE)
Counts = Mapping[str, Mapping[str, int]]  # class -> split -> labels


@dataclass(frozen=True, slots=True)
class SchemaRow:
    """One class that people can give, have given, or that the champion's head knows."""

    name: str
    offered: bool  # by the label config of Label Studio now
    labels: Mapping[str, int]  # split -> labels given under this name
    in_head: bool
    counts_as: str | None  # None: dropped
    with_: tuple[str, ...] = ()  # others that count as it

    @property
    def state(self) -> str:
        """In words, for people."""
        if self.counts_as is None:
            return "dropped" + (": offered again, take it back with --keep" if self.offered else "")
        if self.counts_as != self.name:
            return f"counts as {self.counts_as}"
        if not self.offered:
            return "no longer offered: DECIDE" if self.labels else "no longer offered, no labels"
        if self.with_:
            return f"with the labels of {', '.join(self.with_)}"
        return "" if self.labels else "no labels yet"


@dataclass(frozen=True, slots=True)
class SchemaView:
    """Everything that a decision needs."""

    project: str
    version: str | None
    rows: tuple[SchemaRow, ...]
    undecided: Mapping[str, int]  # class -> labels
    proposals: tuple[Proposal, ...]
    label_map: Mapping[str, str | None]

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that the label config offers."""
        return tuple(r.name for r in self.rows if r.offered)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"proposals": [asdict(p) | {"option": p.option} for p in self.proposals]}


@dataclass(frozen=True, slots=True)
class Effect:
    """What a decision would do."""

    label_map: Mapping[str, str | None]
    before: Counts
    after: Counts
    undecided: Mapping[str, int]  # what would still be left to decide


class SchemaReader:
    """One project's labels, read once for the view and the effect."""

    def __init__(self, deployment: Deployment, record: ProjectRecord) -> None:
        store = deployment.within(record)
        self._record = record
        self._classes = parse_label_config(deployment.studio.project(record.id).label_config).classes
        self._catalogue = Catalogue(store)
        self._catalogue.update()
        snapshots = SnapshotStore(store)
        latest = snapshots.latest()
        self._tasks = tuple(snapshots.load(latest.snapshot).tasks.values()) if latest else ()
        registry = deployment.registry(record)
        live = registry.live()
        self._version = registry.version(live.version) if live else None

    def view(self) -> SchemaView:
        """The classes as they are."""
        rules = LabelRules.of(self._record.config)
        counts = self._counts(self._tasks)
        head = self._version.labels if self._version else ()
        names = dict.fromkeys([*self._classes, *sorted(counts), *head, *rules.label_map])
        waiting = self._undecided(rules)
        return SchemaView(
            self._record.key, self._version.name if self._version else None,
            tuple(
                SchemaRow(n, n in self._classes, counts.get(n, {}), n in head, rules.resolve(n),
                          tuple(o for o in rules.label_map if rules.resolve(o) == n))
                for n in names
            ),
            waiting, propose(waiting, self._classes, [*counts, *head]), rules.label_map,
        )  # fmt: skip

    def effect(self, wishes: Wishes) -> Effect:
        """What would count afterwards; SettingsError where a wish cannot be."""
        old = LabelRules.of(self._record.config)
        counts = self._counts(self._tasks)
        label_map = decide(old.label_map, wishes, labelled=counts, classes=self._classes)
        new = replace(old, label_map=label_map)
        before, after = (self._counts(rules.task(t) for t in self._tasks) for rules in (old, new))
        return Effect(label_map, before, after, self._undecided(new))

    def _undecided(self, rules: LabelRules) -> dict[str, int]:
        labels = {t.uri: label for t in self._tasks if (label := rules.task(t).label) is not None}
        return undecided(labels.values(), self._classes)

    def _counts(self, tasks: Iterable[Task]) -> dict[str, dict[str, int]]:
        by_class: dict[str, Counter[str]] = {}
        for task in tasks:
            if task.label is not None:
                facts = self._catalogue.images.get(task.uri)
                by_class.setdefault(task.label, Counter())[facts.bucket.value if facts else NOWHERE] += 1
        return {name: dict(counts) for name, counts in by_class.items()}


def write(deployment: Deployment, record: ProjectRecord, label_map: Mapping[str, str | None]) -> ProjectRecord:
    """Keep a decision with the project's config, and wake the watcher; learning goes on from there.

    The champion's predictions are deleted first: the watcher pushes them again, under the present names.
    """
    live = deployment.registry(record).live()
    if live:
        deployment.studio.delete_predictions(record.id, live.version)
    newest = deployment.projects.get(record.key)  # the watcher may have followed the label config meanwhile
    data = {**newest.config.model_dump(mode="json"), "label_map": dict(label_map)}
    changed = replace(newest, config=parse_config(data, f"the config of {record.title}"))
    deployment.projects.put(changed)
    publish(deployment.queue.redis, NUDGE_CHANNEL, {"action": "schema", "project": record.key})
    return changed
