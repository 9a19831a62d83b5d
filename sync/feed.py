"""Label Studio's change feed in, the project's annotated tasks as they are now out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from labelloop.clock import LABEL_STUDIO_FORMAT, parse
from labelloop.labels import LabelSchema
from labelloop.records import Annotation, Seen, Task
from labelloop.studio import TaskFeed, TaskStub

OVERLAP = timedelta(seconds=5)  # transactions that commit late carry an earlier `updated_at`
EPOCH = "1970-01-01T00:00:00.000000Z"
Hidden = Callable[[str, str], str | None]  # (version, uri) -> what the model would have said of a blind task


@dataclass(frozen=True, slots=True)
class Changes:
    """What one poll found."""

    tasks: int = 0  # tasks whose annotations moved
    new: int = 0  # tasks never seen before
    gone: int = 0  # tasks deleted in Label Studio

    def __bool__(self) -> bool:
        return bool(self.tasks or self.gone)


class Feed:
    """Keeps `tasks` (annotated) and `stubs` (all) equal to Label Studio. Memory only: rebuilt at every start."""

    def __init__(self, studio: TaskFeed, project: int, schema: LabelSchema, *, hidden: Hidden) -> None:
        self._studio, self._project, self._schema, self._hidden = studio, project, schema, hidden
        self.tasks: dict[int, Task] = {}
        self.stubs: dict[int, TaskStub] = {}
        self.cursor = EPOCH
        self.dirty = False  # `tasks` differ from what was frozen last; the freezer clears it
        self._unread: set[int] = set()  # tasks to be read again whatever their times say
        self.deleted: set[str] = set()  # images whose task somebody removed: not to be brought back

    def begin(self, tasks: Mapping[int, Task]) -> None:
        """Start from the newest snapshot: only what changed since, or could not be understood then, is fetched."""
        self.tasks = dict(tasks)
        self._unread = {t.id for t in tasks.values() if any(self._is_foreign(a) for a in t.annotations)}

    def poll(self) -> Changes:
        """Read what changed since the cursor, with overlap; cheap where nothing did."""
        return self._read(self._studio.changes(self._project, self._schema, self._since()))

    def reconcile(self) -> Changes:
        """Read every task: the only way to see deleted ones."""
        pages = list(self._studio.all_tasks(self._project, self._schema))
        changes = self._read(pages)
        present = {stub.id for page in pages for stub in page}
        gone = [i for i in {*self.stubs, *self.tasks} if i not in present]
        self.deleted |= {uri for i in gone if (uri := self._uri_of(i))}
        annotated = sum(1 for i in gone if self.tasks.pop(i, None))
        for i in gone:
            self.stubs.pop(i, None)
        self.dirty = self.dirty or annotated > 0
        return replace(changes, gone=annotated)

    def task_count_differs(self) -> bool:
        """A cheap sign that tasks were deleted."""
        return self._studio.task_count(self._project) != len(self.stubs)

    @property
    def task_of(self) -> dict[str, list[int]]:
        """Uri -> ids of the tasks that show it."""
        found: dict[str, list[int]] = {}
        for stub in self.stubs.values():
            if stub.uri:
                found.setdefault(stub.uri, []).append(stub.id)
        return found

    def _uri_of(self, task: int) -> str | None:
        known = self.stubs.get(task) or self.tasks.get(task)
        return known.uri if known else None

    def _since(self) -> str:
        if self.cursor == EPOCH:
            return EPOCH
        return (parse(self.cursor) - OVERLAP).strftime(LABEL_STUDIO_FORMAT)

    def _read(self, pages: Iterable[list[TaskStub]]) -> Changes:
        stale: dict[int, TaskStub] = {}
        new, cursor = 0, self.cursor
        for page in pages:
            for stub in page:
                new += stub.id not in self.stubs
                if self._is_stale(stub):
                    stale[stub.id] = stub
                self.stubs[stub.id] = stub
                self.deleted.discard(stub.uri)  # somebody brought it back
                cursor = max(cursor, stub.updated_at)
        changes = Changes(self._fetch(stale), new)
        self.cursor = cursor  # only now: what could not be fetched is asked for again
        self._unread -= stale.keys()
        return changes

    def _is_stale(self, stub: TaskStub) -> bool:
        known = self.tasks.get(stub.id)
        if known is None:
            return bool(stub.annotations)
        return stub.id in self._unread or _moves(known) != stub.annotations or known.uri != stub.uri

    def _is_foreign(self, annotation: Annotation) -> bool:
        """Its class was not in the label config then, or is not now."""
        label = annotation.label
        return annotation.problem is not None or (label is not None and label not in self._schema.classes)

    def _fetch(self, stale: Mapping[int, TaskStub]) -> int:
        emptied = [i for i, stub in stale.items() if not stub.annotations]
        for i in emptied:
            self.dirty = self.tasks.pop(i, None) is not None or self.dirty
        wanted = [i for i in stale if i not in set(emptied)]
        changed = len(emptied)
        for task in self._studio.tasks(self._project, self._schema, wanted):
            changed += self._keep(task)
        return changed

    def _keep(self, task: Task) -> bool:
        known = self.tasks.get(task.id)
        merged = replace(task, annotations=tuple(self._remember(task, a, known) for a in task.annotations))
        if merged == known or (known is None and not merged.annotations):
            return False
        self.dirty = True
        if merged.annotations:
            self.tasks[task.id] = merged
        else:
            del self.tasks[task.id]
        return True

    def _remember(self, task: Task, annotation: Annotation, known: Task | None) -> Annotation:
        """Keep what was seen at first sight: Label Studio forgets the prediction, and we the window."""
        for old in known.annotations if known else ():
            if (old.id, old.created_at) == (annotation.id, annotation.created_at) and old.seen:
                return replace(annotation, seen=old.seen)
        seen = annotation.seen
        if seen and seen.blind:
            hidden = self._hidden(seen.version, task.uri)
            return replace(annotation, seen=Seen(seen.version, hidden, blind=True))
        return annotation


def _moves(task: Task) -> tuple[tuple[int, str], ...]:
    return tuple(sorted((a.id, a.updated_at) for a in task.annotations))
