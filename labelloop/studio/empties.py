"""A recorded answer in; deleted in Label Studio where nothing is chosen in it, else left alone, out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from labelloop.errors import StudioError
from labelloop.records.tasks import Annotation
from labelloop.studio.rows import NOBODY, moment, number_of, whole


class EmptiesHttp(Protocol):
    """`StudioHttp`, or a fake."""

    def call(self, method: str, path: str) -> Any:
        """The JSON of an answer; a DELETE is not repeated."""


def delete_empty(http: EmptiesHttp, task: int, answer: Annotation) -> bool:
    """False where it is gone or not as it was recorded: what stands under this number now is somebody's work."""
    try:
        row = http.call("GET", f"api/annotations/{answer.id}/")
        drafts = http.call("GET", f"api/tasks/{task}/drafts")
        if not is_recorded_empty(row, drafts, task, answer):
            return False
        http.call("DELETE", f"api/annotations/{answer.id}/")
    except StudioError as error:
        if error.status != 404:
            raise
        return False
    return True


def is_recorded_empty(row: object, drafts: object, task: int, answer: Annotation) -> bool:
    """True of an answer that nobody can miss: in every part as it was recorded, and nothing chosen in it.

    ``drafts`` of its task: one that belongs to an answer is work of somebody who has it open. In doubt: False.
    """
    if not isinstance(row, Mapping) or not isinstance(drafts, list | tuple):
        return False
    same = (number_of(row), moment(row.get("created_at")), moment(row.get("updated_at")), whole(row.get("task")))
    return (
        same == (answer.id, answer.created_at, answer.updated_at, task) and NOBODY not in {answer.id, task}
        and row.get("result") == []
        and row.get("was_cancelled") is False and row.get("ground_truth") is False
        and all(isinstance(d, Mapping) and "annotation" in d and d["annotation"] is None for d in drafts)
    )  # fmt: skip
