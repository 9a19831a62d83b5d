"""People at Label Studio who do everything they may do, and never give up."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from labelloop.errors import LabelloopError, StudioError
from labelloop.objects.storage import S3Store
from labelloop.store.projects import ProjectRecord
from operations.models.retrain import ask
from operations.projects.imagefolder import LabelledFile, upload
from tests.faults.world import World

PATIENCE_S = 60.0


@dataclass
class Annotator:
    """Does one action after another, in the browser's place: straight to Label Studio, never through the proxy."""

    world: World
    record: ProjectRecord
    truth: Mapping[str, str]  # uri -> class
    spare: list[LabelledFile]  # images that are not in the project yet
    seed: int
    done: int = 0
    _labelled: list[int] = field(default_factory=list)  # annotation ids
    _skipped: list[int] = field(default_factory=list)
    _tasks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(f"annotator:{self.seed}")
        self._studio, self._schema = self.world.direct.studio, self.record.schema

    def act(self, action: str) -> None:
        """One action; tried again until it works, as people do. What was done in between counts all the same."""
        began = time.monotonic()
        while True:
            try:
                getattr(self, f"_{action}")()
                break
            except LabelloopError as error:
                if isinstance(error, StudioError) and error.status == 404:  # somebody deleted it: they go on
                    break
                if time.monotonic() - began > PATIENCE_S:
                    raise
                time.sleep(0.3)
        self.done += 1

    def _create(self) -> None:
        """From the stream, or (as often) a task that somebody opened in the Data Manager."""
        if self._tasks and self._random.random() < 0.5:
            self._annotate_again(self._random.choice(self._tasks))
            return
        task = self._studio.next_task(self.record.id, self._schema)
        if task is None:
            return
        right = self._random.random() > 0.05
        label = self.truth.get(task.uri) if right else self._random.choice(self._schema.classes)
        result = self._schema.result(label or self._schema.classes[0])
        self._labelled.append(self._studio.annotate(task.id, result, lead_time_s=1.0, prediction=task.prediction_id))
        self._tasks.append(task.id)

    def _annotate_again(self, task: int) -> None:
        result = self._schema.result(self._random.choice(self._schema.classes))
        self._labelled.append(self._studio.annotate(task, result, lead_time_s=1.0))

    def _change(self) -> None:
        if self._labelled:
            label = self._random.choice(self._schema.classes)
            self._studio.change_annotation(self._random.choice(self._labelled), self._schema.result(label))

    def _skip(self) -> None:
        task = self._studio.next_task(self.record.id, self._schema)
        if task is not None:
            self._skipped.append(self._studio.annotate(task.id, [], lead_time_s=1.0, skip=True))
            self._tasks.append(task.id)

    def _unskip(self) -> None:
        if self._skipped:
            annotation = self._skipped.pop(self._random.randrange(len(self._skipped)))
            self._studio.change_annotation(annotation, self._schema.result(self._random.choice(self._schema.classes)))

    def _delete(self) -> None:
        if self._labelled:
            self._studio.delete_annotation(self._labelled.pop(self._random.randrange(len(self._labelled))))

    def _delete_task(self) -> None:
        if self._tasks:
            self._studio.delete_task(self._tasks.pop(self._random.randrange(len(self._tasks))))

    def _import_labelled(self) -> None:
        """Tasks that come with annotations; no webhook tells of them."""
        uri = self._random.choice(sorted(self.truth))
        result = self._schema.result(self.truth[uri])
        row = {"data": {self._schema.data_key: uri}, "annotations": [{"result": result}]}
        self._studio.import_tasks(self.record.id, [row])

    def _upload_images(self) -> None:
        if self.spare:
            files = [self.spare.pop() for _ in range(min(3, len(self.spare)))]
            store = S3Store(self.world.direct.s3, self.world.direct.settings.image_buckets[0])
            upload(store, files, files[0].key.partition("/")[0] + "/", lambda _: None)

    def _retrain(self) -> None:
        ask(self.world.direct, self.record, by="faults")

    def _look(self) -> None:
        self._studio.next_task(self.record.id, self._schema)
