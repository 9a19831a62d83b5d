"""Which tasks show which image, and which of them nobody has answered. Kept up to date task by task, never rebuilt."""

from __future__ import annotations

Ids = tuple[int, ...]


class TaskIndex:
    """All tasks of one project. Every method costs the same however many there are."""

    def __init__(self) -> None:
        self.tasks_of: dict[str, Ids] = {}  # uri -> tasks that show it
        self.open: dict[str, Ids] = {}  # the same, without those that somebody has answered
        self._uris: dict[int, str] = {}
        self._changed: set[str] = set()

    def __len__(self) -> int:
        return len(self._uris)

    def __contains__(self, task: object) -> bool:
        return task in self._uris

    def ids(self) -> list[int]:
        """Every task; the one method that is O(tasks)."""
        return list(self._uris)

    def uri_of(self, task: int) -> str:
        """The image that a task shows; empty where it has none, or is not known."""
        return self._uris.get(task, "")

    def put(self, task: int, uri: str, *, answered: bool) -> str:
        """Add or change a task; returns an image that no task shows any more, or nothing."""
        before = self._uris.get(task)
        left = ""
        if before is not None and before != uri:
            left = self.remove(task)
        if before != uri:
            self._uris[task] = uri
            self._show(task, uri)
        if uri:
            _set(self.open, uri, task, present=not answered)
        return left

    def remove(self, task: int) -> str:
        """Take a task out; returns its image where no other task shows it."""
        uri = self._uris.pop(task, "")
        if not uri:
            return ""
        _set(self.open, uri, task, present=False)
        _set(self.tasks_of, uri, task, present=False)
        if uri in self.tasks_of:
            return ""
        self._changed.add(uri)
        return uri

    def take_changed(self) -> set[str]:
        """Images that tasks began or ceased to show since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def _show(self, task: int, uri: str) -> None:
        if uri:
            if uri not in self.tasks_of:
                self._changed.add(uri)
            _set(self.tasks_of, uri, task, present=True)


def _set(where: dict[str, Ids], uri: str, task: int, *, present: bool) -> None:
    ids = where.get(uri, ())
    if present and task not in ids:
        where[uri] = (*ids, task)
    elif not present and task in ids:
        where[uri] = tuple(i for i in ids if i != task)
        if not where[uri]:
            del where[uri]
