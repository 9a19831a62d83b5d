"""Label Studio's change feed in, the project's annotated tasks as they are now out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from labelloop.clock import now
from labelloop.errors import StudioError
from labelloop.labels.results import LabelSchema
from labelloop.records.tasks import Annotation, Seen, Task
from labelloop.studio.client import TaskFeed
from labelloop.studio.rows import NOBODY, TaskStub
from sync.answers.sweep import EPOCH, Sweep, earlier, find_missing
from sync.answers.task_groups import TaskGroupKeeper
from sync.answers.task_index import TaskIndex

log = structlog.get_logger()
OVERLAP = timedelta(seconds=5)  # transactions that commit late carry an earlier `updated_at`
OVERLAP_EVERY_S = 30.0  # where nothing moves: what a large import left within the overlap is not read by each poll
AHEAD = timedelta(days=1)  # a time beyond is that of a clock that was wrong: the cursor does not follow it
MANY = 1000  # tasks that seem to be gone: above, they are not asked for one by one
Shown = Callable[[str, Annotation], Seen | None]  # (uri, an answer that is new) -> what its author had before them
Outdated = Callable[[str, Annotation], str | None]  # (uri, an answer) -> since when the image is another one


@dataclass(frozen=True, slots=True)
class Changes:
    """What one poll found."""

    tasks: int = 0  # tasks whose annotations moved
    new: int = 0  # tasks never seen before
    gone: int = 0  # annotated tasks deleted in Label Studio

    def __bool__(self) -> bool:
        return bool(self.tasks or self.gone)

    def __add__(self, other: Changes) -> Changes:
        return Changes(self.tasks + other.tasks, self.new + other.new, self.gone + other.gone)


class Feed:
    """Keeps `tasks` (annotated) and `task_index` (all) equal to Label Studio. Memory only: rebuilt at every start."""

    def __init__(
        self, studio: TaskFeed, project: int, schema: LabelSchema, *, shown: Shown,
        outdated: Outdated = lambda _uri, _answer: None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._studio, self._project, self._schema, self._shown = studio, project, schema, shown
        self._outdated = outdated
        self._clock = clock
        self.task_groups: TaskGroupKeeper | None = None  # told what tasks say of their images' groups
        self.tasks: dict[int, Task] = {}
        self.task_index = TaskIndex()
        self.cursor = EPOCH
        self.moved: set[int] = set()  # tasks that differ from what was frozen last; see `frozen`
        self.annotations = 0  # of all `tasks`
        self._unread: set[int] = set()  # tasks to be read again whatever their times say
        self.unreadable: dict[int, str] = {}  # task -> why Label Studio cannot give it out, or not as a task
        self.deleted: set[str] = set()  # images whose task somebody removed: not to be brought back
        self._sweep: Sweep | None = None
        self.sweep_took_s = 0.0  # the last one, in Label Studio
        self._moved_at = self._overlapped_at = float("-inf")

    def begin(self, tasks: Mapping[int, Task]) -> None:
        """Start from the newest snapshot: only what changed since, or could not be understood then, is fetched."""
        self.tasks = dict(tasks)
        self.annotations = sum(len(t.annotations) for t in tasks.values())
        self._unread = {t.id for t in tasks.values() if any(self._is_foreign(a) for a in t.annotations)}

    def look_again(self, uris: Iterable[str]) -> None:
        """Other bytes may have been found in these files: mark the answers that were given to what stood there."""
        shown = {i for uri in uris for i in self.task_index.tasks_of.get(uri, ())}
        for number in shown & self.tasks.keys():
            task = self.tasks[number]
            marked = tuple(replace(a, outdated=self._outdated(task.uri, a)) for a in task.annotations)
            if marked != task.annotations:
                self.tasks[number] = replace(task, annotations=marked)
                self.moved.add(number)

    @property
    def dirty(self) -> bool:
        """True where `tasks` differ from what was frozen last."""
        return bool(self.moved)

    def frozen(self) -> None:
        """What moved until now is in a snapshot."""
        self.moved = set()

    def poll(self) -> Changes:
        """Read what changed since the cursor, with overlap; cheap where nothing did."""
        began = self._clock()
        settled = began - self._moved_at > OVERLAP_EVERY_S > began - self._overlapped_at
        since = EPOCH if self.cursor == EPOCH else earlier(self.cursor, timedelta() if settled else OVERLAP)
        changes = self._read(self._studio.changes(self._project, self._schema, since))
        if not settled:
            self._overlapped_at = began
        return changes

    def reconcile(self) -> Changes:
        """Read every task at once: at the start, and for a caller that wants to be sure."""
        self._sweep = None
        changes, done = self.sweep()
        while not done:
            more, done = self.sweep()
            changes += more
        return changes

    def sweep(self) -> tuple[Changes, bool]:
        """Read one more page of every task, and at the end take out what is gone; True then."""
        if self._sweep is None:
            self.unreadable.pop(NOBODY, None)
            self._sweep = Sweep(self._studio, self._project, self._schema, {*self.task_index.ids(), *self.tasks})
        stubs = self._sweep.page()
        if stubs is not None:
            return self._swept(self._sweep, stubs), False
        missing = self._confirmed(self._sweep.missing)
        self.sweep_took_s, self._sweep = self._sweep.took_s, None
        return self._take_out(missing), True

    @property
    def sweeping(self) -> bool:
        """True while a reading of every task is under way."""
        return self._sweep is not None

    def surplus(self) -> int:
        """How many more tasks are known than Label Studio has: a cheap sign that some were deleted."""
        return len(self.task_index) - self._studio.task_count(self._project)

    def task_count_differs(self) -> bool:
        """True where tasks were deleted, or have come since the last poll."""
        return self.surplus() != 0

    def find_deleted(self, surplus: int) -> Changes | None:
        """Look for as many deleted tasks and take them out; None where reading everything is quicker."""
        missing = find_missing(
            self._studio, self._project, sorted(self.task_index.ids()), surplus
        )  # O(tasks), but rare
        return None if missing is None else self._take_out(self._confirmed(missing))

    def _swept(self, sweep: Sweep, stubs: list[TaskStub]) -> Changes:
        try:
            return self._read([stubs])
        except StudioError:
            sweep.again()
            raise

    def _confirmed(self, missing: set[int]) -> set[int]:
        """Labels hang on it: what seems to be gone is asked for by its id, or proved by the number where it is much."""
        count = len(self.task_index) + sum(1 for i in self.tasks if i not in self.task_index)
        if len(missing) > MANY and count - len(missing) == self._studio.task_count(self._project):
            return missing
        there = self._studio.tasks(self._project, self._schema, sorted(missing))
        return missing - {task.id for task in there}

    def _take_out(self, missing: Iterable[int]) -> Changes:
        annotated = 0
        for task in missing:
            before = self.tasks.get(task)
            self.unreadable.pop(task, None)
            if self.task_groups is not None:
                self.task_groups.remove(task)
            uri = self.task_index.remove(task) or (before.uri if before else "")
            if uri and uri not in self.task_index.tasks_of:
                self.deleted.add(uri)
            annotated += before is not None
            self._drop(task)
        return Changes(gone=annotated)

    def _read(self, pages: Iterable[list[TaskStub]]) -> Changes:
        stale: dict[int, TaskStub] = {}
        new, cursor, last = 0, self.cursor, earlier(now(), -AHEAD)
        for page in pages:
            for stub in filter(None, map(self._readable, page)):
                new += stub.id not in self.task_index
                if self._is_stale(stub):
                    stale[stub.id] = stub
                self._place(stub)
                cursor = max(cursor, stub.updated_at) if stub.updated_at <= last else cursor
        changes = Changes(self._fetch(stale), new)
        if cursor != self.cursor:  # only now: what could not be fetched is asked for again
            self.cursor, self._moved_at = cursor, self._clock()
        self._unread -= stale.keys()
        return changes

    def _readable(self, stub: TaskStub) -> TaskStub | None:
        """Note what cannot be read. Such a task keeps the image that is known of it; one without a number has none."""
        if stub.problem is None:
            self.unreadable.pop(stub.id, None)
            return stub
        if self.unreadable.get(stub.id) != stub.problem:
            log.warning("a task cannot be read", action="read", task=stub.id, reason=stub.problem)
        self.unreadable[stub.id] = stub.problem
        return replace(stub, uri=self.task_index.uri_of(stub.id)) if stub.id else None

    def _place(self, stub: TaskStub) -> None:
        left = self.task_index.put(stub.id, stub.uri, answered=bool(stub.annotations))
        if left:  # its task was changed, or deleted and its id used again
            self.deleted.add(left)
        self.deleted.discard(stub.uri)  # somebody brought it back
        if self.task_groups is not None and stub.problem is None:
            self.task_groups.put(stub.id, stub.uri, stub.said)

    def _is_stale(self, stub: TaskStub) -> bool:
        before = self.tasks.get(stub.id)
        if before is None:
            return bool(stub.annotations)
        return stub.id in self._unread or _moves(before) != stub.annotations or before.uri != stub.uri

    def _is_foreign(self, annotation: Annotation) -> bool:
        """It could not be read then; perhaps it can be now."""
        return annotation.problem is not None

    def _fetch(self, stale: Mapping[int, TaskStub]) -> int:
        emptied = [i for i, stub in stale.items() if not stub.annotations]
        for i in emptied:
            self._drop(i)
        annotated = [i for i, stub in stale.items() if stub.annotations]
        return len(emptied) + sum(map(self._keep, self._studio.tasks(self._project, self._schema, annotated)))

    def _keep(self, task: Task) -> bool:
        before = self.tasks.get(task.id)
        task = replace(task, uri=task.uri or self.task_index.uri_of(task.id))  # its data may be unreadable now
        merged = replace(task, annotations=tuple(self._remember(task, a, before) for a in task.annotations))
        if merged == before or (before is None and not merged.annotations):
            return False
        self._drop(task.id)
        if merged.annotations:
            self.tasks[task.id] = merged
            self.annotations += len(merged.annotations)
        self.moved.add(task.id)
        return True

    def _drop(self, task: int) -> None:
        before = self.tasks.pop(task, None)
        if before is not None:
            self.annotations -= len(before.annotations)
            self.moved.add(task)

    def _remember(self, task: Task, annotation: Annotation, before: Task | None) -> Annotation:
        """Keep what was seen, and what was given, at first sight: Label Studio forgets both, and we the window."""
        old = _same(annotation, before.annotations if before else ())
        if before is not None and old is not None:
            annotation = replace(annotation, given=_given(old, annotation))
            if old.updated_at == annotation.updated_at:  # nobody has looked since
                of = old.of or before.uri
                annotation = replace(annotation, of=of if of != task.uri else None, bulk=old.bulk or annotation.bulk)
        seen = old.seen if old and old.seen else self._shown(task.uri, annotation)
        if annotation.bulk:  # nobody had anything before them
            seen = None
        return replace(annotation, seen=seen, outdated=self._outdated(task.uri, annotation))


def _same(annotation: Annotation, kept: Iterable[Annotation]) -> Annotation | None:
    return next((a for a in kept if (a.id, a.created_at) == (annotation.id, annotation.created_at)), None)


def _given(before: Annotation, now: Annotation) -> str | None:
    """The class that its author chose, where somebody else has put another in its place."""
    first = before.given or before.label
    return first if now.changed_by is not None and first != now.label else None


def _moves(task: Task) -> tuple[tuple[int, str], ...]:
    return tuple(sorted((a.id, a.updated_at) for a in task.annotations))
