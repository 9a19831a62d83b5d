"""What people gave: a label config that can be served, answers that count, tasks that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from labelloop.errors import CorruptArtefactError, LabelConfigError, NotFoundError
from labelloop.labels.label_config import asks_for_a_class
from labelloop.labels.results import parse_label_config
from labelloop.rules.schema import LabelRules
from labelloop.rules.uncounted import REMEDY, Uncounted, uncounted
from labelloop.store.projects import ProjectRecord
from labelloop.studio.client import StudioProject, task_link
from operations.doctor import storage, studio
from operations.doctor.checks import DoctorCheck
from operations.doctor.finding import Finding, fine, warn, wrong
from operations.doctor.project import area_of
from operations.doctor.scene import Scene
from operations.status import unreadable_of

NAMED = 3  # reasons


def of_project(scene: Scene, record: ProjectRecord) -> list[DoctorCheck]:
    """All of one project's."""
    area = area_of(record)
    return [
        DoctorCheck(area, "label config", lambda: label_config(scene.project(record)), (studio.REACHED, studio.TOKEN)),
        DoctorCheck(
            area, "empty answers", lambda: empty_answers(scene.project(record)), (studio.REACHED, studio.TOKEN)
        ),
        DoctorCheck(area, "answers", lambda: _answers(scene, record), (storage.REACHED,)),
        DoctorCheck(area, "tasks", lambda: _tasks(scene, record)),
    ]


def label_config(project: StudioProject) -> Finding:
    """The one of this moment; another one than labelloop knows is followed within seconds."""
    try:
        schema = parse_label_config(project.label_config)
    except LabelConfigError as error:
        return wrong("label config", str(error), "correct it under Settings > Labeling Interface; until then labels "
                     "count and models learn by the one before")  # fmt: skip
    return fine("label config", f"{len(schema.classes)} classes of {schema.control!r}, images in {schema.data_key!r}")


def empty_answers(project: StudioProject) -> Finding:
    """The key of a class that is ticked already unticks it, and Label Studio stores what is left in silence."""
    what = "empty answers"
    try:
        if asks_for_a_class(project.label_config):
            return fine(what, "Label Studio asks for a class")
    except LabelConfigError:
        return fine(what, "see the label config")
    return warn(what, "Label Studio stores answers in which nothing is chosen, and shows their tasks to nobody again",
                'add required="true" to <Choices> under Settings > Labeling Interface; with `answers: {reopen_empty: '
                "true}` in the config those that come all the same are deleted, so that their tasks are shown again",
                )  # fmt: skip


def answers(entries: Sequence[Uncounted]) -> Finding:
    """Those that do not count hold up nobody, but somebody gave them for nothing."""
    if not entries:
        return fine("answers", "every one counts")
    more = f"; and {len(entries) - NAMED} more reasons" if len(entries) > NAMED else ""
    reasons = "; ".join(row.told for row in entries[:NAMED])
    return warn("answers", f"{sum(row.count for row in entries)} do not count. {reasons}{more}", REMEDY)


def tasks(entries: Sequence[Uncounted]) -> Finding:
    """Those that Label Studio cannot give out."""
    if not entries:
        return fine("tasks", "every one can be read")
    reasons = "; ".join(row.told for row in entries[:NAMED])
    return warn("tasks", f"{sum(row.count for row in entries)} are left out. {reasons}", "delete them in Label Studio; "
                "where they are needed, import them again")  # fmt: skip


def _answers(scene: Scene, record: ProjectRecord) -> Finding:
    link = partial(task_link, scene.settings.studio_link, record.id)
    try:
        snapshot = scene.snapshot(record)
    except (CorruptArtefactError, NotFoundError) as error:
        return wrong("answers", f"the newest snapshot cannot be read: {error}", "the watcher writes it again: "
            "check that sync runs")  # fmt: skip
    if snapshot is None:
        return fine("answers", "none yet")
    tasks = LabelRules.of(record.config).read(snapshot).tasks.values()
    return answers(uncounted(tasks, record.schema, link))


def _tasks(scene: Scene, record: ProjectRecord) -> Finding:
    return tasks(unreadable_of(scene.watched(record), partial(task_link, scene.settings.studio_link, record.id)))
