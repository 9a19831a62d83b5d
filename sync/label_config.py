"""The label config and the title that Label Studio has now in; followed, or why not in words, out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import structlog

from labelloop.errors import LabelConfigError, NotFoundError
from labelloop.labels.results import parse_label_config
from labelloop.rules.migration import changed
from labelloop.store.projects import ProjectRecord, ProjectStore
from labelloop.studio.client import Studio
from sync.predictions.publish import Publisher

log = structlog.get_logger()


class LabelConfigFollower:
    """Serves the classes that Label Studio has now. What becomes of labels of a lost class, people decide.

    A config that cannot be served is a visible ``problem``, and the old one stays.
    """

    def __init__(self, project: ProjectRecord, studio: Studio, projects: ProjectStore, publisher: Publisher) -> None:
        self.project = project
        self.problem: str | None = None
        self._studio, self._projects, self._publisher = studio, projects, publisher

    def look(self, *, labelled: bool) -> None:
        """Ask Label Studio. ``labelled``: whether anything is."""
        there = self._studio.project(self.project.id)
        self._follow_title(there.title)
        self.problem = None
        if there.label_config != self.project.label_config:
            self._follow_config(there.label_config, labelled=labelled)

    def _follow_config(self, config: str, *, labelled: bool) -> None:
        try:
            schema = parse_label_config(config)
        except LabelConfigError as error:
            self.problem = (
                f"the label config was changed and cannot be served: {error}. Until it is corrected, labels count and "
                "models learn by the one before"
            )
            return
        change = changed(self.project.schema, schema, labelled=labelled)
        if change.hidden:
            self.problem = f"the label config is not followed: {change.hidden}"
            return
        log.info("label config changed", action="label_config", project=self.project.key,
                 added=list(change.added), removed=list(change.removed))  # fmt: skip
        if change.removed:
            self._publisher.withdraw(schema)
        newest = self._projects.get(self.project.key)  # its config may have been changed a moment ago
        self._projects.put(replace(newest, label_config=config))

    def _follow_title(self, title: str) -> None:
        """People call the project by the name that Label Studio shows."""
        if title != self.project.title:
            log.info("project renamed", action="rename", project=self.project.key, title=title)
            self.project = replace(self.project, title=title)
            with suppress(NotFoundError):  # just forgotten
                self._projects.put(replace(self._projects.get(self.project.key), title=title))
