"""Which deployment a command speaks to: the embedded stack of a state directory, or the environment's."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from embedded.state import StackState
from labelloop.config.settings import Settings
from labelloop.errors import LabelloopError, NotFoundError
from labelloop.objects.storage import ObjectStore
from labelloop.queue.jobs import JobQueue
from labelloop.queue.leases import RedisLease
from labelloop.records.versions import Version
from labelloop.store.projects import DamagedRecord, ProjectRecord, ProjectStore, project_store
from labelloop.store.registry import Registry

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from labelloop.studio.client import Studio


@dataclass(frozen=True)
class Deployment:
    """Everything a command needs; connections open when they are used."""

    settings: Settings
    s3: S3Client
    store: ObjectStore
    queue: JobQueue
    projects: ProjectStore
    stack: StackState | None = None  # the embedded stack, where it is one

    @cached_property
    def studio(self) -> Studio:
        """Label Studio under the deployment's account."""
        from labelloop.studio.client import Studio  # with an HTTP client, which half of the commands never use

        settings = self.settings
        return Studio(
            settings.studio_url, settings.require_studio_token(),
            reread=lambda: settings.reread().require_studio_token(),
        )  # fmt: skip

    def project(self, name: str | None) -> ProjectRecord:
        """The project called ``name`` (key, title or id); the only one where no name is given."""
        records = self.projects.all()
        matches = [r for r in records if name is None or name in {r.key, r.title, str(r.id)}]
        if name and not matches:
            matches = self._renamed(records, name)
        if len(matches) == 1:
            return matches[0]
        raise NotFoundError(_not_one(name, records, len(matches), self.projects.unread()))

    def _renamed(self, records: Sequence[ProjectRecord], name: str) -> list[ProjectRecord]:
        """Projects that are called so in Label Studio by now; the watcher writes that down within seconds."""
        with suppress(LabelloopError):  # not our question to it: that nothing is called so is what counts
            return [replace(r, title=name) for r in records if self.studio.title(r.id, r.created) == name]
        return []

    def registry(self, record: ProjectRecord) -> Registry:
        """One project's models and deployment log."""
        return Registry(self.within(record), RedisLease(self.queue.redis, record.key))

    def version(self, record: ProjectRecord, name: str | None) -> Version:
        """The version of that name, or the champion; NotFoundError where there is none."""
        registry = self.registry(record)
        live = registry.live()
        chosen = name or (live.version if live else None)
        if chosen is None:
            raise NotFoundError("there is no champion yet; `labelloop models` lists what there is")
        try:
            return registry.version(chosen)
        except NotFoundError as error:
            newest = max(registry.versions(), key=lambda v: v.number, default=None)
            hint = f"the newest is {newest.name}" if newest else "there is none yet"
            raise NotFoundError(
                f"{record.title} has no version {chosen}; `labelloop models` lists them ({hint})"
            ) from error

    def close(self) -> None:
        """Give all connections back; for a caller that goes on after the command, like a test."""
        if "studio" in vars(self):
            self.studio.close()
        self.s3.close()
        self.queue.redis.close()

    def within(self, record: ProjectRecord) -> ObjectStore:
        """One project's part of the state bucket."""
        return project_store(self.store, record.key)


def _not_one(name: str | None, records: Sequence[ProjectRecord], matches: int, unread: Sequence[DamagedRecord]) -> str:
    projects = ", ".join(f"{r.title} ({r.key})" for r in records) or "none; `labelloop init` adds one"
    projects += "".join(f"; {d.project} cannot be read: {d.reason}" for d in unread)
    if name is None:
        return f"say which project with --project; projects: {projects}" if records else f"projects: {projects}"
    if matches:
        return f"{matches} projects are called {name!r}: give the key; projects: {projects}"
    near = difflib.get_close_matches(name, [part for r in records for part in (r.title, r.key)], 1)
    hint = f" (do you mean {near[0]!r}?)" if near else ""
    return f"no project is called {name!r}{hint}; projects: {projects}"
