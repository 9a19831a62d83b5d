"""Auto-labels in, predictions of a version of their own in Label Studio out; and back.

People's queue goes by the predictions of the project's model version, which stays the champion: it is not touched, and
nobody sees these while labelling. Images that are shown blind are left out: a person who opened one elsewhere would
see what the model says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labelloop.errors import ConflictError, StudioError
from labelloop.records.images import Split
from labelloop.records.tasks import QueuePlace
from labelloop.rules.split import shown_blind
from labelloop.store.auto_labels import AutoLabel, is_auto
from labelloop.store.projects import ProjectRecord
from operations.data.auto_label import AutoLabelled
from operations.deployment import Deployment
from operations.reporting import Report

BATCH = 5000  # predictions in one request: 2.4 s where quick import is on
DELETED_A_SECOND = 400  # predictions; meanwhile nobody gets a next task


@dataclass(frozen=True, slots=True)
class Pushed:
    """What Label Studio holds now."""

    version: str
    predictions: int
    left_out: int  # labels of images that are shown blind, or whose tasks were answered or removed meanwhile


def push(deployment: Deployment, record: ProjectRecord, proposal: AutoLabelled, report: Report) -> Pushed:
    """Into tasks that nobody has answered, but for blind ones; ConflictError where older auto-labels are there."""
    check_room(deployment, record)
    version, labels = proposal.manifest.source, [one for one in proposal.labels if not _is_blind(one, record)]
    places = list(_places(labels, _open_tasks(deployment, record, report)))
    for start in range(0, len(places), BATCH):
        deployment.studio.push(record.id, record.schema, version, places[start : start + BATCH])
        report("push", min(start + BATCH, len(places)), len(places))
    covered = {choice.uri for _, choice in places}
    return Pushed(version, len(places), len({one.uri for one in proposal.labels} - covered))


def check_room(deployment: Deployment, record: ProjectRecord) -> None:
    """ConflictError where Label Studio holds auto-labels already; StudioError where the project is another one."""
    if deployment.studio.project(record.id).created != record.created:
        raise StudioError(f"project {record.id} of Label Studio is not {record.key}: see `labelloop doctor`")
    there = held(deployment, record)
    if there:
        count = sum(there.values())
        raise ConflictError(
            f"Label Studio holds {count} predictions of {', '.join(there)}: delete them first with `labelloop "
            f"auto-label --withdraw`. Nobody gets a next task meanwhile, about {count / DELETED_A_SECOND:.0f} s: do it "
            "while nobody labels"
        )


def held(deployment: Deployment, record: ProjectRecord) -> dict[str, int]:
    """Auto-label versions in Label Studio -> predictions."""
    counts = deployment.studio.prediction_counts(record.id)
    return {version: count for version, count in sorted(counts.items()) if is_auto(version)}


def withdraw(deployment: Deployment, record: ProjectRecord) -> dict[str, int]:
    """Take all auto-labels out of Label Studio; those in object storage stay."""
    return {version: deployment.studio.delete_predictions(record.id, version) for version in held(deployment, record)}


def _is_blind(one: AutoLabel, record: ProjectRecord) -> bool:
    return one.bucket != Split.TRAIN.value or shown_blind(one.group, record.config.queue.blind)


def _open_tasks(deployment: Deployment, record: ProjectRecord, report: Report) -> dict[str, list[int]]:
    """Uri -> tasks that nobody has answered."""
    tasks: dict[str, list[int]] = {}
    count, listed = deployment.studio.task_count(record.id), 0
    for page in deployment.studio.all_tasks(record.id, record.schema):
        for stub in page:
            if not stub.annotations and not stub.cancelled:
                tasks.setdefault(stub.uri, []).append(stub.id)
        listed += len(page)
        report("find the tasks", min(listed, count), count)
    return tasks


def _places(labels: Sequence[AutoLabel], tasks: dict[str, list[int]]) -> Iterator[tuple[int, QueuePlace]]:
    for one in labels:
        choice = QueuePlace(one.uri, one.probability, one.label, one.probability, blind=False, why="auto-label")
        yield from ((task, choice) for task in tasks.get(one.uri, ()))
