"""What people meant, in the running loop: nothing learns from what nobody looked at, and nothing is lost in silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labelloop.records.tasks import QueuePlace, Task
from labelloop.rules.schema import BULK, OUTDATED, LabelRules
from labelloop.store.catalogue import Catalogue
from labelloop.store.snapshots import SnapshotStore
from sync.answers.empties import PREFIX
from tests.acceptance.conftest import Loop, labelloop, until


@pytest.fixture
def task(loop: Loop) -> Iterator[int]:
    """A task of an image that another task shows already; gone afterwards."""
    stub = next(s for page in loop.studio.all_tasks(loop.project.id, loop.schema) for s in page)
    path = f"api/projects/{loop.project.id}/import"
    rows = [{"data": {loop.schema.data_key: stub.uri}}]
    (made,) = loop.studio.http.call("POST", path, params={"return_task_ids": "true"}, json=rows)["task_ids"]
    yield made
    loop.studio.delete_task(made)


def frozen(loop: Loop) -> dict[int, Task]:
    """The newest snapshot, after everything was read, as it counts."""
    labelloop("sync", "--drain", "--project", "digits", "--state-dir", loop.home)
    store = SnapshotStore(loop.deployment.within(loop.project))
    latest = store.latest()
    assert latest is not None
    return dict(LabelRules.of(loop.project.config).read(store.load(latest.snapshot)).tasks)


def told(loop: Loop, reason: str) -> list[str]:
    """Links to tasks whose answers do not count for this reason."""
    return [link for row in loop.picture().uncounted if row.reason == reason for link in row.links]


def link(loop: Loop, task: int) -> str:
    return f"{loop.studio.url}/projects/{loop.project.id}/data?task={task}"


def test_a_ground_truth_counts_whoever_answers_later(loop: Loop, task: int) -> None:
    first = loop.studio.annotate(task, loop.schema.result("0"), lead_time_s=1.0)
    loop.studio.http.call("PATCH", f"api/annotations/{first}/", json={"ground_truth": True})
    loop.studio.annotate(task, loop.schema.result("1"), lead_time_s=1.0)
    assert frozen(loop)[task].label == "0"


def test_answers_that_were_copied_from_predictions_do_not_count_until_a_person_looks(loop: Loop, task: int) -> None:
    studio, project = loop.studio, loop.project.id
    studio.push(project, loop.schema, "copied", [(task, QueuePlace("", 0.5, "3", 0.9, blind=False, why="test"))])
    body = {"selectedItems": {"all": False, "included": [task]}, "ordering": [], "project": project,
            "model_version": "copied"}  # fmt: skip
    studio.http.call("POST", "api/dm/actions/", params={"id": "predictions_to_annotations", "project": project},
                     json=body)  # fmt: skip
    until(lambda: link(loop, task) in told(loop, BULK), what="the words in status")
    assert frozen(loop)[task].label is None
    studio.delete_predictions(project, "copied")  # Label Studio forgets where the answer came from
    studio.annotate(task, [], skip=True)
    assert frozen(loop)[task].label is None
    studio.annotate(task, loop.schema.result("4"), lead_time_s=1.0)
    assert frozen(loop)[task].label == "4"
    assert not told(loop, BULK)


def test_an_empty_answer_is_recorded_and_its_task_served_again(loop: Loop) -> None:
    task = loop.studio.next_task(loop.project.id, loop.schema)
    assert task is not None
    given = loop.studio.annotate(task.id, [], lead_time_s=1.0, prediction=task.prediction_id)
    until(lambda: not loop.studio.tasks(loop.project.id, loop.schema, [task.id])[0].annotations, what="the delete")
    (kept,) = [i.key for i in loop.deployment.within(loop.project).list(PREFIX) if i.key.endswith(f"-{given}.json")]
    assert kept
    for _ in range(40):  # a new order may have come meanwhile
        again = loop.studio.next_task(loop.project.id, loop.schema)
        assert again is not None
        if again.id == task.id:
            break
        loop.submit(1)
    else:
        pytest.fail("the task was not served again")


def test_a_label_of_overwritten_bytes_is_set_aside_until_somebody_looks(loop: Loop, tmp_path: Path) -> None:
    tasks = [t for t in frozen(loop).values() if t.label is not None and t.counted is not None]
    old, other = next((a, b) for a in tasks for b in tasks if a.label != b.label)
    catalogue = Catalogue(loop.deployment.within(loop.project))
    catalogue.update()
    before = catalogue.images[old.uri]
    bucket = loop.deployment.settings.image_buckets[0]
    key, source = (t.uri.removeprefix(f"s3://{bucket}/") for t in (old, other))
    s3 = loop.deployment.s3
    data = s3.get_object(Bucket=bucket, Key=source)["Body"].read()
    s3.put_object(Bucket=bucket, Key=key, Body=data + b"\0")  # the other picture; not the very same file
    until(lambda: link(loop, old.id) in told(loop, OUTDATED), what="the words in status")
    assert frozen(loop)[old.id].label is None
    catalogue.update()
    after = catalogue.images[old.uri]
    assert after.sha256 != before.sha256
    assert after.bucket in {before.bucket, "quarantine"}
    labelloop("export", "--format", "csv", "--out", tmp_path / "e.csv", "--project", "digits", "--state-dir", loop.home)
    assert old.uri not in (tmp_path / "e.csv").read_text()

    assert old.counted is not None
    assert other.label is not None
    loop.studio.change_annotation(old.counted.id, loop.schema.result(other.label))
    assert frozen(loop)[old.id].label == other.label
    assert not told(loop, OUTDATED)
